package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Collectors;

/** That a closed client leaves no threads behind. */
final class Threads {
    private static final long LOOK_NANOS = 1_000_000;
    private static final long PATIENCE = 3_000_000_000L;

    private Threads() {}

    /** Callbacks' threads end when they are idle, and those of ZeroMQ a moment after the client. */
    static void assertNone() {
        long end = System.nanoTime() + PATIENCE;
        while (!found().isEmpty() && System.nanoTime() < end) {
            LockSupport.parkNanos(LOOK_NANOS);
        }
        assertEquals(List.of(), found());
    }

    /** The threads of JeroMQ that do I/O. */
    static Set<Thread> ofJeroMq() {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(thread -> thread.getName().startsWith("iothread-"))
                .collect(Collectors.toSet());
    }

    private static List<String> found() {
        return Thread.getAllStackTraces().keySet().stream()
                .map(Thread::getName)
                .filter(name -> name.matches("(tensorwire|iothread|reaper)-.*"))
                .toList();
    }
}
