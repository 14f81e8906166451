package io.tensorwire.bench;

import com.google.protobuf.ByteString;

import inference.GRPCInferenceServiceGrpc;
import inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import inference.Inference.ModelInferRequest;
import inference.Inference.ModelInferResponse;

import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/**
 * grpc-java on Netty with KServe v2 {@code ModelInfer}: one channel and the blocking stub, which
 * completes a call in the thread that waits for it. The part of a request that stays the same is
 * built once.
 */
final class GrpcPeer implements Peer {
    private final ManagedChannel channel;
    private final GRPCInferenceServiceBlockingStub stub;
    private final long timeoutNanos;

    GrpcPeer(String address, Duration timeout) {
        channel = NettyChannelBuilder.forTarget(address).usePlaintext().build();
        stub = GRPCInferenceServiceGrpc.newBlockingStub(channel);
        timeoutNanos = timeout.toNanos();
    }

    @Override
    public Caller caller(float[] input) {
        ModelInferRequest template =
                ModelInferRequest.newBuilder()
                        .setModelName("matmul16")
                        .addInputs(
                                ModelInferRequest.InferInputTensor.newBuilder()
                                        .setName("x")
                                        .setDatatype("FP32")
                                        .addShape(1)
                                        .addShape(input.length))
                        .build();
        return () -> {
            ByteBuffer bytes =
                    ByteBuffer.allocate(Float.BYTES * input.length).order(ByteOrder.LITTLE_ENDIAN);
            bytes.asFloatBuffer().put(input);
            ModelInferRequest request =
                    template.toBuilder().addRawInputContents(ByteString.copyFrom(bytes)).build();
            try {
                return floats(
                        stub.withDeadlineAfter(timeoutNanos, TimeUnit.NANOSECONDS)
                                .modelInfer(request));
            } catch (StatusRuntimeException error) {
                throw new Failed(error.getStatus().toString());
            }
        };
    }

    private static float[] floats(ModelInferResponse response) {
        ByteBuffer bytes =
                response.getRawOutputContents(0)
                        .asReadOnlyByteBuffer()
                        .order(ByteOrder.LITTLE_ENDIAN);
        float[] values = new float[bytes.remaining() / Float.BYTES];
        bytes.asFloatBuffer().get(values);
        return values;
    }

    @Override
    public void close() {
        channel.shutdownNow();
        try {
            channel.awaitTermination(5, TimeUnit.SECONDS);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
