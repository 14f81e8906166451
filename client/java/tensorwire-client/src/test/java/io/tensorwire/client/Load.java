package io.tensorwire.client;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/** Threads that call a model, which multiplies, until they are told to stop. */
final class Load implements AutoCloseable {
    /** A call that failed: why, and how long it took. */
    record Failed(RpcException error, long nanos) {}

    private static final long LOOK_NANOS = 1_000_000;

    private final TensorwireClient client;
    private final String model;
    private final List<Thread> threads = new ArrayList<>();
    private final ConcurrentLinkedQueue<String> wrong = new ConcurrentLinkedQueue<>();
    private final ConcurrentLinkedQueue<Failed> failed = new ConcurrentLinkedQueue<>();
    private final AtomicLong answers = new AtomicLong();
    private volatile float lastFactor;
    private volatile boolean stopped;

    Load(TensorwireClient client, String model, int count) {
        this.client = client;
        this.model = model;
        for (int number = 0; number < count; number++) {
            float own = number + 1;
            Thread thread = new Thread(() -> call(own), "load-" + number);
            thread.start();
            threads.add(thread);
        }
    }

    private void call(float own) {
        for (float step = 1; !stopped; step++) {
            long begun = System.nanoTime();
            float[] question = {own, own * step, step, 1};
            try {
                float[] answer =
                        client.predict(model, Map.of("x", Tensor.of(question, 1, 4)))
                                .get("y")
                                .floats();
                check(question, answer);
                answers.incrementAndGet();
            } catch (RpcException error) {
                failed.add(new Failed(error, System.nanoTime() - begun));
            }
        }
    }

    private void check(float[] question, float[] answer) {
        float factor = answer[3];
        lastFactor = factor;
        for (int index = 0; index < question.length; index++) {
            if (answer[index] != question[index] * factor) {
                wrong.add(question[index] + " was answered with " + answer[index]);
            }
        }
    }

    /** Wait for so many more answers. */
    void awaitAnswers(long count) {
        long wanted = answers.get() + count;
        while (answers.get() < wanted) {
            look();
        }
    }

    void awaitFactor(float factor) {
        while (lastFactor != factor) {
            look();
        }
    }

    /** Wait for so many failed calls. */
    void awaitFailures(int count) {
        while (failed.size() < count) {
            look();
        }
    }

    /** A test whose time is over is interrupted, which parking alone would not notice. */
    private static void look() {
        if (Thread.interrupted()) {
            throw new IllegalStateException("the test was interrupted");
        }
        LockSupport.parkNanos(LOOK_NANOS);
    }

    List<Failed> failed() {
        return List.copyOf(failed);
    }

    /** Everything that went wrong. */
    List<String> failures() {
        List<String> all = new ArrayList<>(wrong);
        failed.forEach(each -> all.add(each.error().getMessage()));
        return all;
    }

    List<String> wrong() {
        return List.copyOf(wrong);
    }

    void stop() {
        stopped = true;
        for (Thread thread : threads) {
            try {
                thread.join();
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException("the test was interrupted", error);
            }
        }
    }

    @Override
    public void close() {
        stop();
    }
}
