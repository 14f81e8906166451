package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.tensorwire.client.wire.Kind;
import io.tensorwire.client.wire.MessageWriter;
import io.tensorwire.client.wire.Prefix;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** Against a server that does what a real one does seldom, or never. */
class ClientTest {
    private static final Map<String, Tensor> ONE = Map.of("x", Tensor.of(new float[] {1}));

    private FakeServer server = new FakeServer();
    private TensorwireClient client =
            TensorwireClient.builder(server.address).timeout(Duration.ofSeconds(20)).connect();

    @AfterEach
    void close() {
        client.close();
        server.close();
        Threads.assertNone();
    }

    /** So many calls that are in the inbox before the connection stands, and so travel together. */
    private List<CompletableFuture<Map<String, Tensor>>> together(int count) {
        return together(Collections.nCopies(count, PredictOptions.DEFAULT));
    }

    private List<CompletableFuture<Map<String, Tensor>>> together(List<PredictOptions> options) {
        client.close();
        String address = server.address;
        server.close();
        // Calls with a timeout travel apart where making them takes long, as it does at first.
        client = TensorwireClient.builder(address).timeout(null).connect();
        List<CompletableFuture<Map<String, Tensor>>> futures = new ArrayList<>();
        Engines.pause(
                client,
                () -> {
                    for (PredictOptions each : options) {
                        futures.add(client.predictAsync("m", ONE, each));
                    }
                });
        server = new FakeServer(address);
        return futures;
    }

    private static float value(CompletableFuture<Map<String, Tensor>> future) throws Exception {
        return future.get(20, TimeUnit.SECONDS).get("y").floats()[0];
    }

    private static RpcException failure(CompletableFuture<?> future) {
        ExecutionException failed =
                assertThrows(ExecutionException.class, () -> future.get(20, TimeUnit.SECONDS));
        return assertInstanceOf(RpcException.class, failed.getCause());
    }

    @Test
    void callsThatWaitTogetherTravelTogetherAndTheAnswerMayComeInParts() throws Exception {
        List<CompletableFuture<Map<String, Tensor>>> futures = together(5);
        FakeServer.Received request = server.receive();
        assertEquals(5, request.prefix().count());
        server.reply(request, 3, 2);
        server.fail(request, 2, 1, 14);
        server.reply(request, 0, 2);
        assertEquals(30f, value(futures.get(3)));
        assertEquals(40f, value(futures.get(4)));
        assertEquals(0f, value(futures.get(0)));
        assertEquals(10f, value(futures.get(1)));
        assertEquals(StatusCode.UNAVAILABLE, failure(futures.get(2)).status());
    }

    @Test
    void whatWaitedForAConnectionIsSentWithWhatRemainsOfItsTimeout() throws Exception {
        client.close();
        String address = server.address;
        server.close();
        client = TensorwireClient.builder(address).timeout(Duration.ofSeconds(20)).connect();
        CompletableFuture<Map<String, Tensor>> future = client.predictAsync("m", ONE);
        // Another call's timeout is what makes time pass: the first is held, and 100 ms older then.
        PredictOptions soon = PredictOptions.DEFAULT.withTimeout(Duration.ofMillis(100));
        assertThrows(RpcException.class, () -> client.predict("m", ONE, soon));
        server = new FakeServer(address);
        FakeServer.Received request = server.receive();
        assertTrue(request.prefix().timeoutUs() <= 19_900_000, request.prefix().toString());
        assertTrue(request.prefix().timeoutUs() > 0, request.prefix().toString());
        server.reply(request, 0, 1);
        assertEquals(0f, value(future));
    }

    @Test
    void whatAServerDoesNotReadWaitsInTheClientAndIsSentLater() throws Exception {
        client.close();
        client = TensorwireClient.builder(server.address).timeout(null).fuse(false).connect();
        client.predictAsync("m", ONE);
        FakeServer.Received first = server.receive(); // the connection stands
        server.reply(first, 0, 1);
        int count = 2_000;
        Map<String, Tensor> large = Map.of("x", Tensor.of(new float[32_768]));
        List<CompletableFuture<Map<String, Tensor>>> futures = new ArrayList<>();
        for (int call = 0; call < count; call++) {
            futures.add(client.predictAsync("m", large));
        }
        assertTrue(Engines.held(client) > 0);
        for (int call = 0; call < count; call++) {
            server.reply(server.receive(), 0, 1);
        }
        for (CompletableFuture<Map<String, Tensor>> future : futures) {
            assertEquals(0f, value(future));
        }
        assertEquals(0, Engines.held(client));
    }

