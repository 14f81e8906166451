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
     * @param giveUp what to do if the caller is interrupted
     * @throws RpcException the call failed; CANCELLED where the caller was interrupted, which it
     *     stays
     */
    T await(Runnable giveUp) {
        while (!done) {
            LockSupport.park(this);
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
