package io.tensorwire.client.wire;

import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.CodingErrorAction;

/**
 * msgpack as the protocol wants it: text that is not UTF-8, and bytes behind the value, are errors.
 */
final class Msgpack {
    private static final MessagePack.UnpackerConfig STRICT =
            new MessagePack.UnpackerConfig()
                    .withActionOnMalformedString(CodingErrorAction.REPORT)
                    .withActionOnUnmappableString(CodingErrorAction.REPORT);

    private Msgpack() {}

    /** Reads one value. */
    @FunctionalInterface
    interface Reader<T> {
        T read(MessageUnpacker unpacker) throws IOException;
    }

    /** Writes one value. */
    @FunctionalInterface
    interface Writer {
        void write(MessageBufferPacker packer) throws IOException;
    }

    /**
     * The one value that the bytes are; {@code what} it is, is for the message of the exception.
     */
    static <T> T read(byte[] raw, String what, Reader<T> reader) {
        try (MessageUnpacker unpacker = STRICT.newUnpacker(raw)) {
            T value = reader.read(unpacker);
            if (unpacker.getTotalReadBytes() != raw.length) {
                throw new ProtocolException(
                        what
                                + " is not valid: it has "
                                + (raw.length - unpacker.getTotalReadBytes())
                                + " bytes behind its end");
            }
            return value;
        } catch (IOException | MessagePackException error) {
            throw new ProtocolException(what + " is not valid: " + error.getMessage(), error);
        }
    }

    /** The bytes of a value. */
    static byte[] write(Writer writer) {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            writer.write(packer);
            return packer.toByteArray();
        } catch (IOException error) {
            // A packer into memory does no I/O.
            throw new UncheckedIOException(error);
        }
    }
}