    @Test
    void aTaskThatFailsTakesNothingElseWithIt() throws Exception {
        List<CompletableFuture<Map<String, Tensor>>> futures = new ArrayList<>();
        Engines.pause(
                client,
                () -> {
                    Engines.fail(client);
                    futures.add(client.predictAsync("m", ONE));
                });
        server.reply(server.receive(), 0, 1);
        assertEquals(0f, value(futures.get(0)));
    }

    @Test
    void unknownCodesArePreserved() {
        CompletableFuture<Map<String, Tensor>> future = client.predictAsync("m", ONE);
        server.fail(server.receive(), 0, 1, 99);
        RpcException error = failure(future);
        assertEquals(99, error.code());
        assertEquals(StatusCode.UNRECOGNIZED, error.status());
        assertEquals("CODE_99: no", error.getMessage());
    }

    @Test
    void aReplyThatCannotBeReadFailsItsCallAndNoOther() throws Exception {
        CompletableFuture<Map<String, Tensor>> bad = client.predictAsync("m", ONE);
        FakeServer.Received first = server.receive();
        Prefix prefix =
                new Prefix(Kind.REPLY.number(), 0, 0, first.prefix().id(), 0, 1, 1, 0, 0, 0, 0);
        server.send(first.peer(), MessageWriter.write(prefix, new byte[] {(byte) 0xc1}));
        RpcException error = failure(bad);
        assertEquals(StatusCode.UNKNOWN, error.status());
        assertTrue(error.description().contains("cannot be read"), error.description());
        server.send(first.peer(), ByteBuffer.wrap(new byte[3])); // nobody's
        CompletableFuture<Map<String, Tensor>> good = client.predictAsync("m", ONE);
        server.reply(server.receive(), 0, 1);
        assertEquals(0f, value(good));
    }

    @Test
    void aReplyWhoseLengthsAndCountAreWrongFailsTheCallsThatThereAre() {
        CompletableFuture<Map<String, Tensor>> bad = client.predictAsync("m", ONE);
        FakeServer.Received request = server.receive();
        Prefix prefix =
                new Prefix(
                        Kind.REPLY.number(), 0, 0, request.prefix().id(), 0, 3, 100, 0, 0, 0, 0);
        server.send(request.peer(), MessageWriter.write(prefix, new byte[0]));
        assertEquals(StatusCode.UNKNOWN, failure(bad).status());
    }

    @Test
    void aCallThatIsCancelledWhileItWaitsForAServerIsLetGo() {
        client.close();
        String address = server.address;
        server.close();
        client = TensorwireClient.builder(address).timeout(null).connect();
        CompletableFuture<Map<String, Tensor>> future = client.predictAsync("m", ONE);
        assertEquals(1, Engines.held(client));
        future.cancel(true);
        assertEquals(0, Engines.held(client));
        server = new FakeServer();
    }

    @Test
    void aControlCallHasATimeoutOfItsOwn() {
        RpcException error =
                assertThrows(
                        RpcException.class,
                        () -> client.control("stats", Map.of(), Duration.ofMillis(50)));
        assertTrue(error.description().contains("within 0.05 s"), error.description());
        assertThrows(
                IllegalArgumentException.class,
                () -> client.control("stats", Map.of(), Duration.ZERO));
    }

    @Test
    void aResultThatClaimsToBeHugeFailsItsCallAndNoOther() throws Exception {
        CompletableFuture<Object> bad =
                CompletableFuture.supplyAsync(() -> client.control("stats", Map.of()));
        FakeServer.Received call = server.receive();
        byte[] body = {(byte) 0xdd, 0x7f, -1, -1, -1};
        Prefix prefix =
                Prefix.control(Kind.CONTROL_REPLY, call.prefix().id(), 1, body.length, 0);
        server.send(call.peer(), MessageWriter.write(prefix, body));
        assertEquals(StatusCode.UNKNOWN, failure(bad).status());
        CompletableFuture<Map<String, Tensor>> good = client.predictAsync("m", ONE);
        server.reply(server.receive(), 0, 1);
        assertEquals(0f, value(good));
    }

