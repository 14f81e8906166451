package io.tensorwire.client.wire;

import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** The validated tensors of a header: what is needed to find them in a message. */
public final class Layout {
    /** Tensors of more bytes than this travel as frames of their own. */
    public static final long INLINE_LIMIT = 65_536;

    /** A place that stands for a frame of its own. */
    static final int FRAMED = -1;

    private final List<TensorHeader> tensors;
    private final boolean rows;
    private final boolean fixed;
    private final long rowExtent;

    /**
     * A layout.
     *
     * @param tensors in the header's order
     * @param rows whether their shapes lack the first axis
     * @throws ProtocolException there are too many, or names repeat
     */
    public Layout(List<TensorHeader> tensors, boolean rows) {
        this.tensors = List.copyOf(tensors);
        this.rows = rows;
        if (tensors.size() > Prefix.MAX_TENSORS) {
            throw new ProtocolException(
                    tensors.size()
                            + " tensors in one message; at most "
                            + Prefix.MAX_TENSORS
                            + " are allowed");
        }
        Set<String> names = new HashSet<>();
        for (TensorHeader tensor : tensors) {
            if (!names.add(tensor.name())) {
                throw new ProtocolException("tensor name '" + tensor.name() + "' repeats");
            }
        }
        this.fixed =
                !tensors.isEmpty() && tensors.stream().noneMatch(each -> each.dtype().isVariable());
        this.rowExtent = tensors.stream().mapToLong(TensorHeader::extent).max().orElse(0);
    }

    /**
     * The tensors.
     *
     * @return in the header's order; unmodifiable
     */
    public List<TensorHeader> tensors() {
        return tensors;
    }

    /**
     * Whether the tensors share a first axis, which their shapes in the header lack.
     *
     * @return what the header says
     */
    public boolean rows() {
        return rows;
    }

    /**
     * Whether small requests of this layout may share a message: it has rows, and elements of fixed
     * size.
     *
     * @return whether they may
     */
    public boolean isGroupable() {
        return rows && fixed;
    }

    /** The bytes of a tensor of so many rows; 0 where they are not fixed. */
    long nbytes(int tensor, long totalRows) {
        TensorHeader header = tensors.get(tensor);
        return header.elements() * totalRows * header.dtype().itemSize();
    }

    /**
     * The bytes of all tensors of so many rows, those of variable length left out.
     *
     * @param totalRows 1 where there are no rows
     * @return their sum
     */
    public long nbytes(long totalRows) {
        long sum = 0;
        for (int tensor = 0; tensor < tensors.size(); tensor++) {
            sum += nbytes(tensor, totalRows);
        }
        return sum;
    }

    /** Whether a tensor has a frame of its own. */
    boolean isFramed(int tensor, long totalRows, long inlineLimit) {
        return tensors.get(tensor).dtype().isVariable() || nbytes(tensor, totalRows) > inlineLimit;
    }

    /**
     * Where the tensors lie in a head frame.
     *
     * @param totalRows of the whole message; 1 where there are no rows
     * @param start where the row counts end
     * @param inlineLimit tensors of more bytes have frames of their own
     * @return per tensor its offset or {@link #FRAMED}; last, the length of the head frame
     */
    long[] places(long totalRows, long start, long inlineLimit) {
        if (rowExtent > 0 && totalRows > TensorHeader.MAX_TENSOR_BYTES / rowExtent) {
            throw new ProtocolException(
                    "a tensor's shape is larger than any message (" + totalRows + " rows)");
        }
        long[] places = new long[tensors.size() + 1];
        long end = start;
        for (int tensor = 0; tensor < tensors.size(); tensor++) {
            if (isFramed(tensor, totalRows, inlineLimit)) {
                places[tensor] = FRAMED;
            } else {
                places[tensor] = Prefix.aligned(end);
                end = places[tensor] + nbytes(tensor, totalRows);
            }
        }
        places[tensors.size()] = end;
        return places;
    }
}
