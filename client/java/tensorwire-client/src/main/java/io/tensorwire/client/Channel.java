package io.tensorwire.client;

import io.tensorwire.client.wire.Kind;
import io.tensorwire.client.wire.Layout;
import io.tensorwire.client.wire.MessageWriter;
import io.tensorwire.client.wire.Prefix;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Calls in, messages out: what is fused, what waits, and what has waited too long. No I/O, no
 * clock.
 */
final class Channel {
    /** A message carries at most so many bytes of fused requests, and so many of them. */
    private static final long FUSED_BYTES = 1 << 20;

    private static final int FUSED_CALLS = 4096;
    private static final byte[] NOTHING = {};

    private final String address;
    private final boolean fuse;
    private final Pending pending = new Pending();
    private List<Envelope> opened = new ArrayList<>();

    /** Null while there is a connection; else why there is none. */
    private String down;

    Channel(String address, boolean fuse) {
        this.address = address;
        this.fuse = fuse;
        this.down = "no connection to " + address + " yet";
    }

    Pending pending() {
        return pending;
    }

    // ---------------------------------------------------------------- calls

    /**
     * Add a call to what the next {@link #flush} gives: with those that wait and are like it, or
     * alone.
     */
    void add(PredictCall call) {
        Template template = call.template;
        Envelope group = template.group;
        if (fuse
                && template.fusable
                && group != null
                && group.takes(call, FUSED_CALLS, FUSED_BYTES)) {
            group.add(call);
            return;
        }
        Envelope envelope = new Envelope(template, call.extra, call);
        opened.add(envelope);
        template.group = envelope;
    }

    void add(ControlCall call) {
        opened.add(new Envelope(null, NOTHING, call));
    }

    /** The messages of all calls that were added, which are pending from now on. */
    List<Outgoing> flush(long now) {
        if (opened.isEmpty()) {
            return List.of();
        }
        List<Envelope> ready = opened;
        List<Outgoing> messages = new ArrayList<>(ready.size());
        // All are pending before the first is encoded: whatever happens, failAll finds them.
        for (Envelope envelope : ready) {
            if (envelope.template != null) {
                envelope.template.group = null;
            }
            if (envelope.open() > 0) {
                pending.add(envelope);
            }
        }
        opened = new ArrayList<>();
        for (Envelope envelope : ready) {
            if (envelope.open() > 0) {
                encode(envelope, now, messages);
            }
        }
        return messages;
    }

    private void encode(Envelope envelope, long now, List<Outgoing> messages) {
        long timeoutUs = Outgoing.microseconds(envelope.deadline(), now);
        try {
            messages.add(
                    new Outgoing(
                            envelope,
                            envelope.template == null
                                    ? control(envelope, timeoutUs)
                                    : request(envelope, timeoutUs)));
        } catch (RpcException error) {
            pending.fail(envelope, new Failure(error.code(), error.description()));
        } catch (IllegalArgumentException error) {
            pending.fail(envelope, Failure.of(StatusCode.INVALID_ARGUMENT, error.getMessage()));
        } catch (RuntimeException | OutOfMemoryError error) {
            // It must not end the loop that all other calls depend on.
            pending.fail(
                    envelope,
                    Failure.of(StatusCode.INTERNAL, "the request cannot be written: " + error));
        }
    }

    private static List<ByteBuffer> control(Envelope envelope, long timeoutUs) {
        byte[] body = ((ControlCall) envelope.call(0)).body;
        Prefix prefix = Prefix.control(Kind.CONTROL, envelope.firstId(), 1, body.length, timeoutUs);
        return List.of(MessageWriter.write(prefix, body));
    }

    private static List<ByteBuffer> request(Envelope envelope, long timeoutUs) {
        Template template = envelope.template;
        Prefix prefix =
                new Prefix(
                        Kind.REQUEST.number(),
                        0,
                        0,
                        envelope.firstId(),
                        timeoutUs,
                        envelope.count(),
                        template.header.length,
                        envelope.extra.length,
                        Layout.INLINE_LIMIT,
                        0,
                        0);
        int[] rows = template.rowsOf(envelope.count());
        List<ByteBuffer> frames =
                MessageWriter.write(
                        prefix, template.header, envelope.extra, template.layout, rows, envelope);
        envelope.releaseInputs();
        return frames;
    }

    /** Give a call up: the CANCEL to send, null if it was over, or never sent. */
    ByteBuffer cancel(Call call, Failure failure) {
        Envelope envelope = call.envelope;
        int index = envelope == null ? -1 : envelope.indexOf(call);
        if (index < 0) {
            return null;
        }
        if (envelope.number() == 0) {
            envelope.remove(index);
        } else {
            pending.take(envelope, index);
        }
        call.fail(failure);
        return envelope.isSent()
                ? MessageWriter.write(
                        Prefix.control(Kind.CANCEL, envelope.firstId() + index, 1, 0, 0), NOTHING)
                : null;
    }

    // ---------------------------------------------------------------- failures

    /** Fail the calls whose deadline has passed; whether there were any. */
    boolean expire(long now) {
        boolean any = false;
        for (Envelope late = pending.expired(now); late != null; late = pending.expired(now)) {
            pending.fail(late, tooLate(late));
            any = true;
        }
        return any;
    }

    private Failure tooLate(Envelope envelope) {
        String waited = "no answer from " + address + " within " + envelope.timeout / 1e9 + " s";
        return down == null
                ? Failure.of(StatusCode.DEADLINE_EXCEEDED, waited)
                : Failure.of(
                        StatusCode.UNAVAILABLE, down + "; " + waited + "; is the server running?");
    }

    boolean isConnected() {
        return down == null;
    }

    void connected() {
        down = null;
    }

    /** What was sent and waits for its answer will not get it. */
    void disconnected() {
        down = "the connection to " + address + " was lost";
        Failure failure =
                Failure.of(StatusCode.UNAVAILABLE, down + " while the call was in flight");
        for (Envelope envelope : pending.all()) {
            if (envelope.isSent()) {
                pending.fail(envelope, failure);
            }
        }
    }

    /** An attempt to connect came to nothing. */
    void retried() {
        if (down != null) {
            down = "cannot connect to " + address;
        }
    }

    void failAll(Failure failure) {
        for (Envelope envelope : opened) {
            pending.fail(envelope, failure);
        }
        opened = new ArrayList<>();
        for (Envelope envelope : pending.all()) {
            pending.fail(envelope, failure);
        }
    }
}
