package io.tensorwire.client;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.zeromq.ZMQ;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.function.LongSupplier;

/**
 * The one thread that owns the socket: takes calls from the inbox, sends, receives, and watches
 * deadlines.
 */
final class Engine {
    private static final Logger LOG = LoggerFactory.getLogger(Engine.class);

    /** However much arrives: calls that wait to be sent, and timeouts, have their turn. */
    private static final int MESSAGES_A_TURN = 64;

    private static final long NANOS_PER_MS = 1_000_000;

    private final ClientOptions options;
    private final LongSupplier clock;
    private final Link link;
    private final Inbox inbox;
    private final Channel channel;
    private final Receiver receiver;
    private final Callbacks callbacks;
    private final Thread thread;

    /** What waits for a connection, or for room in it. */
    private final Queue<Outgoing> held = new ArrayDeque<>();

    private boolean closing;
    private volatile Failure ended;

    /** {@code clock}: nanoseconds of any origin, in the manner of {@link System#nanoTime}. */
    Engine(ClientOptions options, LongSupplier clock, Callbacks callbacks) {
        this.options = options;
        this.clock = clock;
        this.callbacks = callbacks;
        this.link = new Link();
        this.inbox = new Inbox(link::wake);
        this.channel = new Channel(options.address(), options.fuse());
        this.receiver = new Receiver(options.address(), channel.pending());
        this.thread = new Thread(this::work, "tensorwire-client");
        this.thread.setDaemon(true);
    }

    /** Connects, and starts the thread. */
    void start() {
        try {
            link.connect(options);
        } catch (RuntimeException error) {
            link.close();
            throw error;
        }
        thread.start();
    }

    /** How many messages are held; I/O thread only. */
    int held() {
        return held.size();
    }

    Channel channel() {
        return channel;
    }

    /** Hand a task over; false if nobody takes it: the client has {@link #ended}. Any thread. */
    boolean submit(Task task) {
        return inbox.add(task);
    }

    /** Why no more tasks are taken, once that is so. Any thread. */
    Failure ended() {
        return ended;
    }

    /** Whether the caller is the I/O thread, which must not wait for itself. */
    boolean isOwnThread() {
        return thread == Thread.currentThread();
    }

    /**
     * Fail what is pending, and end the thread; waits for that unless it is that thread that asks.
     */
    void close() {
        submit(
                new Task() {
                    @Override
                    void run(Engine engine) {
                        engine.closing = true;
                    }
                });
        boolean interrupted = false;
        while (!isOwnThread() && thread.isAlive()) {
            try {
                thread.join();
            } catch (InterruptedException error) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Give a call up, as soon as the I/O thread comes to it. */
    void cancel(Call call) {
        submit(
                new Task() {
                    @Override
                    void run(Engine engine) {
                        ByteBuffer message =
                                channel.cancel(
                                        call,
                                        Failure.of(StatusCode.CANCELLED, "the call was cancelled"));
                        if (message != null) {
                            link.send(List.of(message));
                        }
                        held.removeIf(each -> each.envelope().open() == 0);
                    }
                });
    }

    // ---------------------------------------------------------------- the thread

    private void work() {
        Failure why = closed();
        try {
            while (!closing) {
                turn();
            }
        } catch (RuntimeException | Error error) {
            LOG.error("the I/O thread of the client of {} failed", options.address(), error);
            why = Failure.of(StatusCode.INTERNAL, "the client's I/O thread failed: " + error);
        } finally {
            shutDown(why);
        }
    }

    private void turn() {
        link.observe(this::connectionChanged);
        inbox.drain(this::run);
        flush();
        // Also after every send, which can swallow the sign that something has arrived.
        boolean more = link.receive(MESSAGES_A_TURN, receiver::receive);
        long now = clock.getAsLong();
        // Receiving is what tells that there is room again: no sleep without a try.
        sendHeld(now);
        if (channel.expire(now)) {
            held.removeIf(message -> message.envelope().open() == 0);
        }
        callbacks.flush();
        if (!more && !closing) {
            sleep();
        }
    }

    private void run(Task task) {
        try {
            task.run(this);
        } catch (RuntimeException | Error error) {
            // One call's trouble; those behind it are still to be taken.
            LOG.error("a call of the client of {} failed", options.address(), error);
            task.abandon(Failure.of(StatusCode.INTERNAL, "the call failed: " + error));
        }
    }

    private void flush() {
        long now = clock.getAsLong();
        sendHeld(now);
        for (Outgoing message : channel.flush(now)) {
            send(message);
        }
    }

    private void sendHeld(long now) {
        while (!held.isEmpty() && channel.isConnected()) {
            Outgoing oldest = held.peek();
            if (oldest.envelope().open() > 0) {
                oldest.refresh(now);
                if (!isSent(oldest)) {
                    return;
                }
            }
            held.remove();
        }
    }

    private void send(Outgoing message) {
        // What is held goes first, or those behind it would take its room for ever.
        if (!held.isEmpty() || !isSent(message)) {
            held.add(message);
        }
    }

    private boolean isSent(Outgoing message) {
        boolean sent = channel.isConnected() && link.send(message.frames());
        if (sent) {
            message.envelope().markSent();
        }
        return sent;
    }

    private void sleep() {
        long deadline = channel.pending().nextDeadline();
        long left = deadline == Call.NO_TIMEOUT ? 0 : deadline - clock.getAsLong();
        if (deadline != Call.NO_TIMEOUT && left <= 0) {
            return;
        }
        if (inbox.park()) {
            link.sleep((left + NANOS_PER_MS - 1) / NANOS_PER_MS);
        }
    }

    private void connectionChanged(int event) {
        if (event == ZMQ.EVENT_HANDSHAKE_PROTOCOL) {
            LOG.debug("connected to {}", options.address());
            channel.connected();
        } else if (event == ZMQ.EVENT_DISCONNECTED) {
            LOG.debug("the connection to {} was lost", options.address());
            // A server that stops answers what is in flight and closes: both may be here to be
            // read.
            while (link.receive(MESSAGES_A_TURN, receiver::receive)) {
                LOG.trace("reading what had come before");
            }
            channel.disconnected();
        } else {
            channel.retried();
        }
    }

    private void shutDown(Failure why) {
        // Before the inbox is closed: whom it turns away asks for it.
        ended = why;
        lastly(() -> inbox.close(task -> task.abandon(why)));
        lastly(() -> channel.failAll(why));
        lastly(callbacks::close);
        lastly(link::close);
    }

    /** A step of the end, which must not keep the next one from being taken. */
    private void lastly(Runnable step) {
        try {
            step.run();
        } catch (RuntimeException | Error error) {
            LOG.error("the client of {} did not end in order", options.address(), error);
        }
    }

    private static Failure closed() {
        return Failure.of(StatusCode.UNAVAILABLE, "the client was closed");
    }
}
