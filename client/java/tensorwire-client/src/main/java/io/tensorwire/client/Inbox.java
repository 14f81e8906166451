package io.tensorwire.client;

import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;

/**
 * What any thread hands to the I/O thread: a lock-free stack of tasks that is taken as a whole and
 * turned round.
 *
 * <p>One word says everything: tasks, or that the I/O thread sleeps, or that nobody takes any more.
 * So adding is one compare-and-set and allocates nothing, and only who finds the I/O thread asleep
 * pays for waking it.
 */
final class Inbox {
    private static final Task PARKED = new Sentinel();
    private static final Task CLOSED = new Sentinel();

    private final AtomicReference<Task> newest = new AtomicReference<>();
    private final Runnable wake;

    /** {@code wake} ends the I/O thread's sleep, or the next one if it is about to begin. */
    Inbox(Runnable wake) {
        this.wake = wake;
    }

    private static final class Sentinel extends Task {
        @Override
        void run(Engine engine) {
            throw new IllegalStateException("a sentinel of the inbox is no task");
        }
    }

    /** Add a task; false if nobody takes it any more. */
    boolean add(Task task) {
        while (true) {
            Task seen = newest.get();
            if (seen == CLOSED) {
                return false;
            }
            task.next = seen == PARKED ? null : seen;
            if (newest.compareAndSet(seen, task)) {
                if (seen == PARKED) {
                    wake.run();
                }
                return true;
            }
        }
    }

    /**
     * Give the tasks to {@code each}, in the order in which they were added. I/O thread only, as
     * all that follows.
     */
    void drain(Consumer<Task> each) {
        if (newest.get() != null) {
            forEach(newest.getAndSet(null), each);
        }
    }

    /**
     * Whether there is nothing to do: until the next drain, who adds something wakes the I/O
     * thread.
     */
    boolean park() {
        return newest.compareAndSet(null, PARKED);
    }

    /** Take no more; {@code each} gets what is still there. */
    void close(Consumer<Task> each) {
        forEach(newest.getAndSet(CLOSED), each);
    }

    private static void forEach(Task last, Consumer<Task> each) {
        Task oldest = null;
        for (Task task = last == PARKED || last == CLOSED ? null : last; task != null; ) {
            Task before = task.next;
            task.next = oldest;
            oldest = task;
            task = before;
        }
        while (oldest != null) {
            Task task = oldest;
            oldest = task.next;
            task.next = null;
            each.accept(task);
        }
    }
}
