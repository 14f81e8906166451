package io.tensorwire.client;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Threads that each make so many calls, and see that every answer is that to their own question.
 */
final class Callers {
    private final int threads;
    private final int calls;
    private final AtomicLong answers = new AtomicLong();
    private final ConcurrentLinkedQueue<String> failures = new ConcurrentLinkedQueue<>();

    Callers(int threads, int calls) {
        this.threads = threads;
        this.calls = calls;
    }

    void run(TensorwireClient client, String model) throws InterruptedException {
        Thread[] running = new Thread[threads];
        Arrays.setAll(
                running,
                number -> new Thread(() -> call(client, model, number), "caller-" + number));
        for (Thread thread : running) {
            thread.start();
        }
        for (Thread thread : running) {
            thread.join();
        }
    }

    private void call(TensorwireClient client, String model, int number) {
        for (int call = 0; call < calls; call++) {
            float[] question = {number, call, number + call, -call};
            try {
                float[] answer =
                        client.predict(model, Map.of("x", Tensor.of(question, 1, 4)))
                                .get("y")
                                .floats();
                if (Arrays.equals(question, answer)) {
                    answers.incrementAndGet();
                } else {
                    failures.add(
                            Arrays.toString(question)
                                    + " was answered with "
                                    + Arrays.toString(answer));
                }
            } catch (RpcException error) {
                failures.add(error.getMessage());
            }
        }
    }

    long answers() {
        return answers.get();
    }

    List<String> failures() {
        return List.copyOf(failures);
    }
}
