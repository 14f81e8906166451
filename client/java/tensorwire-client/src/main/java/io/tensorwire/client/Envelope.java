package io.tensorwire.client;

import io.tensorwire.client.wire.MessageWriter;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The calls of one message, from when the first one is there until all are answered. I/O thread
 * only.
 */
final class Envelope implements MessageWriter.Payloads {
    /** Ids of one message are consecutive; its number stands above these bits. */
    static final int ID_BITS = 16;

    /** Calls of one message share a deadline, so they begin within so many nanoseconds. */
    private static final long APART = 1_000_000;

    /** And within this part of their timeout: a 64th. */
    private static final int APART_SHIFT = 6;

    /** Null for a control call. */
    final Template template;

    final byte[] extra;
    final long timeout;

    /** When the first call was made. */
    private final long begun;

    /** That of the call which began first; {@link Call#NO_TIMEOUT}: never. */
    private long deadline;

    /** In the order of their ids; null for those that are over. */
    private final List<Call> calls = new ArrayList<>(1);

    /** Upper part of the ids; 0 until it is pending. */
    private long number;

    private int open;
    private boolean sent;

    Envelope(Template template, byte[] extra, Call first) {
        this.template = template;
        this.extra = extra;
        this.timeout = first.timeout;
        this.begun = first.begun;
        this.deadline = first.deadline();
        add(first);
    }

    void add(Call call) {
        calls.add(call);
        deadline = Math.min(deadline, call.deadline());
        call.envelope = this;
        open++;
    }

    long deadline() {
        return deadline;
    }

    void begin(long ownNumber) {
        number = ownNumber;
    }

    long number() {
        return number;
    }

    long firstId() {
        return number << ID_BITS;
    }

    int count() {
        return calls.size();
    }

    /** How many calls wait. */
    int open() {
        return open;
    }

    boolean isSent() {
        return sent;
    }

    void markSent() {
        sent = true;
    }

    Call call(int index) {
        return calls.get(index);
    }

    int indexOf(Call call) {
        return calls.indexOf(call);
    }

    /** Take a call out that has no id yet. */
    void remove(int index) {
        calls.remove(index);
        open--;
    }

    /** Take a call out that is over now; null if it was before. */
    Call take(int index) {
        Call call = calls.set(index, null);
        open -= call == null ? 0 : 1;
        return call;
    }

    /** Whether calls that are like those here may join them. */
    boolean takes(PredictCall call, int maxCalls, long maxBytes) {
        return timeout == call.timeout
                && Math.abs(call.begun - begun) <= Math.min(APART, timeout >> APART_SHIFT)
                && calls.size() < maxCalls
                && calls.size() * template.nbytes < maxBytes
                && (extra == call.extra || Arrays.equals(extra, call.extra));
    }

    @Override
    public int pieces() {
        return calls.size();
    }

    @Override
    public ByteBuffer piece(int tensor, int piece) {
        return ((PredictCall) calls.get(piece)).inputs[tensor];
    }

    /** The message has been written: large tensors are kept by it, small ones were copied. */
    void releaseInputs() {
        for (Call call : calls) {
            ((PredictCall) call).inputs = null;
        }
    }
}
