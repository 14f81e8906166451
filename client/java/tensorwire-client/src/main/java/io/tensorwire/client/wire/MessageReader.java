package io.tensorwire.client.wire;

import io.tensorwire.client.DType;
import io.tensorwire.client.Tensor;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/** Reads the tensors of a message, without a copy where they have elements of fixed size. */
public final class MessageReader {
    private final Prefix prefix;
    private final ByteBuffer head;
    private final Layout layout;
    private final Tensor[] tensors;

    /**
     * Reads a message with tensors.
     *
     * @param prefix its validated prefix
     * @param head its head frame, from 0 to its limit
     * @param frames its tensor frames, likewise; little-endian all
     * @param layout of its header
     * @throws ProtocolException lengths or frames do not add up
     */
    public MessageReader(Prefix prefix, ByteBuffer head, List<ByteBuffer> frames, Layout layout) {
        this.prefix = prefix;
        this.head = head;
        this.layout = layout;
        int start = prefix.bodyEnd() + rowBytes();
        checkRows(start);
        this.tensors = read(frames, start, totalRows());
    }

    /**
     * The tensors of the whole message.
     *
     * @return in the header's order
     */
    public List<Tensor> tensors() {
        return List.of(tensors);
    }

    /**
     * The rows of one request.
     *
     * @param request its index
     * @return its row count; 1 where the layout has no rows
     */
    public long rows(int request) {
        return layout.rows()
                ? Integer.toUnsignedLong(head.getInt(prefix.bodyEnd() + 4 * request))
                : 1;
    }

    /**
     * The tensors of a part of the rows.
     *
     * @param from the first row
     * @param rows how many
     * @return in the header's order; the message's own where it has no rows, or no others
     */
    public Tensor[] slice(long from, long rows) {
        if (!layout.rows() || prefix.count() == 1) {
            return tensors;
        }
        Tensor[] parts = new Tensor[tensors.length];
        for (int tensor = 0; tensor < parts.length; tensor++) {
            parts[tensor] = tensors[tensor].rows(from, rows);
        }
        return parts;
    }

    private int rowBytes() {
        return layout.rows() ? 4 * prefix.count() : 0;
    }

    private void checkRows(int start) {
        if (!layout.rows() && prefix.count() != 1) {
            throw new ProtocolException(
                    prefix.count() + " requests in one message, but their tensors share no rows");
        }
        if (start > head.limit()) {
            throw new ProtocolException(
                    "head frame of "
                            + head.limit()
                            + " bytes has no room for "
                            + prefix.count()
                            + " row counts");
        }
    }

    private long totalRows() {
        long total = 0;
        for (int request = 0; request < prefix.count(); request++) {
            total += rows(request);
        }
        return total;
    }

    private Tensor[] read(List<ByteBuffer> frames, int start, long totalRows) {
        long[] places = layout.places(totalRows, start, prefix.inlineLimit());
        checkLengths(places, frames.size());
        Tensor[] read = new Tensor[layout.tensors().size()];
        int framed = 0;
        for (int tensor = 0; tensor < read.length; tensor++) {
            TensorHeader header = layout.tensors().get(tensor);
            long[] shape = header.shape(layout.rows() ? totalRows : -1);
            if (places[tensor] == Layout.FRAMED) {
                read[tensor] =
                        framedTensor(
                                tensor, shape, header.elements() * totalRows, frames.get(framed++));
            } else {
                int nbytes = (int) layout.nbytes(tensor, totalRows);
                ByteBuffer bytes =
                        head.slice((int) places[tensor], nbytes).order(ByteOrder.LITTLE_ENDIAN);
                read[tensor] = Tensor.wrap(header.dtype(), bytes, shape);
            }
        }
        return read;
    }

    private void checkLengths(long[] places, int frames) {
        int wanted = 0;
        for (int tensor = 0; tensor < places.length - 1; tensor++) {
            wanted += places[tensor] == Layout.FRAMED ? 1 : 0;
        }
        if (frames != wanted) {
            throw new ProtocolException(
                    frames + " tensor frames arrived, the header describes " + wanted);
        }
        if (places[places.length - 1] != head.limit()) {
            throw new ProtocolException(
                    "head frame has "
                            + head.limit()
                            + " bytes, its contents add up to "
                            + places[places.length - 1]);
        }
    }

    private Tensor framedTensor(int tensor, long[] shape, long elements, ByteBuffer frame) {
        TensorHeader header = layout.tensors().get(tensor);
        if (header.dtype().isVariable()) {
            return Tensor.ofElements(
                    header.dtype(),
                    Varlen.decode(frame, elements, header.dtype() == DType.STRING),
                    shape);
        }
        long nbytes = elements * header.dtype().itemSize();
        if (frame.limit() != nbytes) {
            throw new ProtocolException(
                    "tensor '"
                            + header.name()
                            + "' has "
                            + frame.limit()
                            + " bytes, its shape and dtype need "
                            + nbytes);
        }
        return Tensor.wrap(header.dtype(), frame, shape);
    }
}
