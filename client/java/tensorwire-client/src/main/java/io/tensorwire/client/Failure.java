package io.tensorwire.client;

/**
 * Why a call failed: made by the I/O thread, thrown as an exception with the stack of whoever
 * waits.
 *
 * @param code the status
 * @param description what was wrong and what was expected
 */
record Failure(int code, String description) {
    static Failure of(StatusCode status, String description) {
        return new Failure(status.number(), description);
    }

    RpcException exception() {
        return new RpcException(code, description);
    }
}
