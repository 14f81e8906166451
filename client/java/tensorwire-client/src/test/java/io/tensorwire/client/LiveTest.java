package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** Against a real server. */
class LiveTest {
    @TempDir static Path folder;

    private static ServerProcess server;
    private TensorwireClient client;

    @BeforeAll
    static void startServer() throws Exception {
        server = ServerProcess.start(folder);
    }

    @AfterAll
    static void stopServer() {
        if (server != null) {
            server.close();
        }
    }

    @BeforeEach
    void connect() {
        client = TensorwireClient.builder(server.address).timeout(Duration.ofSeconds(20)).connect();
    }

    @AfterEach
    void close() {
        client.close();
        Threads.assertNone();
    }

    private static long usedHeap() {
        System.gc();
        return Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory();
    }

    private static Tensor row(float... values) {
        return Tensor.of(values, 1, values.length);
    }

    @Test
    void everyDtypeComesBackAsItWent() {
        Map<String, Tensor> inputs = new HashMap<>();
        for (DType dtype : DType.values()) {
            inputs.put(dtype.wireName(), sample(dtype));
        }
        Map<String, Tensor> outputs = client.predict("every", inputs);
        assertEquals(DType.values().length, outputs.size());
        inputs.forEach((name, tensor) -> assertEquals(tensor, outputs.get("got_" + name), name));
    }

    private static Tensor sample(DType dtype) {
        return switch (dtype) {
            case STRING ->
                    Tensor.of(new String[] {"", "h\u00e9llo", "\u6f22\ud83d\ude00", "d"}, 2, 2);
            case BYTES -> Tensor.ofElements(dtype, new byte[][] {{}, {0, -1}, {1}, {2, 3}}, 2, 2);
            case BOOL -> Tensor.of(new boolean[] {true, false, false, true}, 2, 2);
            default -> {
                ByteBuffer bits = ByteBuffer.allocateDirect(4 * dtype.itemSize());
                for (int index = 0; index < bits.capacity(); index++) {
                    bits.put(index, (byte) (0x30 + index));
                }
                yield Tensor.wrap(dtype, bits, 2, 2);
            }
        };
    }

