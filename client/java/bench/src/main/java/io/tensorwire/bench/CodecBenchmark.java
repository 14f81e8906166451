package io.tensorwire.bench;

import io.tensorwire.client.DType;
import io.tensorwire.client.Tensor;
import io.tensorwire.client.wire.Kind;
import io.tensorwire.client.wire.Layout;
import io.tensorwire.client.wire.MessageReader;
import io.tensorwire.client.wire.MessageWriter;
import io.tensorwire.client.wire.Prefix;
import io.tensorwire.client.wire.ReplyHeaders;
import io.tensorwire.client.wire.RequestHeader;
import io.tensorwire.client.wire.TensorHeader;

import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.Warmup;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** What a message of 64-byte requests costs to write, and its answer to read. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(1)
public class CodecBenchmark {
    private static final int WIDTH = 16;

    /** The header {model: "m", version: 1, outputs: [["y", "float32", [16]]]}. */
    private static final byte[] REPLY_HEADER =
            HexFormat.of()
                    .parseHex(
                            "83a56d6f64656ca16da776657273696f6e01a76f7574707574739193a179a7666c6f617433329110");

    /** Requests in the message. */
    @Param({"1", "64"})
    public int requests;

    private final Layout layout =
            new Layout(List.of(new TensorHeader("x", DType.FLOAT32, WIDTH)), true);
    private final byte[] header = new RequestHeader("m", null, null, null, layout).encode();
    private final ReplyHeaders headers = new ReplyHeaders();
    private ByteBuffer row;
    private int[] rows;
    private ByteBuffer reply;

    /** Makes the answer. */
    @Setup
    public void prepare() {
        row = ByteBuffer.allocate(WIDTH * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        rows = new int[requests];
        Arrays.fill(rows, 1);
        reply = write(Kind.REPLY, REPLY_HEADER);
    }

    private ByteBuffer write(Kind kind, byte[] raw) {
        Prefix prefix =
                new Prefix(
                        kind.number(),
                        0,
                        0,
                        1 << 16,
                        1_000_000,
                        requests,
                        raw.length,
                        0,
                        Layout.INLINE_LIMIT,
                        0,
                        0);
        return MessageWriter.write(
                        prefix,
                        raw,
                        new byte[0],
                        layout,
                        rows,
                        new MessageWriter.Payloads() {
                            @Override
                            public int pieces() {
                                return requests;
                            }

                            @Override
                            public ByteBuffer piece(int tensor, int piece) {
                                return row;
                            }
                        })
                .get(0);
    }

    /**
     * A request message.
     *
     * @return its head frame
     */
    @Benchmark
    public ByteBuffer writeRequests() {
        return write(Kind.REQUEST, header);
    }

    /**
     * A reply message: prefix, known header, and the tensor of each request.
     *
     * @return the last one
     */
    @Benchmark
    public Tensor readReplies() {
        Prefix prefix = Prefix.read(reply);
        MessageReader reader =
                new MessageReader(prefix, reply, List.of(), headers.get(reply, prefix).outputs());
        Tensor last = null;
        for (int request = 0; request < prefix.count(); request++) {
            last = reader.slice(request, reader.rows(request))[0];
        }
        return last;
    }
}
