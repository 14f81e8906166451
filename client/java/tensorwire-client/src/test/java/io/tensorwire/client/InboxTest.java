package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

class InboxTest {
    private final AtomicInteger wakes = new AtomicInteger();
    private final Inbox inbox = new Inbox(wakes::incrementAndGet);

    private static final class Numbered extends Task {
        private final int producer;
        private final int number;

        Numbered(int producer, int number) {
            this.producer = producer;
            this.number = number;
        }

        @Override
        void run(Engine engine) {
            throw new UnsupportedOperationException();
        }
    }

    private List<Integer> drained() {
        List<Integer> numbers = new ArrayList<>();
        inbox.drain(task -> numbers.add(((Numbered) task).number));
        return numbers;
    }

    @Test
    void givesWhatWasAddedInOrder() {
        for (int number = 0; number < 3; number++) {
            assertTrue(inbox.add(new Numbered(0, number)));
        }
        assertEquals(List.of(0, 1, 2), drained());
        assertEquals(List.of(), drained());
        assertEquals(0, wakes.get());
    }

    @Test
    void onlyTheFirstOneWakesASleeper() {
        assertTrue(inbox.park());
        inbox.add(new Numbered(0, 1));
        inbox.add(new Numbered(0, 2));
        assertEquals(1, wakes.get());
        assertFalse(inbox.park()); // there is something to do
        assertEquals(List.of(1, 2), drained());
        assertTrue(inbox.park());
        assertEquals(List.of(), drained()); // woken by something else
        inbox.add(new Numbered(0, 3));
        assertEquals(1, wakes.get());
    }

    @Test
    void takesNothingOnceItIsClosed() {
        inbox.add(new Numbered(0, 1));
        List<Integer> left = new ArrayList<>();
        inbox.close(task -> left.add(((Numbered) task).number));
        assertEquals(List.of(1), left);
        assertFalse(inbox.add(new Numbered(0, 2)));
    }

    @Test
    void losesNothingAndKeepsEachProducersOrder() throws InterruptedException {
        int producers = 4;
        int each = 20_000;
        List<Thread> threads = new ArrayList<>();
        for (int producer = 0; producer < producers; producer++) {
            int own = producer;
            threads.add(
                    new Thread(
                            () -> {
                                for (int number = 0; number < each; number++) {
                                    inbox.add(new Numbered(own, number));
                                }
                            }));
        }
        threads.forEach(Thread::start);
        int[] next = new int[producers];
        int total = 0;
        while (total < producers * each) {
            int[] taken = {0};
            inbox.drain(
                    task -> {
                        Numbered numbered = (Numbered) task;
                        assertEquals(next[numbered.producer]++, numbered.number);
                        taken[0]++;
                    });
            total += taken[0];
            Thread.yield();
        }
        for (Thread thread : threads) {
            thread.join();
        }
    }
}
