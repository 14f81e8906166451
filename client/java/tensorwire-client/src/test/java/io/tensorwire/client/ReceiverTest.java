package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.tensorwire.client.wire.Messages;
import io.tensorwire.client.wire.Prefix;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** The shared malformed replies, as they arrive. */
class ReceiverTest {
    private static final int ID_AT = 8;

    private final List<Failure> failures = new ArrayList<>();
    private final Pending pending = new Pending();
    private final Receiver receiver = new Receiver("tcp://server", pending);

    private final class Failing extends Call {
        Failing() {
            super(NO_TIMEOUT, 0);
        }

        @Override
        void run(Engine engine) {
            throw new UnsupportedOperationException();
        }

        @Override
        void reply(Map<String, Tensor> outputs) {
            throw new AssertionError("a malformed reply was read as " + outputs);
        }

        @Override
        void controlReply(Object result) {
            throw new AssertionError("a malformed reply was read as " + result);
        }

        @Override
        void fail(Failure failure) {
            failures.add(failure);
        }
    }

    static Stream<List<ByteBuffer>> malformed() {
        return Messages.malformedReplies();
    }

    private Envelope envelope(int count) {
        Envelope envelope = new Envelope(null, new byte[0], new Failing());
        while (envelope.count() < count) {
            envelope.add(new Failing());
        }
        pending.add(envelope);
        return envelope;
    }

    @ParameterizedTest
    @MethodSource
    void malformed(List<ByteBuffer> frames) {
        ByteBuffer head = frames.get(0);
        int count = Prefix.answerable(head).map(Prefix.Ids::count).orElse(0);
        Envelope theirs = envelope(Math.max(1, count));
        envelope(1); // of others
        if (count > 0) {
            head.putLong(ID_AT, theirs.firstId());
        }
        receiver.receive(head, frames.subList(1, frames.size()));
        assertEquals(1, receiver.stray());
        assertEquals(count, failures.size());
        assertTrue(
                failures.stream().allMatch(each -> each.code() == StatusCode.UNKNOWN.number()),
                failures.toString());
        assertEquals(count > 0 ? 1 : 2, pending.size());
    }
}
