package io.tensorwire.client;

import java.nio.ByteBuffer;

/** What tests of other packages need of tensors. */
public final class Tensors {
    private Tensors() {}

    /** See {@link Tensor#payload()}. */
    public static ByteBuffer payload(Tensor tensor) {
        return tensor.payload();
    }
}