    @Test
    void answersThatNobodyWaitsForAreIgnored() throws Exception {
        CompletableFuture<Map<String, Tensor>> future = client.predictAsync("m", ONE);
        FakeServer.Received request = server.receive();
        server.reply(request, 0, 3); // more than were asked
        server.reply(request, 7, 1);
        server.reply(request, 0, 1);
        server.reply(request, 0, 1); // answered before
        assertEquals(0f, value(future));
    }

    @Test
    void silenceEndsWithTheTimeout() {
        PredictOptions options = PredictOptions.DEFAULT.withTimeout(Duration.ofMillis(50));
        client.predictAsync("m", ONE);
        server.receive(); // the connection stands
        RpcException error =
                assertThrows(RpcException.class, () -> client.predict("m", ONE, options));
        assertEquals(StatusCode.DEADLINE_EXCEEDED, error.status());
        assertTrue(error.description().contains("within 0.05 s"), error.description());
    }

    @Test
    void withoutAServerTheTimeoutSaysSo() {
        String address = server.address;
        client.close();
        server.close();
        client = TensorwireClient.builder(address).timeout(Duration.ofMillis(100)).connect();
        RpcException error = assertThrows(RpcException.class, () -> client.predict("m", ONE));
        assertEquals(StatusCode.UNAVAILABLE, error.status());
        assertTrue(error.description().contains("is the server running?"), error.description());
        server = new FakeServer();
    }

    @Test
    void callsWithOtherOptionsTravelAlone() {
        together(
                List.of(
                        PredictOptions.DEFAULT,
                        PredictOptions.DEFAULT.withRoutingKey("a"),
                        PredictOptions.DEFAULT.withRoutingKey("b"),
                        PredictOptions.DEFAULT.withTimeout(Duration.ofSeconds(20)),
                        PredictOptions.DEFAULT.withVersion(1)));
        for (int call = 0; call < 5; call++) {
            Prefix prefix = server.receive().prefix();
            assertEquals(1, prefix.count());
            assertEquals(call == 1 || call == 2, prefix.extraLen() > 0);
            assertEquals(call == 3, prefix.timeoutUs() > 0);
        }
        client.predictAsync("m", Map.of("x", Tensor.of(new float[20_000])));
        FakeServer.Received large = server.receive();
        assertEquals(1, large.frames().size());
        assertEquals(80_000, large.frames().get(0).limit());
    }

    @Test
    void closingFailsWhatIsPendingAndWhatComesAfter() {
        CompletableFuture<Map<String, Tensor>> pending = client.predictAsync("m", ONE);
        server.receive();
        client.close();
        assertEquals(StatusCode.UNAVAILABLE, failure(pending).status());
        RpcException error = assertThrows(RpcException.class, () -> client.predict("m", ONE));
        assertEquals("the client was closed", error.description());
        assertEquals("the client was closed", failure(client.predictAsync("m", ONE)).description());
        client.close();
    }

    @Test
    void aCallbackMayCallAndCloseTheClient() throws Exception {
        CompletableFuture<float[]> second =
                client.predictAsync("m", ONE)
                        .thenApply(outputs -> client.predict("m", ONE).get("y").floats())
                        .whenComplete((found, error) -> client.close());
        server.reply(server.receive(), 0, 1);
        server.reply(server.receive(), 0, 1);
        assertArrayEquals(new float[] {0}, second.get(20, TimeUnit.SECONDS));
    }

    @Test
    void aCallbackMayWaitForACallThatItMakes() throws Exception {
        CompletableFuture<Map<String, Tensor>> second =
                client.predictAsync("m", ONE)
                        .thenApply(outputs -> client.predictAsync("m", ONE).join());
        server.reply(server.receive(), 0, 1);
        server.reply(server.receive(), 0, 1);
        assertEquals(0f, value(second));
    }

