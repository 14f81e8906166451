package io.tensorwire.client;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;

/** Reaches into a client: holds its I/O thread, so that what is called meanwhile gathers. */
final class Engines {
    private Engines() {}

    static void pause(TensorwireClient client, Runnable meanwhile) {
        CountDownLatch entered = new CountDownLatch(1);
        CountDownLatch held = new CountDownLatch(1);
        client.engine()
                .submit(
                        new Task() {
                            @Override
                            void run(Engine engine) {
                                entered.countDown();
                                await(held);
                            }
                        });
        // What is called from now on is taken out of the inbox at once, behind this task.
        await(entered);
        meanwhile.run();
        held.countDown();
    }

    /** How many messages wait in the client, after all that was handed over before. */
    static int held(TensorwireClient client) {
        int held = 0;
        for (int turn = 0; turn < 2; turn++) { // the first one is taken before anything is sent
            CompletableFuture<Integer> found = new CompletableFuture<>();
            client.engine()
                    .submit(
                            new Task() {
                                @Override
                                void run(Engine engine) {
                                    found.complete(engine.held());
                                }
                            });
            held = found.join();
        }
        return held;
    }

    /** Hands over a task that throws. */
    static void fail(TensorwireClient client) {
        client.engine()
                .submit(
                        new Task() {
                            @Override
                            void run(Engine engine) {
                                throw new IllegalStateException("expected by a test");
                            }
                        });
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }
}
