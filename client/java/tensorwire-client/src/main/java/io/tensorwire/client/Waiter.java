package io.tensorwire.client;

import java.util.concurrent.locks.LockSupport;

/** A caller that blocks until its call is over. */
final class Waiter<T> implements Completion<T> {
    private final Thread caller = Thread.currentThread();

    /** Both are published by {@link #done}. */
    private T result;

    private Failure failure;
    private volatile boolean done;

    @Override
    public void succeed(T value) {
        result = value;
        done = true;
        LockSupport.unpark(caller);
    }

    @Override
    public void fail(Failure why) {
        failure = why;
        done = true;
        LockSupport.unpark(caller);
    }

    /**
     * The result, once it is there.
     *
     * @param patience nanoseconds, more than the call may take: to wait for ever is worse than
     *     not to know what became of the I/O thread; {@link Call#NO_TIMEOUT}: no limit
     * @param giveUp what to do if the caller is interrupted, or its patience is over
     * @throws RpcException the call failed; CANCELLED where the caller was interrupted, which it
     *     stays
     */
    T await(long patience, Runnable giveUp) {
        long begun = System.nanoTime();
        while (!done) {
            if (patience == Call.NO_TIMEOUT) {
                LockSupport.park(this);
            } else {
                long left = patience - (System.nanoTime() - begun);
                if (left <= 0) {
                    giveUp.run();
                    throw new RpcException(
                            StatusCode.DEADLINE_EXCEEDED,
                            "the client's I/O thread did not end the call in time");
                }
                LockSupport.parkNanos(this, left);
            }
            if (!done && Thread.currentThread().isInterrupted()) {
                giveUp.run();
                throw new RpcException(StatusCode.CANCELLED, "the calling thread was interrupted");
            }
        }
        if (failure != null) {
            throw failure.exception();
        }
        return result;
    }
}
