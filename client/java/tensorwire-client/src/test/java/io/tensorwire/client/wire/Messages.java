package io.tensorwire.client.wire;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/** What a server writes, for tests of other packages. */
public final class Messages {
    private Messages() {}

    /** The header of replies with one output, a float32 for each row. */
    public static byte[] replyHeader(String model, long version, String output) {
        return Msgpack.write(
                packer -> {
                    packer.packMapHeader(3).packString("model").packString(model);
                    packer.packString("version")
                            .packLong(version)
                            .packString("outputs")
                            .packArrayHeader(1);
                    packer.packArrayHeader(3)
                            .packString(output)
                            .packString("float32")
                            .packArrayHeader(0);
                });
    }

    /** A reply of one row a request: 10 * (from + its index). */
    public static ByteBuffer floats(Prefix prefix, byte[] header, int from) {
        int[] rows = new int[prefix.count()];
        Arrays.fill(rows, 1);
        Layout layout = ReplyHeader.decode(header).outputs();
        return MessageWriter.write(
                        prefix,
                        header,
                        new byte[0],
                        layout,
                        rows,
                        new MessageWriter.Payloads() {
                            @Override
                            public int pieces() {
                                return prefix.count();
                            }

                            @Override
                            public ByteBuffer piece(int tensor, int piece) {
                                ByteBuffer value =
                                        ByteBuffer.allocate(Float.BYTES)
                                                .order(ByteOrder.LITTLE_ENDIAN);
                                return value.putFloat(0, 10f * (from + piece));
                            }
                        })
                .get(0);
    }

    /** The shared vectors of messages that a client cannot read: their frames. */
    public static Stream<List<ByteBuffer>> malformedReplies() {
        return VectorsTest.malformedForClients()
                .map(
                        vector ->
                                Stream.concat(
                                                Stream.of(vector.head()),
                                                vector.tensorFrames().stream())
                                        .toList());
    }

    /** The body of an ERROR. */
    public static byte[] errorBody(String text) {
        return Json.errorBody(text);
    }
}
