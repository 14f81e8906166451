package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;

/** Calls and messages without a thread, a socket or a clock. */
class ChannelTest {
    private static final long SECOND = 1_000_000_000L;

    private final Channel channel = new Channel("tcp://server", true);
    private final Template template =
            new Template(
                    "m",
                    PredictOptions.DEFAULT,
                    new String[] {"x"},
                    new Tensor[] {Tensor.of(new float[] {1})});

    /** What became of a call. */
    private static final class Outcome implements Completion<Map<String, Tensor>> {
        private Failure failure;

        @Override
        public void succeed(Map<String, Tensor> result) {
            throw new AssertionError("nothing answers here");
        }

        @Override
        public void fail(Failure why) {
            failure = why;
        }
    }

    private PredictCall call(String routingKey, ByteBuffer input, long begun, Outcome outcome) {
        byte[] extra = PredictOptions.DEFAULT.withRoutingKey(routingKey).extra();
        ByteBuffer[] inputs = {input};
        return new PredictCall(template, inputs, extra, SECOND, begun, outcome);
    }

    private static ByteBuffer input() {
        return Tensor.of(new float[] {1}).payload();
    }

    @Test
    void aCallThatCannotBeWrittenFailsAloneAndThoseBehindItAreSent() {
        Outcome bad = new Outcome();
        Outcome good = new Outcome();
        PredictCall behind = call("b", input(), 0, good);
        channel.add(call("a", null, 0, bad));
        channel.add(behind);
        List<Outgoing> messages = channel.flush(0);
        assertEquals(1, messages.size());
        assertSame(behind.envelope, messages.get(0).envelope());
        assertEquals(StatusCode.INTERNAL.number(), bad.failure.code());
        assertTrue(bad.failure.description().contains("cannot be written"), bad.failure.toString());
        channel.failAll(Failure.of(StatusCode.UNAVAILABLE, "over"));
        assertEquals("over", good.failure.description());
    }

    @Test
    void callsOfOneMessageBeganTogetherAndShareTheEarliestDeadline() {
        long apart = 1_000_000;
        channel.add(call("a", input(), apart, new Outcome()));
        channel.add(call("a", input(), 0, new Outcome()));
        channel.add(call("a", input(), 2 * apart, new Outcome()));
        channel.add(call("a", input(), 3 * apart + 1, new Outcome()));
        List<Outgoing> messages = channel.flush(0);
        assertEquals(
                List.of(3, 1), messages.stream().map(each -> each.envelope().count()).toList());
        assertEquals(SECOND, messages.get(0).envelope().deadline());
        assertEquals(SECOND + 3 * apart + 1, messages.get(1).envelope().deadline());
    }

    @Test
    void aCallerDoesNotWaitForEverForAnIoThread() {
        RpcException error =
                assertThrows(
                        RpcException.class,
                        () -> new Waiter<>().await(1, () -> channel.connected()));
        assertEquals(StatusCode.DEADLINE_EXCEEDED, error.status());
        assertTrue(channel.isConnected()); // what it does when it gives up
    }
}
