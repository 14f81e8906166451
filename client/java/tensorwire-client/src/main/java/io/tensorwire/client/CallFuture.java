package io.tensorwire.client;

import java.util.concurrent.CompletableFuture;

/** A call as a future. It is completed where callbacks may run, never by the I/O thread. */
final class CallFuture<T> extends CompletableFuture<T> implements Completion<T> {
    private final Callbacks callbacks;
    private Runnable giveUp = () -> {};

    CallFuture(Callbacks callbacks) {
        this.callbacks = callbacks;
    }

    /** What cancelling does besides; set before anybody has the future. */
    void whenCancelled(Runnable action) {
        giveUp = action;
    }

    @Override
    public void succeed(T result) {
        callbacks.add(this, () -> complete(result));
    }

    @Override
    public void fail(Failure failure) {
        callbacks.add(this, () -> completeExceptionally(failure.exception()));
    }

    @Override
    public boolean cancel(boolean mayInterruptIfRunning) {
        boolean cancelled = super.cancel(mayInterruptIfRunning);
        if (cancelled) {
            giveUp.run();
        }
        return cancelled;
    }
}
