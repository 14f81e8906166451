package io.tensorwire.client.wire;

import org.msgpack.core.MessageUnpacker;

import java.io.IOException;
import java.util.List;

/**
 * The header of a REPLY, decoded and validated once.
 *
 * @param model its name
 * @param version the one that answered
 * @param outputs the tensors
 */
public record ReplyHeader(String model, long version, Layout outputs) {
    /**
     * A header from its bytes.
     *
     * @param raw msgpack
     * @return the header
     * @throws ProtocolException they are not valid
     */
    public static ReplyHeader decode(byte[] raw) {
        return Msgpack.read(raw, "header", unpacker -> new Fields().read(unpacker));
    }

    /** What has been read so far. */
    private static final class Fields {
        private String model;
        private Long version;
        private List<TensorHeader> outputs;
        private boolean rows = true;

        ReplyHeader read(MessageUnpacker unpacker) throws IOException {
            HeaderReader.readMap(unpacker, this::readEntry);
            return new ReplyHeader(
                    required("model", model),
                    required("version", version),
                    new Layout(required("outputs", outputs), rows));
        }

        private boolean readEntry(String key, MessageUnpacker unpacker) throws IOException {
            switch (key) {
                case "model" -> model = unpacker.unpackString();
                case "version" -> version = unpacker.unpackLong();
                case "outputs" -> outputs = HeaderReader.readTensors(unpacker);
                case "rows" -> rows = unpacker.unpackBoolean();
                default -> {
                    return false;
                }
            }
            return true;
        }

        private static <T> T required(String key, T value) {
            if (value == null) {
                throw new ProtocolException("header is not valid: it has no key '" + key + "'");
            }
            return value;
        }
    }
}
