package io.tensorwire.client.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/** Writes messages. What the client sends is written here alone. */
public final class MessageWriter {
    private MessageWriter() {}

    /** The tensors of a message, each in pieces that follow each other: one for each request. */
    public interface Payloads {
        /**
         * The pieces of every tensor.
         *
         * @return their number
         */
        int pieces();

        /**
         * The bytes of one piece.
         *
         * @param tensor its index in the layout
         * @param piece its index
         * @return little-endian, from 0 to its limit; is not changed
         */
        ByteBuffer piece(int tensor, int piece);
    }

    /**
     * A message with tensors.
     *
     * @param prefix of the message; its lengths are those of header and extra
     * @param header msgpack
     * @param extra msgpack or nothing
     * @param layout of the tensors
     * @param rows per request; null where the layout has none
     * @param payloads the tensors
     * @return the head frame, and the frames of the tensors that are not inline, each from 0 to its
     *     limit
     */
    public static List<ByteBuffer> write(
            Prefix prefix,
            byte[] header,
            byte[] extra,
            Layout layout,
            int[] rows,
            Payloads payloads) {
        long totalRows = rows == null ? 1 : sum(rows);
        int start = prefix.bodyEnd() + (rows == null ? 0 : 4 * rows.length);
        long[] places = layout.places(totalRows, start, prefix.inlineLimit());
        ByteBuffer head = allocate(places[places.length - 1]);
        prefix.write(head);
        head.put(Prefix.SIZE, header);
        head.put(Prefix.SIZE + header.length, extra);
        for (int request = 0; rows != null && request < rows.length; request++) {
            head.putInt(prefix.bodyEnd() + 4 * request, rows[request]);
        }
        List<ByteBuffer> frames = new ArrayList<>(1);
        frames.add(head);
        for (int tensor = 0; tensor < layout.tensors().size(); tensor++) {
            if (places[tensor] == Layout.FRAMED) {
                frames.add(frame(payloads, tensor));
            } else {
                copy(payloads, tensor, head, (int) places[tensor]);
            }
        }
        return frames;
    }

    /**
     * A message that is a head frame alone.
     *
     * @param prefix of the message
     * @param body what stands behind it
     * @return the frame
     */
    public static ByteBuffer write(Prefix prefix, byte[] body) {
        ByteBuffer head = allocate(Prefix.SIZE + (long) body.length);
        prefix.write(head);
        return head.put(Prefix.SIZE, body);
    }

    /** A frame of its own: the tensor itself where it is in one piece. */
    private static ByteBuffer frame(Payloads payloads, int tensor) {
        if (payloads.pieces() == 1) {
            return payloads.piece(tensor, 0);
        }
        long size = 0;
        for (int piece = 0; piece < payloads.pieces(); piece++) {
            size += payloads.piece(tensor, piece).limit();
        }
        ByteBuffer whole = allocate(size);
        copy(payloads, tensor, whole, 0);
        return whole;
    }

    private static void copy(Payloads payloads, int tensor, ByteBuffer target, int at) {
        int end = at;
        for (int piece = 0; piece < payloads.pieces(); piece++) {
            ByteBuffer bytes = payloads.piece(tensor, piece);
            target.put(end, bytes, 0, bytes.limit());
            end += bytes.limit();
        }
    }

    private static ByteBuffer allocate(long size) {
        if (size > Integer.MAX_VALUE) {
            throw new ProtocolException(
                    "a frame of " + size + " bytes; at most " + Integer.MAX_VALUE + " can be sent");
        }
        return ByteBuffer.allocate((int) size).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static long sum(int[] rows) {
        long sum = 0;
        for (int each : rows) {
            sum += Integer.toUnsignedLong(each);
        }
        return sum;
    }
}
