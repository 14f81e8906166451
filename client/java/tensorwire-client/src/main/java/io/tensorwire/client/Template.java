package io.tensorwire.client;

import io.tensorwire.client.wire.Layout;
import io.tensorwire.client.wire.ProtocolException;
import io.tensorwire.client.wire.RequestHeader;
import io.tensorwire.client.wire.TensorHeader;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

/**
 * What is the same for every call with the same names, dtypes, shapes and options: above all the
 * header's bytes.
 */
final class Template {
    /** Requests of more bytes travel alone. */
    private static final long FUSE_LIMIT = 16_384;

    final byte[] header;
    final Layout layout;

    /** Of each request; 1 where the inputs share none. */
    final int rows;

    /** Of all inputs of one request. */
    final long nbytes;

    /** Whether several such requests may travel in one message. */
    final boolean fusable;

    /** Those that wait to be sent; of the I/O thread alone. */
    Envelope group;

    private final Long version;
    private final String label;
    private final List<String> outputs;
    private final String[] names;
    private final DType[] dtypes;
    private final long[][] shapes;

    Template(String model, PredictOptions options, String[] names, Tensor[] inputs) {
        this.version = options.version();
        this.label = options.label();
        this.outputs = options.outputs();
        this.names = names;
        this.dtypes = Arrays.stream(inputs).map(Tensor::dtype).toArray(DType[]::new);
        this.shapes = Arrays.stream(inputs).map(Tensor::shape).toArray(long[][]::new);
        long shared = sharedRows(inputs);
        if (shared > Integer.MAX_VALUE) {
            throw new RpcException(
                    StatusCode.INVALID_ARGUMENT,
                    shared + " rows in one request; at most " + Integer.MAX_VALUE);
        }
        this.rows = shared < 0 ? 1 : (int) shared;
        try {
            this.layout = layout(names, inputs, shared >= 0);
        } catch (ProtocolException error) {
            throw new RpcException(error.code(), error.description());
        }
        this.header = new RequestHeader(model, version, label, outputs, layout).encode();
        this.nbytes = layout.nbytes(rows);
        this.fusable = layout.isGroupable() && nbytes <= FUSE_LIMIT;
    }

    /** The row counts of so many requests; null where there are none. */
    int[] rowsOf(int count) {
        if (!layout.rows()) {
            return null;
        }
        int[] counts = new int[count];
        Arrays.fill(counts, rows);
        return counts;
    }

    /** Whether a call has this template; names and inputs in the same order. */
    boolean matches(PredictOptions options, String[] otherNames, Tensor[] inputs) {
        if (otherNames.length != names.length || !matches(options)) {
            return false;
        }
        for (int index = 0; index < names.length; index++) {
            if (!names[index].equals(otherNames[index])
                    || !inputs[index].isLike(dtypes[index], shapes[index])) {
                return false;
            }
        }
        return true;
    }

    private boolean matches(PredictOptions options) {
        return Objects.equals(version, options.version())
                && Objects.equals(label, options.label())
                && Objects.equals(outputs, options.outputs());
    }

    private static Layout layout(String[] names, Tensor[] inputs, boolean rows) {
        List<TensorHeader> tensors = new ArrayList<>(names.length);
        for (int index = 0; index < names.length; index++) {
            long[] shape = inputs[index].shape();
            long[] inHeader = new long[rows ? shape.length - 1 : shape.length];
            System.arraycopy(shape, shape.length - inHeader.length, inHeader, 0, inHeader.length);
            tensors.add(new TensorHeader(names[index], inputs[index].dtype(), inHeader));
        }
        return new Layout(tensors, rows);
    }

    /**
     * The first dimension that all inputs have; 1 if there are none, -1 if it differs or one has no
     * axis.
     */
    private static long sharedRows(Tensor[] inputs) {
        long shared = 1;
        for (int index = 0; index < inputs.length; index++) {
            long rows = inputs[index].rank() == 0 ? -1 : inputs[index].dimension(0);
            if (rows < 0 || index > 0 && rows != shared) {
                return -1;
            }
            shared = rows;
        }
        return shared;
    }
}
