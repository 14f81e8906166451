package io.tensorwire.client.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.StandardCharsets;

/**
 * The payload of a tensor whose elements have any length: their lengths, then their bytes back to
 * back.
 */
public final class Varlen {
    private Varlen() {}

    /**
     * The payload of elements.
     *
     * @param elements in row-major order
     * @return little-endian, from 0 to its limit
     * @throws IllegalArgumentException they are more than a buffer can hold
     */
    public static ByteBuffer encode(byte[][] elements) {
        long size = 4L * elements.length;
        for (byte[] element : elements) {
            size += element.length;
        }
        if (size > Integer.MAX_VALUE) {
            throw new IllegalArgumentException(
                    "the elements have " + size + " bytes; a tensor can have " + Integer.MAX_VALUE);
        }
        ByteBuffer payload = ByteBuffer.allocate((int) size).order(ByteOrder.LITTLE_ENDIAN);
        for (byte[] element : elements) {
            payload.putInt(element.length);
        }
        for (byte[] element : elements) {
            payload.put(element);
        }
        return payload.flip();
    }

    /**
     * The elements of a payload.
     *
     * @param payload little-endian, from 0 to its limit
     * @param count of elements
     * @param text whether each must be valid UTF-8
     * @return the elements
     * @throws ProtocolException the lengths do not add up, or an element is not UTF-8
     */
    public static byte[][] decode(ByteBuffer payload, long count, boolean text) {
        if (payload.limit() < 4 * count) {
            throw new ProtocolException(
                    "tensor of "
                            + count
                            + " elements of any length has only "
                            + payload.limit()
                            + " bytes");
        }
        long end = 4 * count;
        for (int index = 0; index < count; index++) {
            end += Integer.toUnsignedLong(payload.getInt(4 * index));
        }
        if (end != payload.limit()) {
            throw new ProtocolException(
                    "lengths add up to " + end + " bytes, payload has " + payload.limit());
        }
        return cut(payload, (int) count, text);
    }

    private static byte[][] cut(ByteBuffer payload, int count, boolean text) {
        CharsetDecoder utf8 = text ? StandardCharsets.UTF_8.newDecoder() : null;
        byte[][] elements = new byte[count][];
        int at = 4 * count;
        for (int index = 0; index < count; index++) {
            byte[] element = new byte[payload.getInt(4 * index)];
            payload.get(at, element);
            at += element.length;
            if (utf8 != null) {
                checkText(utf8, element);
            }
            elements[index] = element;
        }
        return elements;
    }

    private static void checkText(CharsetDecoder utf8, byte[] element) {
        try {
            CharBuffer decoded = utf8.decode(ByteBuffer.wrap(element));
            assert decoded.position() == 0;
        } catch (CharacterCodingException error) {
            throw new ProtocolException(
                    "an element of a string tensor is not valid UTF-8: " + error.getMessage(),
                    error);
        }
    }
}
