package io.tensorwire.client;

import java.util.Map;

/**
 * A call on its way: first a task for the I/O thread, then one of the calls of an {@link Envelope}.
 */
abstract class Call extends Task {
    static final long NO_TIMEOUT = Long.MAX_VALUE;

    /** How much later than due the I/O thread of a loaded machine may be. */
    private static final long SLACK = 10_000_000_000L;

    /** Nanoseconds that it may take; {@link #NO_TIMEOUT}. */
    final long timeout;

    /** When it was made, on the client's clock. */
    final long begun;

    /** The message that it travels in; of the I/O thread alone. */
    Envelope envelope;

    Call(long timeout, long begun) {
        this.timeout = timeout;
        this.begun = begun;
    }

    /** On the client's clock; {@link #NO_TIMEOUT}: never. */
    final long deadline() {
        return timeout == NO_TIMEOUT ? NO_TIMEOUT : begun + timeout;
    }

    /** Nanoseconds after which a caller need not wait for the I/O thread any more. */
    final long patience() {
        return timeout == NO_TIMEOUT ? NO_TIMEOUT : timeout + SLACK;
    }

    /** A REPLY came. */
    abstract void reply(Map<String, Tensor> outputs);

    /** A CONTROL_REPLY came. */
    abstract void controlReply(Object result);

    abstract void fail(Failure failure);

    @Override
    final void abandon(Failure why) {
        fail(why);
    }
}
