package io.tensorwire.bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;

/**
 * A client process of the benchmark: one JSON line when it is connected, then one for each job that
 * it reads, as bench/java_clients.py describes them; it ends with its stdin. Arguments: system,
 * address, timeout of a call in seconds.
 */
public final class LoadMain {
    private static final ObjectMapper JSON =
            new ObjectMapper().setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE);

    private LoadMain() {}

    /**
     * Runs it.
     *
     * @param arguments see above
     * @throws IOException stdin cannot be read
     * @throws InterruptedException never
     */
    public static void main(String[] arguments) throws IOException, InterruptedException {
        if (arguments.length != 3) {
            System.err.println("expected: tensorwire|grpc ADDRESS TIMEOUT_SECONDS");
            System.exit(2);
        }
        Duration timeout = Duration.ofNanos((long) (Double.parseDouble(arguments[2]) * 1e9));
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Peer peer = open(arguments[0], arguments[1], timeout)) {
            say(Map.of("address", ""));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                say(new Load(peer, JSON.readValue(line, Load.Job.class)).run());
            }
        }
    }

    private static Peer open(String system, String address, Duration timeout) {
        return switch (system) {
            case "tensorwire" -> new TensorwirePeer(address, timeout);
            case "grpc" -> new GrpcPeer(address, timeout);
            default ->
                    throw new IllegalArgumentException(
                            "system is '" + system + "', expected tensorwire or grpc");
        };
    }

    private static void say(Object message) throws IOException {
        System.out.println(JSON.writeValueAsString(message));
        System.out.flush();
    }
}
