package io.tensorwire.client;

/**
 * Where the outcome of a call goes; the first one counts. Called by the I/O thread, which it must
 * not keep.
 */
interface Completion<T> {
    void succeed(T result);

    void fail(Failure failure);
}
