package io.tensorwire.client;

import java.nio.ByteBuffer;
import java.util.Map;

/** A request for a model. */
final class PredictCall extends Call {
    final Template template;

    /** Their bytes, in the template's order; null once they are in a message. */
    ByteBuffer[] inputs;

    final byte[] extra;
    private final Completion<Map<String, Tensor>> completion;

    PredictCall(
            Template template,
            ByteBuffer[] inputs,
            byte[] extra,
            long timeout,
            long begun,
            Completion<Map<String, Tensor>> completion) {
        super(timeout, begun);
        this.template = template;
        this.inputs = inputs;
        this.extra = extra;
        this.completion = completion;
    }

    @Override
    void run(Engine engine) {
        engine.channel().add(this);
    }

    @Override
    void reply(Map<String, Tensor> outputs) {
        completion.succeed(outputs);
    }

    @Override
    void controlReply(Object result) {
        fail(
                Failure.of(
                        StatusCode.UNKNOWN,
                        "the server answered a request with the result of a control call"));
    }

    @Override
    void fail(Failure failure) {
        completion.fail(failure);
    }
}
