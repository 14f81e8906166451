package io.tensorwire.client.wire;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.tensorwire.client.DType;
import io.tensorwire.client.RpcException;
import io.tensorwire.client.Tensor;
import io.tensorwire.client.Tensors;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;

/** What is written is read again as it was, and no bytes do worse than being refused. */
class CodecPropertiesTest {
    /** Any messages of any dtypes, shapes, rows and limits. */
    @Property(tries = 500)
    void requestsAreReadAsTheyWereWritten(
            @ForAll Random random, @ForAll @IntRange(max = 4) int tensors, @ForAll @IntRange(min = 1, max = 5) int count) {
        boolean rows = tensors > 0 && random.nextBoolean() || count > 1 || tensors == 0;
        int[] perRequest = random.ints(count, 0, 4).toArray();
        long total = rows ? random(perRequest) : 1;
        List<TensorHeader> headers = new ArrayList<>();
        List<Tensor> values = new ArrayList<>();
        for (int index = 0; index < tensors; index++) {
            TensorHeader header = header("t" + index, random);
            headers.add(header);
            values.add(value(header, header.shape(rows ? total : -1), random));
        }
        Layout layout = new Layout(headers, rows);
        byte[] header = new RequestHeader("m\u00e9", null, "label", List.of("b", "a"), layout).encode();
        Prefix prefix = new Prefix(1, 0, 0, random.nextLong() >>> 1, random.nextLong(), count, header.length, 0,
                random.nextInt(100), 0, 0);
        List<ByteBuffer> frames = MessageWriter.write(
                prefix, header, new byte[0], layout, rows ? perRequest : null, payloads(values));
        ServerSide.Request read = ServerSide.read(frames.get(0), frames.subList(1, frames.size()));
        assertEquals(prefix, read.prefix());
        assertEquals("label", read.header().label());
        assertEquals(values, read.body().tensors());
        for (int request = 0; rows && request < count; request++) {
            assertEquals(perRequest[request], read.body().rows(request));
        }
    }

    private static long random(int[] rows) {
        long sum = 0;
        for (int each : rows) {
            sum += each;
        }
        return sum;
    }

    private static TensorHeader header(String name, Random random) {
        DType dtype = DType.values()[random.nextInt(DType.values().length)];
        return new TensorHeader(name, dtype, random.longs(random.nextInt(3), 0, 4).toArray());
    }

    private static Tensor value(TensorHeader header, long[] shape, Random random) {
        int elements = 1;
        for (long dimension : shape) {
            elements *= (int) dimension;
        }
        if (header.dtype().isVariable()) {
            byte[][] texts = new byte[elements][];
            for (int index = 0; index < elements; index++) {
                texts[index] = "x".repeat(random.nextInt(5)).getBytes(StandardCharsets.UTF_8);
            }
            return Tensor.ofElements(header.dtype(), texts, shape);
        }
        byte[] bytes = new byte[elements * header.dtype().itemSize()];
        random.nextBytes(bytes);
        return Tensor.wrap(header.dtype(), ByteBuffer.wrap(bytes), shape);
    }

    private static MessageWriter.Payloads payloads(List<Tensor> tensors) {
        return new MessageWriter.Payloads() {
            @Override
            public int pieces() {
                return 1;
            }

            @Override
            public ByteBuffer piece(int tensor, int piece) {
                return Tensors.payload(tensors.get(tensor));
            }
        };
    }

    @Property(tries = 2000)
    void anyBytesAreReadOrRefused(@ForAll @Size(max = 200) byte[] bytes, @ForAll @Size(max = 2) List<byte[]> more) {
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
            assertEquals(version, headers.get(head, prefix).version(), HexFormat.of().formatHex(header));
            assertEquals(version, headers.get(head, prefix).version());
            assertTrue(headers.size() <= 8);
        }
    }
}
