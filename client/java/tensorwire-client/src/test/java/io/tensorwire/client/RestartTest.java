package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import java.nio.file.Path;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** A server that is killed and comes back. */
class RestartTest {
    private static final Duration TIMEOUT = Duration.ofSeconds(2);

    /** What a loaded machine may need to wake a thread. */
    private static final Duration SLACK = Duration.ofSeconds(1);

    /** A server that has just started says NOT_FOUND until it has looked at its models. */
    private static final Set<StatusCode> EXPECTED =
            EnumSet.of(StatusCode.UNAVAILABLE, StatusCode.NOT_FOUND);

    @TempDir Path folder;

    @Test
    void trafficResumesByItselfAndNothingOutlivesItsTimeout() throws Exception {
        try (ServerProcess server = ServerProcess.start(folder);
                TensorwireClient client =
                        TensorwireClient.builder(server.address).timeout(TIMEOUT).connect();
                Load load = new Load(client, "scale", 16)) {
            for (int time = 0; time < 2; time++) {
                load.awaitAnswers(500);
                server.kill();
                load.awaitFailures(load.failed().size() + 8);
                server.start();
                load.awaitAnswers(500);
            }
            load.stop();
            assertEquals(List.of(), load.wrong());
            for (Load.Failed failed : load.failed()) {
                assertTrue(
                        EXPECTED.contains(failed.error().status()), failed.error().getMessage());
                assertTrue(failed.nanos() < TIMEOUT.plus(SLACK).toNanos(), failed.toString());
            }
        }
        Threads.assertNone();
    }

    @Test
    void aLostServerFailsWhatIsInFlightAtOnce() throws Exception {
        try (ServerProcess server = ServerProcess.start(folder);
                TensorwireClient client =
                        TensorwireClient.builder(server.address).timeout(null).connect()) {
            client.predict("nap", Map.of("seconds", Tensor.of(new double[] {0})));
            CompletableFuture<Map<String, Tensor>> nap =
                    client.predictAsync("nap", Map.of("seconds", Tensor.of(new double[] {30})));
            client.health(); // the request has been sent
            server.kill();
            ExecutionException failed =
                    assertThrows(ExecutionException.class, () -> nap.get(20, TimeUnit.SECONDS));
            RpcException error = (RpcException) failed.getCause();
            assertEquals(StatusCode.UNAVAILABLE, error.status());
            assertTrue(error.description().contains("in flight"), error.description());
            assertFalse(nap.isCancelled());
        }
        Threads.assertNone();
    }
}
