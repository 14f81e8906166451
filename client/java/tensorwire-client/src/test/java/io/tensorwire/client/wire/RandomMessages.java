package io.tensorwire.client.wire;

import io.tensorwire.client.DType;
import io.tensorwire.client.Tensor;
import io.tensorwire.client.Tensors;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/**
 * A request of any dtypes, shapes, rows and inline limit.
 *
 * @param prefix of the message
 * @param layout of its tensors
 * @param rows per request; null where there are none
 * @param tensors of the whole message
 * @param frames as they travel
 */
record RandomMessages(
        Prefix prefix, Layout layout, int[] rows, List<Tensor> tensors, List<ByteBuffer> frames) {
    static RandomMessages of(Random random) {
        int tensors = random.nextInt(5);
        int count = 1 + random.nextInt(5);
        boolean shared = tensors == 0 || count > 1 || random.nextBoolean();
        int[] perRequest = random.ints(count, 0, 4).toArray();
        long total = Arrays.stream(perRequest).sum();
        List<TensorHeader> headers = new ArrayList<>();
        List<Tensor> values = new ArrayList<>();
        for (int index = 0; index < tensors; index++) {
            DType dtype = DType.values()[random.nextInt(DType.values().length)];
            TensorHeader header =
                    new TensorHeader(
                            "t" + index, dtype, random.longs(random.nextInt(3), 0, 4).toArray());
            headers.add(header);
            values.add(value(dtype, header.shape(shared ? total : -1), random));
        }
        return written(
                new Layout(headers, shared), shared ? perRequest : null, values, count, random);
    }

    private static RandomMessages written(
            Layout layout, int[] rows, List<Tensor> values, int count, Random random) {
        byte[] header =
                new RequestHeader("m\u00e9", null, "label", List.of("b", "a"), layout).encode();
        long id = random.nextLong() >>> 1;
        Prefix prefix =
                new Prefix(
                        1,
                        0,
                        0,
                        id,
                        random.nextLong(),
                        count,
                        header.length,
                        0,
                        random.nextInt(100),
                        0,
                        0);
        List<ByteBuffer> frames =
                MessageWriter.write(prefix, header, new byte[0], layout, rows, whole(values));
        return new RandomMessages(prefix, layout, rows, values, frames);
    }

    private static Tensor value(DType dtype, long[] shape, Random random) {
        int elements = 1;
        for (long dimension : shape) {
            elements *= (int) dimension;
        }
        if (dtype.isVariable()) {
            byte[][] texts = new byte[elements][];
            Arrays.setAll(
                    texts,
                    index -> "\u00e9x".repeat(random.nextInt(4)).getBytes(StandardCharsets.UTF_8));
            return Tensor.ofElements(dtype, texts, shape);
        }
        byte[] bytes = new byte[elements * dtype.itemSize()];
        random.nextBytes(bytes);
        for (int index = 0; dtype == DType.BOOL && index < bytes.length; index++) {
            bytes[index] &= 1;
        }
        return Tensor.wrap(dtype, ByteBuffer.wrap(bytes), shape);
    }

    /** Tensors that are in one piece each. */
    static MessageWriter.Payloads whole(List<Tensor> tensors) {
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
}