    @Test
    void aCallbackMayWaitForACallThatIsAnsweredWithItsOwn() throws Exception {
        List<CompletableFuture<Map<String, Tensor>>> futures = together(3);
        CompletableFuture<Map<String, Tensor>> last =
                futures.get(0).thenApply(outputs -> futures.get(2).join());
        server.reply(server.receive(), 0, 3);
        assertEquals(20f, value(last));
        assertEquals(10f, value(futures.get(1)));
    }

    private void connectWith(Executor executor) {
        client.close();
        client =
                TensorwireClient.builder(server.address)
                        .timeout(Duration.ofSeconds(20))
                        .callbackExecutor(executor)
                        .connect();
    }

    @Test
    void anExecutorThatThrowsLosesNoCall() throws Exception {
        connectWith(
                work -> {
                    throw new AssertionError("expected by a test");
                });
        for (int call = 0; call < 2; call++) {
            CompletableFuture<Map<String, Tensor>> future = client.predictAsync("m", ONE);
            server.reply(server.receive(), 0, 1);
            assertEquals(0f, value(future));
        }
    }

    @Test
    void theIoThreadDoesNotWaitForItself() {
        connectWith(Runnable::run);
        CompletableFuture<Map<String, Tensor>> future =
                client.predictAsync("m", ONE).thenApply(outputs -> client.predict("m", ONE));
        server.reply(server.receive(), 0, 1);
        ExecutionException failed =
                assertThrows(ExecutionException.class, () -> future.get(20, TimeUnit.SECONDS));
        assertInstanceOf(IllegalStateException.class, failed.getCause());
    }

    @Test
    void anErrorInAThreadOfJeroMqFailsTheCallsAndTheClientCanBeClosed() {
        Set<Thread> others = Threads.ofJeroMq();
        client.close();
        client = TensorwireClient.builder(server.address).timeout(null).connect();
        CompletableFuture<Map<String, Tensor>> pending = client.predictAsync("m", ONE);
        server.receive();
        Thread own =
                Threads.ofJeroMq().stream()
                        .filter(each -> !others.contains(each))
                        .findAny()
                        .orElseThrow();
        own.getUncaughtExceptionHandler().uncaughtException(own, new OutOfMemoryError("a test's"));
        for (CompletableFuture<?> future : List.of(pending, client.predictAsync("m", ONE))) {
            RpcException error = failure(future);
            assertEquals(StatusCode.INTERNAL, error.status());
            assertTrue(error.description().contains("OutOfMemoryError"), error.description());
        }
    }

    @Test
    void badAddressesAndSettingsAreRefused() {
        RpcException error =
                assertThrows(RpcException.class, () -> TensorwireClient.connect("nonsense"));
        assertEquals(StatusCode.INVALID_ARGUMENT, error.status());
        assertTrue(error.description().contains("expected tcp://HOST:PORT"), error.description());
        assertThrows(RpcException.class, () -> TensorwireClient.connect("ipc:///tmp/server"));
        assertThrows(RpcException.class, () -> TensorwireClient.connect("tcp://127.0.0.1"));
        RpcException unknown =
                assertThrows(
                        RpcException.class,
                        () -> TensorwireClient.connect("tcp://no-such-host.invalid:8700"));
        assertEquals(StatusCode.UNAVAILABLE, unknown.status());
        ClientBuilder builder = TensorwireClient.builder(server.address).timeout(Duration.ZERO);
        assertThrows(IllegalArgumentException.class, builder::connect);
        Duration second = Duration.ofSeconds(1);
        for (Duration shortest : List.of(Duration.ZERO, Duration.ofNanos(500_000))) {
            ClientBuilder hasty = TensorwireClient.builder(server.address);
            assertThrows(
                    IllegalArgumentException.class, hasty.reconnect(shortest, second)::connect);
        }
        ClientBuilder slow = TensorwireClient.builder(server.address);
        assertThrows(
                IllegalArgumentException.class,
                slow.reconnect(second, Duration.ofDays(25))::connect);
        assertThrows(IllegalArgumentException.class, () -> PredictOptions.DEFAULT.withVersion(-1));
    }
}
