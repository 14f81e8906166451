package io.tensorwire.bench;

import io.tensorwire.client.RpcException;
import io.tensorwire.client.Tensor;
import io.tensorwire.client.TensorwireClient;

import java.time.Duration;
import java.util.Map;

/** The client of this project, with its defaults. */
final class TensorwirePeer implements Peer {
    private final TensorwireClient client;

    TensorwirePeer(String address, Duration timeout) {
        client = TensorwireClient.builder(address).timeout(timeout).connect();
    }

    @Override
    public Caller caller(float[] input) {
        return () -> {
            Tensor x = Tensor.of(input, 1, input.length);
            try {
                return client.predict("matmul16", Map.of("x", x)).get("y").floats();
            } catch (RpcException error) {
                throw new Failed(error.status() + ": " + error.description());
            }
        };
    }

    @Override
    public void close() {
        client.close();
    }
}
