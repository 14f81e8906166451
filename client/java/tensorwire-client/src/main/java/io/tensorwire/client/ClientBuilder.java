package io.tensorwire.client;

import java.time.Duration;
import java.util.concurrent.Executor;

/** The settings of a client. */
public final class ClientBuilder {
    private final String address;
    private Duration timeout = Duration.ofSeconds(1);
    private boolean fuse = true;
    private Duration reconnectMin = Duration.ofMillis(50);
    private Duration reconnectMax = Duration.ofSeconds(2);
    private Executor callbackExecutor;

    ClientBuilder(String address) {
        this.address = address;
    }

    /**
     * How long a call may take unless its options say otherwise.
     *
     * @param value more than zero; null: no limit. Default 1 s
     * @return this
     */
    public ClientBuilder timeout(Duration value) {
        timeout = value;
        return this;
    }

    /**
     * Whether calls may share messages.
     *
     * @param value default true
     * @return this
     */
    public ClientBuilder fuse(boolean value) {
        fuse = value;
        return this;
    }

    /**
     * How soon a lost connection is tried again; the time doubles until it is the longest.
     *
     * @param shortest at least 1 ms, in whole milliseconds. Default 50 ms
     * @param longest not less, at most 2^31 - 1 ms. Default 2 s
     * @return this
     */
    public ClientBuilder reconnect(Duration shortest, Duration longest) {
        reconnectMin = shortest;
        reconnectMax = longest;
        return this;
    }

    /**
     * Where futures are completed, and so what hangs on them runs. It may wait for other calls: by
     * default in as many threads of the client's own as that takes.
     *
     * @param value gets each future by itself, and must have threads enough for those that wait;
     *     one that runs its work at once keeps the thread of the socket, where no call can be
     *     waited for. Default, and null: threads of the client's own
     * @return this
     */
    public ClientBuilder callbackExecutor(Executor value) {
        callbackExecutor = value;
        return this;
    }

    /**
     * Make the client.
     *
     * @return a client, which connects in the background
     * @throws IllegalArgumentException a setting is out of range
     * @throws RpcException INVALID_ARGUMENT: the address is none; UNAVAILABLE: its host's name is
     *     not known, which may change: try again
     */
    public TensorwireClient connect() {
        ClientOptions options =
                new ClientOptions(
                        address, timeout, fuse, reconnectMin, reconnectMax, callbackExecutor);
        return TensorwireClient.start(options);
    }
}
