package io.tensorwire.client;

import io.tensorwire.client.wire.Bodies;
import io.tensorwire.client.wire.PlainValues;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/**
 * A connection to a tensorwire server, for any number of threads at once.
 *
 * <pre>{@code
 * try (TensorwireClient client = TensorwireClient.connect("tcp://127.0.0.1:8700")) {
 *     Tensor x = Tensor.of(new float[] {1, 2, 3, 4}, 1, 4);
 *     float[] score = client.predict("scorer", Map.of("x", x)).get("score").floats();
 * }
 * }</pre>
 *
 * <p>Small calls that are made while others are being sent travel with them in one message; no call
 * waits for company. Every call ends within its timeout, whatever the server does, and a call that
 * is in flight when the connection is lost fails at once with {@link StatusCode#UNAVAILABLE}. The
 * client connects again by itself; calls that are made meanwhile wait for that as long as their
 * timeout allows.
 *
 * <p>All failures are {@link RpcException}s. Inputs are not copied where that can be helped: do not
 * change the memory behind a tensor that has been passed to a call.
 */
public final class TensorwireClient implements AutoCloseable {
    private final Engine engine;
    private final Callbacks callbacks;
    private final Templates templates = new Templates();
    private final long timeout;

    private TensorwireClient(ClientOptions options) {
        this.callbacks = new Callbacks(options.callbackExecutor());
        this.engine = new Engine(options, System::nanoTime, callbacks);
        this.timeout = ClientOptions.nanos(options.timeout());
    }

    /**
     * A client with the default settings: calls may take a second.
     *
     * @param address {@code tcp://HOST:PORT}
     * @return a client, which connects in the background: there need be no server yet
     * @throws RpcException INVALID_ARGUMENT: it is no address; UNAVAILABLE: its host's name is not
     *     known, which may change: try again
     */
    public static TensorwireClient connect(String address) {
        return builder(address).connect();
    }

    /**
     * A client with other settings.
     *
     * @param address {@code tcp://HOST:PORT}
     * @return to be told them
     */
    public static ClientBuilder builder(String address) {
        return new ClientBuilder(address);
    }

    /** A client that is started. */
    static TensorwireClient start(ClientOptions options) {
        TensorwireClient client = new TensorwireClient(options);
        client.engine.start();
        return client;
    }

    /** For tests that hold its thread. */
    Engine engine() {
        return engine;
    }

    // ---------------------------------------------------------------- calls

    /**
     * Run the default version of a model, and wait for the result.
     *
     * @param model its name
     * @param inputs by name
     * @return outputs by name, in the model's order
     * @throws RpcException the call failed
     */
    public Map<String, Tensor> predict(String model, Map<String, Tensor> inputs) {
        return predict(model, inputs, PredictOptions.DEFAULT);
    }

    /**
     * Run a model, and wait for the result.
     *
     * @param model its name
     * @param inputs by name
     * @param options version, timeout and more
     * @return outputs by name, in the order asked for, else in the model's
     * @throws RpcException the call failed; CANCELLED where the calling thread was interrupted,
     *     which it stays
     */
    public Map<String, Tensor> predict(
            String model, Map<String, Tensor> inputs, PredictOptions options) {
        Waiter<Map<String, Tensor>> waiter = new Waiter<>();
        PredictCall call = newCall(model, inputs, options, waiter);
        return await(call, waiter);
    }

    /**
     * Run the default version of a model.
     *
     * @param model its name
     * @param inputs by name
     * @return see the other method of this name
     */
    public CompletableFuture<Map<String, Tensor>> predictAsync(
            String model, Map<String, Tensor> inputs) {
        return predictAsync(model, inputs, PredictOptions.DEFAULT);
    }

    /**
     * Run a model. Cancelling the future takes the request out of the server's queue if it does not
     * run yet.
     *
     * @param model its name
     * @param inputs by name
     * @param options version, timeout and more
     * @return the outputs; it fails with an {@link RpcException}. What hangs on it runs where the
     *     client's callbacks do
     * @throws RpcException INVALID_ARGUMENT: an input cannot be sent
     */
    public CompletableFuture<Map<String, Tensor>> predictAsync(
            String model, Map<String, Tensor> inputs, PredictOptions options) {
        CallFuture<Map<String, Tensor>> future = new CallFuture<>(callbacks);
        PredictCall call = newCall(model, inputs, options, future);
        future.whenCancelled(() -> engine.cancel(call));
        if (!engine.submit(call)) {
            // The I/O thread, which completes futures otherwise, is gone.
            future.completeExceptionally(engine.ended().exception());
        }
        return future;
    }

