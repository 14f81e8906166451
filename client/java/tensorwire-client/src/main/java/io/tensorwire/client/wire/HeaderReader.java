package io.tensorwire.client.wire;

import io.tensorwire.client.DType;

import org.msgpack.core.MessageUnpacker;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/**
 * What request and reply headers have in common: a map whose unknown keys are skipped, and tensors.
 */
final class HeaderReader {
    /** What stands under one key; gives whether the key was known. */
    @FunctionalInterface
    interface Entry {
        boolean read(String key, MessageUnpacker unpacker) throws IOException;
    }

    private HeaderReader() {}

    static void readMap(MessageUnpacker unpacker, Entry entry) throws IOException {
        int entries = unpacker.unpackMapHeader();
        for (int index = 0; index < entries; index++) {
            if (!entry.read(unpacker.unpackString(), unpacker)) {
                unpacker.skipValue();
            }
        }
    }

    static List<TensorHeader> readTensors(MessageUnpacker unpacker) throws IOException {
        int count = unpacker.unpackArrayHeader();
        if (count > Prefix.MAX_TENSORS) {
            throw new ProtocolException(
                    count
                            + " tensors in one message; at most "
                            + Prefix.MAX_TENSORS
                            + " are allowed");
        }
        List<TensorHeader> tensors = new ArrayList<>(count);
        for (int index = 0; index < count; index++) {
            tensors.add(readTensor(unpacker));
        }
        return tensors;
    }

    private static TensorHeader readTensor(MessageUnpacker unpacker) throws IOException {
        int elements = unpacker.unpackArrayHeader();
        if (elements < 3) {
            throw new ProtocolException(
                    "a tensor of the header has "
                            + elements
                            + " elements, expected name, dtype, shape");
        }
        String name = unpacker.unpackString();
        DType dtype = readDtype(name, unpacker.unpackString());
        long[] shape = readShape(name, unpacker);
        if (elements > 3) {
            unpacker.skipValue(elements - 3);
        }
        return new TensorHeader(name, dtype, shape);
    }

    private static DType readDtype(String name, String dtype) {
        try {
            return DType.of(dtype);
        } catch (IllegalArgumentException error) {
            throw new ProtocolException("tensor '" + name + "': " + error.getMessage(), error);
        }
    }

    private static long[] readShape(String name, MessageUnpacker unpacker) throws IOException {
        int rank = unpacker.unpackArrayHeader();
        if (rank > Prefix.MAX_TENSORS) {
            throw new ProtocolException("tensor '" + name + "' has " + rank + " dimensions");
        }
        long[] shape = new long[rank];
        for (int axis = 0; axis < rank; axis++) {
            shape[axis] = unpacker.unpackLong();
        }
        return shape;
    }
}
