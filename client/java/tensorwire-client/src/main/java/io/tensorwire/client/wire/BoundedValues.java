package io.tensorwire.client.wire;

import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/**
 * Any msgpack value, of bounded depth. What a length claims costs no memory before the bytes are
 * there: {@link MessageUnpacker#unpackValue} would allocate two gigabytes for five bytes.
 */
final class BoundedValues {
    static final int MAX_DEPTH = 64;

    private final MessageUnpacker unpacker;

    /** Bytes of the whole message. */
    private final long size;

    BoundedValues(MessageUnpacker unpacker, long size) {
        this.unpacker = unpacker;
        this.size = size;
    }

    /**
     * The next value.
     *
     * @throws ProtocolException it claims more than there is, is too deep, or no plain value
     */
    Value read() throws IOException {
        return read(MAX_DEPTH);
    }

    private Value read(int depth) throws IOException {
        return switch (unpacker.getNextFormat().getValueType()) {
            case ARRAY -> ValueFactory.newArray(values(unpacker.unpackArrayHeader(), depth), true);
            case MAP -> ValueFactory.newMap(values(2L * unpacker.unpackMapHeader(), depth), true);
            case STRING -> ValueFactory.newString(bytes(unpacker.unpackRawStringHeader()), true);
            case BINARY -> ValueFactory.newBinary(bytes(unpacker.unpackBinaryHeader()), true);
            case EXTENSION ->
                    throw new ProtocolException(
                            "an extension type of msgpack; expected plain values");
            default -> unpacker.unpackValue();
        };
    }

    private Value[] values(long count, int depth) throws IOException {
        if (depth == 0) {
            throw new ProtocolException("values are nested deeper than " + MAX_DEPTH);
        }
        check(count);
        // Not allocated ahead: nested ones could claim the same bytes again and again.
        List<Value> values = new ArrayList<>();
        for (long index = 0; index < count; index++) {
            values.add(read(depth - 1));
        }
        return values.toArray(Value[]::new);
    }

    private byte[] bytes(int length) throws IOException {
        check(length);
        return unpacker.readPayload(length);
    }

    /** Every element has one byte at least. */
    private void check(long claimed) {
        long left = size - unpacker.getTotalReadBytes();
        if (claimed > left) {
            throw new ProtocolException(
                    "a value claims "
                            + claimed
                            + " elements or bytes, "
                            + left
                            + " bytes are left");
        }
    }
}