    private <T> T await(Call call, Waiter<T> waiter) {
        if (engine.isOwnThread()) {
            throw new IllegalStateException(
                    "the client's I/O thread cannot wait for a call: the executor of callbacks"
                            + " runs them in the thread that hands them over");
        }
        if (!engine.submit(call)) {
            throw engine.ended().exception();
        }
        return waiter.await(call.patience(), () -> engine.cancel(call));
    }

    private PredictCall newCall(
            String model,
            Map<String, Tensor> inputs,
            PredictOptions options,
            Completion<Map<String, Tensor>> completion) {
        String[] names = inputs.keySet().toArray(String[]::new);
        // In one order whatever the map's: equal headers share batches, also those of other
        // processes.
        Arrays.sort(names);
        Tensor[] tensors = new Tensor[names.length];
        for (int index = 0; index < names.length; index++) {
            tensors[index] = inputs.get(names[index]);
        }
        Template template = templates.get(model, options, names, tensors);
        return new PredictCall(
                template,
                payloads(tensors),
                options.extra(),
                options.timeout(timeout),
                System.nanoTime(),
                completion);
    }

    /** Elements of any length are put together here, where their memory is the caller's concern. */
    private static ByteBuffer[] payloads(Tensor[] tensors) {
        ByteBuffer[] payloads = new ByteBuffer[tensors.length];
        try {
            for (int index = 0; index < tensors.length; index++) {
                payloads[index] = tensors[index].payload();
            }
        } catch (IllegalArgumentException error) {
            throw new RpcException(StatusCode.INVALID_ARGUMENT, error.getMessage());
        }
        return payloads;
    }

    // ---------------------------------------------------------------- about the server

    /**
     * Names, dtypes and shapes of the default version of a model.
     *
     * @param model its name
     * @return the version that a request would get
     * @throws RpcException NOT_FOUND: no such model; and others
     */
    public ModelMetadata metadata(String model) {
        return ModelMetadata.of(control("metadata", Map.of("model", model)));
    }

    /**
     * Names, dtypes and shapes of a version of a model.
     *
     * @param model its name
     * @param version its number
     * @return that version
     * @throws RpcException NOT_FOUND: no such model or version; and others
     */
    public ModelMetadata metadata(String model, long version) {
        return ModelMetadata.of(control("metadata", Map.of("model", model, "version", version)));
    }

    /**
     * Names, dtypes and shapes of the version of a model that has a label.
     *
     * @param model its name
     * @param label for example {@code stable}
     * @return that version
     * @throws RpcException NOT_FOUND: no such model or label; and others
     */
    public ModelMetadata metadata(String model, String label) {
        return ModelMetadata.of(control("metadata", Map.of("model", model, "label", label)));
    }

    /**
     * The state of all versions of all models.
     *
     * @return those that are wanted or not gone yet
     */
    public List<VersionStatus> status() {
        return statuses(Map.of());
    }

    /**
     * The state of all versions of a model.
     *
     * @param model its name
     * @return those that are wanted or not gone yet
     * @throws RpcException NOT_FOUND: no such model
     */
    public List<VersionStatus> status(String model) {
        return statuses(Map.of("model", model));
    }

    private List<VersionStatus> statuses(Map<String, ?> params) {
        return Results.listOf(control("status", params)).stream().map(VersionStatus::of).toList();
    }

    /**
     * The state of the server.
     *
     * @return also while all models are busy
     */
    public Health health() {
        return Health.of(control("health", Map.of()));
    }

    /**
     * Any call of introspection or administration; docs/protocol.md lists them.
     *
     * @param method its name
     * @param params null, Boolean, Number, String, byte[], and lists and maps of these
     * @return the result, of such types, integers as Long and fractions as Double
     * @throws RpcException the call failed
     */
    public Object control(String method, Map<String, ?> params) {
        return control(method, params, timeout);
    }

    /**
     * Any call of introspection or administration, some of which take longer than a prediction may.
     *
     * @param method its name
     * @param params see the other method of this name
     * @param limit how long it may take, more than zero; null: no limit
     * @return see the other method of this name
     * @throws IllegalArgumentException the limit is zero or negative
     * @throws RpcException the call failed
     */
    public Object control(String method, Map<String, ?> params, Duration limit) {
        if (limit != null) {
            ClientOptions.positive("limit", limit);
        }
        return control(method, params, ClientOptions.nanos(limit));
    }

    private Object control(String method, Map<String, ?> params, long nanos) {
        Waiter<Object> waiter = new Waiter<>();
        byte[] body = Bodies.call(method, PlainValues.packedMap(new LinkedHashMap<>(params)));
        return await(new ControlCall(body, nanos, System.nanoTime(), waiter), waiter);
    }

    /**
     * Fail what is pending with UNAVAILABLE, close the connection, end the threads. May be called
     * twice.
     */
    @Override
    public void close() {
        engine.close();
    }
}
