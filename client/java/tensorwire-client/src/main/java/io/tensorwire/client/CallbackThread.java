package io.tensorwire.client;

import java.util.concurrent.Executor;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * The thread that completes futures where the user named none: there when it is needed, gone when
 * it is idle.
 */
final class CallbackThread {
    private static final long IDLE_SECONDS = 10;

    private CallbackThread() {}

    static Executor newExecutor() {
        ThreadPoolExecutor executor =
                new ThreadPoolExecutor(
                        1,
                        1,
                        IDLE_SECONDS,
                        TimeUnit.SECONDS,
                        new LinkedBlockingQueue<>(),
                        CallbackThread::newThread);
        executor.allowCoreThreadTimeOut(true);
        return executor;
    }

    private static Thread newThread(Runnable work) {
        Thread thread = new Thread(work, "tensorwire-callbacks");
        thread.setDaemon(true);
        return thread;
    }
}
