package io.tensorwire.examples;

import io.tensorwire.client.ModelMetadata;
import io.tensorwire.client.PredictOptions;
import io.tensorwire.client.RpcException;
import io.tensorwire.client.Tensor;
import io.tensorwire.client.TensorwireClient;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.stream.IntStream;

/**
 * Calls the model {@code scorer} of the project's README: {@code tensorwire serve models}, then
 * this with the server's address.
 */
public final class Scorer {
    private static final String DEFAULT_ADDRESS = "tcp://127.0.0.1:8700";
    private static final int CALLS = 100;

    private Scorer() {}

    /**
     * Runs the example.
     *
     * @param arguments the address of a server; none: the default one
     */
    public static void main(String[] arguments) {
        String address = arguments.length > 0 ? arguments[0] : DEFAULT_ADDRESS;
        try (TensorwireClient client = TensorwireClient.connect(address)) {
            describe(client.metadata("scorer"));
            callOne(client);
            callMany(client);
            callWrongly(client);
        } catch (RpcException error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }

    private static void describe(ModelMetadata model) {
        System.out.println(
                model.name()
                        + " "
                        + model.version()
                        + ": "
                        + model.inputs()
                        + " -> "
                        + model.outputs());
    }

    private static void callOne(TensorwireClient client) {
        Tensor x = Tensor.of(new float[] {1, 1, 1, 1, 2, 2, 2, 2}, 2, 4);
        float[] scores = client.predict("scorer", Map.of("x", x)).get("score").floats();
        System.out.println("two rows: " + scores[0] + " and " + scores[1]);
    }

    /**
     * Calls that are made together travel in few messages, and the server runs them in few batches.
     */
    private static void callMany(TensorwireClient client) {
        PredictOptions options = PredictOptions.DEFAULT.withTimeout(Duration.ofSeconds(5));
        List<CompletableFuture<Map<String, Tensor>>> futures =
                IntStream.range(0, CALLS)
                        .mapToObj(n -> Tensor.of(new float[] {n, n, n, n}, 1, 4))
                        .map(x -> client.predictAsync("scorer", Map.of("x", x), options))
                        .toList();
        double sum =
                futures.stream()
                        .mapToDouble(future -> future.join().get("score").floats()[0])
                        .sum();
        System.out.println(CALLS + " calls: " + sum);
    }

    private static void callWrongly(TensorwireClient client) {
        try {
            client.predict("scorer", Map.of("x", Tensor.of(new float[5], 1, 5)));
        } catch (RpcException error) {
            System.out.println("refused: " + error.getMessage());
        }
    }
}
