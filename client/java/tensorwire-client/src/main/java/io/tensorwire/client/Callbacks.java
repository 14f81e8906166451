package io.tensorwire.client;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;

/**
 * Completes futures outside of the I/O thread, which what hangs on them could keep: one hand-over
 * for all that became known in one turn.
 */
final class Callbacks {
    private static final Logger LOG = LoggerFactory.getLogger(Callbacks.class);

    private final Executor executor;
    private List<Runnable> known = new ArrayList<>();

    Callbacks(Executor executor) {
        this.executor = executor;
    }

    /** Complete something with the next {@link #flush}. I/O thread only, as flush. */
    void add(Runnable completion) {
        known.add(completion);
    }

    void flush() {
        if (known.isEmpty()) {
            return;
        }
        List<Runnable> ready = known;
        known = new ArrayList<>();
        try {
            executor.execute(() -> ready.forEach(Runnable::run));
        } catch (RuntimeException | Error error) {
            // It is the user's, and may throw anything; the calls are over all the same.
            LOG.warn(
                    "the executor of callbacks failed; {} calls are completed by the I/O thread",
                    ready.size(),
                    error);
            ready.forEach(Runnable::run);
        }
    }

    /**
     * After the last flush: an executor of the client's own ends when it has run what it was given.
     */
    void close(boolean owned) {
        flush();
        if (owned && executor instanceof ExecutorService service) {
            service.shutdown();
        }
    }
}
