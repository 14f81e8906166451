package io.tensorwire.client;

import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * The threads that complete futures where the user named none: as many as are kept by what hangs
 * on them and one more, gone when they are idle.
 */
final class CallbackThreads {
    private static final long IDLE_SECONDS = 10;

    private CallbackThreads() {}

    static ThreadPoolExecutor newPool() {
        return new ThreadPoolExecutor(
                0,
                Integer.MAX_VALUE,
                IDLE_SECONDS,
                TimeUnit.SECONDS,
                new SynchronousQueue<>(),
                CallbackThreads::newThread);
    }

    private static Thread newThread(Runnable work) {
        Thread thread = new Thread(work, "tensorwire-callbacks");
        thread.setDaemon(true);
        return thread;
    }
}
