package io.tensorwire.client;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * Completes futures outside of the I/O thread, which what hangs on them could keep.
 *
 * <p>What hangs on one may wait for another, also of the same turn. So an executor of the user's
 * gets each by itself. Threads of the client's own get a turn as a whole, and whoever comes to a
 * future on which something hangs hands on those behind it first: they never wait for user code,
 * and there are only as many threads as user code keeps.
 */
final class Callbacks {
    private static final Logger LOG = LoggerFactory.getLogger(Callbacks.class);

    private final Executor executor;

    /** Null where the executor is the user's. */
    private final ThreadPoolExecutor own;

    private List<Known> known = new ArrayList<>();

    /** What became of a call. */
    private record Known(CallFuture<?> future, Runnable completion) {
        void complete() {
            completion.run();
        }
    }

    /** {@code executor} may be null: threads of the client's own. */
    Callbacks(Executor executor) {
        this.own = executor == null ? CallbackThreads.newPool() : null;
        this.executor = executor == null ? own : executor;
    }

    /** Complete a future with the next {@link #flush}. I/O thread only, as flush. */
    void add(CallFuture<?> future, Runnable completion) {
        known.add(new Known(future, completion));
    }

    void flush() {
        if (known.isEmpty()) {
            return;
        }
        List<Known> ready = known;
        known = new ArrayList<>();
        if (own != null) {
            handOver(ready, 0);
        } else {
            ready.forEach(each -> execute(each::complete, each::complete));
        }
    }

    private void handOver(List<Known> ready, int from) {
        execute(
                () -> complete(ready, from),
                () -> ready.subList(from, ready.size()).forEach(Known::complete));
    }

    private void complete(List<Known> ready, int from) {
        for (int index = from; index < ready.size(); index++) {
            Known each = ready.get(index);
            int behind = index + 1;
            if (behind < ready.size() && each.future().getNumberOfDependents() > 0) {
                handOver(ready, behind);
                each.complete();
                return;
            }
            each.complete();
        }
    }

    private void execute(Runnable work, Runnable otherwise) {
        try {
            executor.execute(work);
        } catch (RuntimeException | Error error) {
            // It may be the user's, and throw anything; the calls are over all the same.
            LOG.warn("the executor of callbacks failed; calls are completed without it", error);
            otherwise.run();
        }
    }

    /** After the last call: threads of the client's own end as soon as they have nothing to do. */
    void close() {
        flush();
        if (own != null) {
            // Not shut down: what is still to be handed on must find a thread.
            own.setKeepAliveTime(0, TimeUnit.SECONDS);
        }
    }
}
