package io.tensorwire.client;

import java.util.Map;

/** A call of introspection or administration. */
final class ControlCall extends Call {
    /** msgpack. */
    final byte[] body;

    private final Completion<Object> completion;

    ControlCall(byte[] body, long timeout, long begun, Completion<Object> completion) {
        super(timeout, begun);
        this.body = body;
        this.completion = completion;
    }

    @Override
    void run(Engine engine) {
        engine.channel().add(this);
    }

    @Override
    void reply(Map<String, Tensor> outputs) {
        fail(Failure.of(StatusCode.UNKNOWN, "the server answered a control call with tensors"));
    }

    @Override
    void controlReply(Object result) {
        completion.succeed(result);
    }

    @Override
    void fail(Failure failure) {
        completion.fail(failure);
    }
}
