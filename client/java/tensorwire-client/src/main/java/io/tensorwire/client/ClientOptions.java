package io.tensorwire.client;

import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.Executor;

/** How a client connects and calls; validated. A {@link ClientBuilder} makes it. */
record ClientOptions(
        String address,
        Duration timeout,
        boolean fuse,
        Duration reconnectMin,
        Duration reconnectMax,
        Executor callbackExecutor) {
    ClientOptions {
        if (!Objects.requireNonNull(address, "address is null; expected tcp://HOST:PORT")
                .startsWith("tcp://")) {
            // What JeroMQ calls ipc:// is TCP between JeroMQs.
            throw new RpcException(
                    StatusCode.INVALID_ARGUMENT,
                    "cannot connect to '" + address + "'; expected tcp://HOST:PORT");
        }
        if (timeout != null) {
            positive("timeout", timeout);
        }
        milliseconds("reconnectMin", reconnectMin);
        milliseconds("reconnectMax", reconnectMax);
        if (reconnectMax.compareTo(reconnectMin) < 0) {
            throw new IllegalArgumentException(
                    "reconnectMax is "
                            + reconnectMax
                            + ", expected at least reconnectMin, "
                            + reconnectMin);
        }
    }

    static Duration positive(String name, Duration value) {
        if (value.isNegative() || value.isZero()) {
            throw new IllegalArgumentException(name + " is " + value + ", expected more than zero");
        }
        return value;
    }

    /** What JeroMQ takes: milliseconds in an int. With none its I/O thread divides by zero. */
    private static void milliseconds(String name, Duration value) {
        if (value.compareTo(Duration.ofMillis(1)) < 0
                || value.compareTo(Duration.ofMillis(Integer.MAX_VALUE)) > 0) {
            throw new IllegalArgumentException(
                    name
                            + " is "
                            + value
                            + ", expected 1 to "
                            + Integer.MAX_VALUE
                            + " milliseconds");
        }
    }

    /** Nanoseconds of a timeout; null is none, and what does not fit is as good as none. */
    static long nanos(Duration timeout) {
        if (timeout == null || timeout.compareTo(Duration.ofDays(10_000)) > 0) {
            return Call.NO_TIMEOUT;
        }
        return timeout.toNanos();
    }
}
