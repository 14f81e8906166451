package io.tensorwire.client;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;

/** The envelopes that wait for answers, by number and by deadline. I/O thread only. */
final class Pending {
    private static final int FEW = 1024;

    private final Map<Long, Envelope> envelopes = new HashMap<>();

    /** Answered envelopes leave theirs behind for a while. */
    private final PriorityQueue<Envelope> deadlines =
            new PriorityQueue<>(Comparator.comparingLong(Envelope::deadline));

    private long lastNumber;

    void add(Envelope envelope) {
        envelope.begin(++lastNumber);
        envelopes.put(envelope.number(), envelope);
        if (envelope.deadline() != Call.NO_TIMEOUT) {
            deadlines.add(envelope);
            if (deadlines.size() > FEW && deadlines.size() > 4 * envelopes.size()) {
                deadlines.removeIf(each -> each.open() == 0);
            }
        }
    }

    /** The envelope that so many ids belong to; null if there is none. */
    Envelope find(long firstId, int count) {
        Envelope envelope = envelopes.get(firstId >>> Envelope.ID_BITS);
        return envelope != null && indexOf(firstId) + count <= envelope.count() ? envelope : null;
    }

    static int indexOf(long id) {
        return (int) (id & ((1 << Envelope.ID_BITS) - 1));
    }

    /**
     * Take a call out of its envelope, and that from here if it was the last; null if it was over
     * before.
     */
    Call take(Envelope envelope, int index) {
        Call call = envelope.take(index);
        if (envelope.open() == 0) {
            envelopes.remove(envelope.number());
        }
        return call;
    }

    /** Fail all calls of an envelope. */
    void fail(Envelope envelope, Failure failure) {
        for (int index = 0; index < envelope.count(); index++) {
            Call call = take(envelope, index);
            if (call != null) {
                call.fail(failure);
            }
        }
    }

    /** When {@link #expired} has something to give; {@link Call#NO_TIMEOUT}: never. */
    long nextDeadline() {
        while (!deadlines.isEmpty() && deadlines.peek().open() == 0) {
            deadlines.remove();
        }
        return deadlines.isEmpty() ? Call.NO_TIMEOUT : deadlines.peek().deadline();
    }

    /**
     * An envelope whose deadline has passed, which is still to be failed; null if there is none.
     */
    Envelope expired(long now) {
        return nextDeadline() != Call.NO_TIMEOUT && nextDeadline() <= now
                ? deadlines.remove()
                : null;
    }

    /** All of them, which are still to be failed. */
    List<Envelope> all() {
        return new ArrayList<>(envelopes.values());
    }

    int size() {
        return envelopes.size();
    }
}
