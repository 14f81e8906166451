package io.tensorwire.client;

/** Something for the I/O thread to do; a link of the {@link Inbox} that it waits in. */
abstract class Task {
    /** The one that was added before; of the inbox alone. */
    Task next;

    /** Called by the I/O thread. */
    abstract void run(Engine engine);

    /** Called instead, by the I/O thread, when the client was closed or {@link #run} failed. */
    void abandon(Failure why) {}
}
