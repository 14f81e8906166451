package io.tensorwire.client.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.tensorwire.client.RpcException;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;

import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;

/** What is written is read again as it was, and no bytes do worse than being refused. */
class CodecPropertiesTest {
    @Property(tries = 500)
    void requestsAreReadAsTheyWereWritten(@ForAll Random random) {
        RandomMessages written = RandomMessages.of(random);
        List<ByteBuffer> frames = written.frames();
        ServerSide.Request read = ServerSide.read(frames.get(0), frames.subList(1, frames.size()));
        assertEquals(written.prefix(), read.prefix());
        assertEquals("label", read.header().label());
        assertEquals(written.tensors(), read.body().tensors());
        for (int request = 0;
                written.rows() != null && request < written.rows().length;
                request++) {
            assertEquals(written.rows()[request], read.body().rows(request));
        }
    }

    @Property(tries = 2000)
    void anyBytesAreReadOrRefused(
            @ForAll @Size(max = 200) byte[] bytes, @ForAll @Size(max = 2) List<byte[]> more) {
        readAnything(Vector.buffer(bytes), more);
    }

    /** Valid replies with some bytes changed. */
    @Property(tries = 2000)
    void spoiledRepliesAreReadOrRefused(@ForAll Random random) {
        List<Vector> replies = Vector.of("replies").toList();
        Vector vector = replies.get(random.nextInt(replies.size()));
        byte[] head = vector.frames().get(0).clone();
        for (int change = random.nextInt(4); change >= 0; change--) {
            head[random.nextInt(head.length)] = (byte) random.nextInt();
        }
        readAnything(Vector.buffer(head), vector.frames().subList(1, vector.frames().size()));
    }

    private static void readAnything(ByteBuffer head, List<byte[]> more) {
        List<ByteBuffer> frames = more.stream().map(Vector::buffer).toList();
        try {
            Prefix prefix = Prefix.read(head);
            Layout layout = new ReplyHeaders().get(head, prefix).outputs();
            MessageReader reader = new MessageReader(prefix, head, frames, layout);
            assertEquals(layout.tensors().size(), reader.tensors().size());
        } catch (RpcException refused) {
            assertTrue(!refused.description().isEmpty());
        }
        assertTrue(Prefix.answerable(head).map(Prefix.Ids::count).orElse(1) >= 1);
    }

    @Property
    void elementsOfAnyLengthComeBack(@ForAll @Size(max = 20) List<byte[]> elements) {
        byte[][] written = elements.toArray(byte[][]::new);
        byte[][] read = Varlen.decode(Varlen.encode(written), written.length, false);
        assertArrayEquals(written, read);
    }

    @Property(tries = 20)
    void theCacheOfHeadersIsBounded(@ForAll @IntRange(min = 1, max = 40) int versions) {
        ReplyHeaders headers = new ReplyHeaders(8);
        for (int version = 0; version < versions; version++) {
            byte[] header = Messages.replyHeader("m", version, "y");
            Prefix prefix = new Prefix(2, 0, 0, 1, 0, 1, header.length, 0, 0, 0, 0);
            ByteBuffer head = MessageWriter.write(prefix, header);
            assertEquals(
                    version, headers.get(head, prefix).version(), HexFormat.of().formatHex(header));
            assertEquals(version, headers.get(head, prefix).version());
            assertTrue(headers.size() <= 8);
        }
    }
}
