package io.tensorwire.client;

import io.tensorwire.client.wire.Kind;
import io.tensorwire.client.wire.MessageWriter;
import io.tensorwire.client.wire.Messages;
import io.tensorwire.client.wire.Prefix;

import org.zeromq.SocketType;
import org.zeromq.ZMQ;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;

/** A ROUTER that answers as a test says, message by message, in the test's own thread. */
final class FakeServer implements AutoCloseable {
    private static final int PATIENCE_MS = 20_000;

    /** So many messages that are not received are taken from the network at most. */
    private static final int FEW = 10;

    final String address;
    private final ZMQ.Context context = ZMQ.context(1);
    private final ZMQ.Socket router = context.socket(SocketType.ROUTER);

    /** One message of a client. */
    record Received(byte[] peer, ByteBuffer head, List<ByteBuffer> frames) {
        Prefix prefix() {
            return Prefix.read(head);
        }
    }

    FakeServer() {
        this("tcp://127.0.0.1:*");
    }

    FakeServer(String where) {
        router.setLinger(0);
        router.setRcvHWM(FEW);
        router.setReceiveTimeOut(PATIENCE_MS);
        router.bind(where);
        address = router.getLastEndpoint();
    }

    Received receive() {
        byte[] peer = router.recv();
        if (peer == null) {
            throw new AssertionError("nothing arrived");
        }
        List<ByteBuffer> frames = new ArrayList<>();
        while (router.hasReceiveMore()) {
            frames.add(ByteBuffer.wrap(router.recv()).order(ByteOrder.LITTLE_ENDIAN));
        }
        return new Received(peer, frames.get(0), frames.subList(1, frames.size()));
    }

    void send(byte[] peer, ByteBuffer... frames) {
        router.sendMore(peer);
        for (int index = 0; index < frames.length; index++) {
            router.send(frames[index].array(), index == frames.length - 1 ? 0 : ZMQ.SNDMORE);
        }
    }

    /**
     * Answers a part of an envelope: output {@code y}, one float a request, its index in the
     * envelope times ten.
     */
    void reply(Received request, int from, int count) {
        byte[] header = Messages.replyHeader("m", 1, "y");
        Prefix prefix =
                new Prefix(
                        Kind.REPLY.number(),
                        0,
                        0,
                        request.prefix().id() + from,
                        0,
                        count,
                        header.length,
                        0,
                        65_536,
                        0,
                        0);
        send(request.peer(), Messages.floats(prefix, header, from));
    }

    /** Fails a part of an envelope. */
    void fail(Received request, int from, int count, int status) {
        byte[] body = Messages.errorBody("no");
        Prefix prefix =
                new Prefix(
                        Kind.ERROR.number(),
                        0,
                        status,
                        request.prefix().id() + from,
                        0,
                        count,
                        0,
                        body.length,
                        0,
                        0,
                        0);
        send(request.peer(), MessageWriter.write(prefix, body));
    }

    @Override
    public void close() {
        router.close();
        context.term();
    }
}