    @Test
    void aModelIsCalledInEveryWay() throws Exception {
        Map<String, Tensor> inputs = Map.of("x", row(1, 2, 3, 4));
        assertArrayEquals(
                new float[] {1, 2, 3, 4}, client.predict("identity", inputs).get("y").floats());
        PredictOptions options =
                PredictOptions.DEFAULT
                        .withVersion(1)
                        .withOutputs("y")
                        .withRoutingKey("user")
                        .withMetadata(Map.of("tenant", "t", "n", 3))
                        .withTrace(
                                Map.of(
                                        "traceparent",
                                        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
                        .withHighPriority();
        assertEquals(inputs.get("x"), client.predict("identity", inputs, options).get("y"));
        CompletableFuture<Map<String, Tensor>> future = client.predictAsync("identity", inputs);
        assertEquals(inputs.get("x"), future.get(20, TimeUnit.SECONDS).get("y").copy());
    }

    @Test
    void callbacksRunOutsideOfTheIoThread() throws Exception {
        String name =
                client.predictAsync("identity", Map.of("x", row(1, 2, 3, 4)))
                        .thenApply(outputs -> Thread.currentThread().getName())
                        .get(20, TimeUnit.SECONDS);
        assertFalse(name.equals("tensorwire-client"), name);
    }

    @Test
    void largeTensorsTravelInFramesOfTheirOwn() {
        float[] values = new float[2 * 3 * 224 * 224];
        for (int index = 0; index < values.length; index++) {
            values[index] = index % 97;
        }
        Tensor logits =
                client.predict("image", Map.of("data", Tensor.of(values, 2, 3, 224, 224)))
                        .get("logits");
        assertArrayEquals(new long[] {2, 10}, logits.shape());
        float[] wide = new float[4 * 100_000];
        wide[wide.length - 1] = 7;
        Tensor big = Tensor.of(wide, 100_000, 4);
        Tensor back = client.predict("identity", Map.of("x", big)).get("y");
        assertEquals(big, back);
        assertFalse(back.data().isDirect());
    }

    @Test
    void modelsWithoutABatchAxisAreCalled() {
        Tensor x = Tensor.of(new float[] {1, 2, 3, 4, 5, 6}, 2, 3);
        Tensor y = client.predict("transpose", Map.of("x", x)).get("y");
        assertEquals(Tensor.of(new float[] {1, 4, 2, 5, 3, 6}, 3, 2), y);
    }

    @Test
    void requestsOfSeveralAndOfNoRows() {
        Tensor three = Tensor.of(new float[12], 3, 4);
        assertArrayEquals(
                new long[] {3, 4}, client.predict("scale", Map.of("x", three)).get("y").shape());
        Tensor none = Tensor.of(new float[0], 0, 4);
        assertArrayEquals(
                new long[] {0, 4}, client.predict("scale", Map.of("x", none)).get("y").shape());
    }

    @Test
    void errorsComeWithCodeAndWords() {
        RpcException missing =
                assertThrows(
                        RpcException.class, () -> client.predict("nobody", Map.of("x", row(1))));
        assertEquals(StatusCode.NOT_FOUND, missing.status());
        assertTrue(missing.description().contains("nobody"), missing.getMessage());
        RpcException wrong =
                assertThrows(
                        RpcException.class,
                        () -> client.predict("identity", Map.of("x", row(1, 2, 3, 4, 5))));
        assertEquals(StatusCode.INVALID_ARGUMENT, wrong.status());
        assertTrue(wrong.getMessage().contains("expected"), wrong.getMessage());
        CompletableFuture<Map<String, Tensor>> future =
                client.predictAsync("nobody", Map.of("x", row(1)));
        ExecutionException failed =
                assertThrows(ExecutionException.class, () -> future.get(20, TimeUnit.SECONDS));
        assertEquals(
                StatusCode.NOT_FOUND,
                assertInstanceOf(RpcException.class, failed.getCause()).status());
    }

    @Test
    void introspection() {
        Health health = client.health();
        assertTrue(health.ready());
        assertTrue(
                health.models().containsAll(List.of("every", "identity", "scale")),
                health.toString());
        ModelMetadata metadata = client.metadata("identity");
        assertEquals("[x: float32[?, 4]]", metadata.inputs().toString());
        assertTrue(metadata.batched());
        assertEquals(1, client.metadata("identity", 1).version());
        List<VersionStatus> status = client.status("identity");
        assertEquals(List.of("AVAILABLE"), status.stream().map(VersionStatus::state).toList());
        assertTrue(client.status().size() > 3);
        assertThrows(RpcException.class, () -> client.metadata("identity", "no such label"));
        RpcException unknown =
                assertThrows(RpcException.class, () -> client.control("no.such", Map.of()));
        assertEquals(StatusCode.UNIMPLEMENTED, unknown.status());
        assertTrue(((Map<?, ?>) client.control("stats", Map.of())).containsKey("versions"));
    }

    @Test
    void aTimeoutEndsTheCallWhateverTheModelDoes() {
        PredictOptions options = PredictOptions.DEFAULT.withTimeout(Duration.ofMillis(100));
        RpcException late =
                assertThrows(
                        RpcException.class,
                        () ->
                                client.predict(
                                        "nap",
                                        Map.of("seconds", Tensor.of(new double[] {0.5})),
                                        options));
        assertEquals(StatusCode.DEADLINE_EXCEEDED, late.status());
    }

    @Test
    void cancellingTakesACallOutOfTheQueue() throws Exception {
        List<CompletableFuture<Map<String, Tensor>>> naps = new ArrayList<>();
        for (int number = 0; number < 4; number++) {
            naps.add(client.predictAsync("nap", Map.of("seconds", Tensor.of(new double[] {0.2}))));
        }
        client.health(); // the requests have been sent
        assertTrue(naps.get(3).cancel(true));
        assertThrows(CancellationException.class, () -> naps.get(3).get(20, TimeUnit.SECONDS));
        CompletableFuture.allOf(naps.get(0), naps.get(1), naps.get(2)).get(20, TimeUnit.SECONDS);
        client.health(); // behind the CANCEL on the same connection
        assertEquals(1, cancelled());
    }

    private long cancelled() {
        Map<?, ?> stats = (Map<?, ?>) client.control("stats", Map.of());
        return ((List<?>) stats.get("versions"))
                .stream()
                        .map(each -> (Map<?, ?>) each)
                        .filter(each -> each.get("model").equals("nap"))
                        .mapToLong(each -> (Long) each.get("cancelled"))
                        .sum();
    }

    @Test
    void anInterruptedCallerGivesItsCallUp() throws Exception {
        CompletableFuture<RpcException> thrown = new CompletableFuture<>();
        CompletableFuture<Boolean> interrupted = new CompletableFuture<>();
        Thread caller =
                new Thread(
                        () -> {
                            thrown.complete(
                                    assertThrows(
                                            RpcException.class,
                                            () ->
                                                    client.predict(
                                                            "nap",
                                                            Map.of(
                                                                    "seconds",
                                                                    Tensor.of(
                                                                            new double[] {0.3})))));
                            interrupted.complete(Thread.currentThread().isInterrupted());
                        });
        caller.start();
        caller.interrupt();
        assertEquals(StatusCode.CANCELLED, thrown.get(20, TimeUnit.SECONDS).status());
        assertTrue(interrupted.get(20, TimeUnit.SECONDS));
        caller.join();
        assertTrue(client.health().ready());
    }

    @Test
    void aNewVersionTakesOverWithoutAFailedCall() throws Exception {
        try (Load load = new Load(client, "scale", 8)) {
            load.awaitAnswers(200);
            server.publish(".scale-3/2", "scale", 2);
            load.awaitFactor(3);
            load.awaitAnswers(200);
            load.stop();
            assertEquals(List.of(), load.failures());
        }
    }

    @Test
    void sixtyFourThreadsOfTenThousandCallsEach() throws Exception {
        Callers first = new Callers(64, 100);
        first.run(client, "identity");
        long before = usedHeap();
        Callers callers = new Callers(64, 10_000);
        callers.run(client, "identity");
        assertEquals(List.of(), callers.failures());
        assertEquals(640_000, callers.answers());
        client.health(); // behind all answers; it orders what the I/O thread did before what
        // follows
        assertEquals(0, client.engine().channel().pending().size());
        long grown = usedHeap() - before;
        assertTrue(grown < 16 << 20, "the heap grew by " + grown + " bytes");
    }
}
