package io.tensorwire.client;

import io.tensorwire.client.wire.Bodies;
import io.tensorwire.client.wire.Kind;
import io.tensorwire.client.wire.Layout;
import io.tensorwire.client.wire.MessageReader;
import io.tensorwire.client.wire.PlainValues;
import io.tensorwire.client.wire.Prefix;
import io.tensorwire.client.wire.ProtocolException;
import io.tensorwire.client.wire.ReplyHeaders;

import org.msgpack.value.Value;

import java.nio.ByteBuffer;
import java.util.List;

/** Messages in, answers out. No I/O. */
final class Receiver {
    private final String address;
    private final Pending pending;
    private final ReplyHeaders headers = new ReplyHeaders();
    private long stray;

    Receiver(String address, Pending pending) {
        this.address = address;
        this.pending = pending;
    }

    /** Messages that could not be read, or that nobody waited for. */
    long stray() {
        return stray;
    }

    /**
     * Answer the calls that a message is for; one that cannot be read fails them. Frames are
     * little-endian.
     */
    void receive(ByteBuffer head, List<ByteBuffer> frames) {
        try {
            Prefix prefix = Prefix.read(head);
            Envelope envelope = pending.find(prefix.id(), prefix.count());
            if (envelope == null) {
                stray++;
            } else if (prefix.is(Kind.REPLY)) {
                reply(envelope, prefix, head, frames);
            } else if (prefix.is(Kind.ERROR)) {
                error(envelope, prefix, head);
            } else if (prefix.is(Kind.CONTROL_REPLY)) {
                controlReply(envelope, prefix, head);
            } else {
                throw new ProtocolException(
                        "a client does not take messages of kind " + prefix.kind());
            }
        } catch (RuntimeException | StackOverflowError | OutOfMemoryError error) {
            // Whatever it is, it must not end the loop that all other calls depend on.
            stray++;
            failUnreadable(head, error);
        }
    }

    private void reply(Envelope envelope, Prefix prefix, ByteBuffer head, List<ByteBuffer> frames) {
        Layout layout = headers.get(head, prefix).outputs();
        MessageReader reader = new MessageReader(prefix, head, frames, layout);
        int first = Pending.indexOf(prefix.id());
        long row = 0;
        for (int request = 0; request < prefix.count(); request++) {
            long rows = reader.rows(request);
            // Before the call is taken: what fails here must still find it.
            Outputs outputs = new Outputs(layout, reader.slice(row, rows));
            Call call = pending.take(envelope, first + request);
            if (call != null) {
                call.reply(outputs);
            }
            row += rows;
        }
    }

    private void error(Envelope envelope, Prefix prefix, ByteBuffer head) {
        String text =
                Bodies.errorText(bytes(head, Prefix.SIZE + prefix.headerLen(), prefix.extraLen()));
        fail(envelope, prefix.id(), prefix.count(), new Failure(prefix.status(), text));
    }

    private void controlReply(Envelope envelope, Prefix prefix, ByteBuffer head) {
        Value value = Bodies.result(bytes(head, Prefix.SIZE, prefix.headerLen()));
        Object result = PlainValues.plain(value);
        Call call = pending.take(envelope, Pending.indexOf(prefix.id()));
        if (call != null) {
            call.controlReply(result);
        }
    }

    private void failUnreadable(ByteBuffer head, Throwable error) {
        Failure failure =
                Failure.of(
                        StatusCode.UNKNOWN,
                        "the reply of " + address + " cannot be read: " + error.getMessage());
        Prefix.answerable(head)
                .ifPresent(
                        ids -> {
                            // Its count may be what is wrong: those of its calls that there are.
                            Envelope envelope = pending.find(ids.first(), 1);
                            if (envelope != null) {
                                int left = envelope.count() - Pending.indexOf(ids.first());
                                fail(envelope, ids.first(), Math.min(ids.count(), left), failure);
                            }
                        });
    }

    private void fail(Envelope envelope, long firstId, int count, Failure failure) {
        int first = Pending.indexOf(firstId);
        for (int index = first; index < first + count; index++) {
            Call call = pending.take(envelope, index);
            if (call != null) {
                call.fail(failure);
            }
        }
    }

    private static byte[] bytes(ByteBuffer head, int at, int length) {
        byte[] bytes = new byte[length];
        head.get(at, bytes);
        return bytes;
    }
}
