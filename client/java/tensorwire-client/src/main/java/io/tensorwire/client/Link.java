package io.tensorwire.client;

import org.zeromq.SocketType;
import org.zeromq.ZMQ;
import org.zeromq.ZMQException;

import zmq.Msg;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiConsumer;
import java.util.function.IntConsumer;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The DEALER, and what its owner sleeps at. I/O thread only, but for {@link #wake}.
 *
 * <p>JeroMQ's poller cannot wait for a Java queue. Its sockets say through a channel that something
 * has happened, so a selector of our own waits for that, and {@link Selector#wakeup} is what other
 * threads wake it with: one write to an event descriptor, and none if it has been woken already. A
 * socket of {@code inproc://} would cost messages, and must not be shared by threads; writing to a
 * pipe would close it if the calling thread was interrupted.
 */
final class Link implements AutoCloseable {
    private static final int HEARTBEAT_MS = 5_000;
    private static final int HEARTBEAT_TIMEOUT_MS = 20_000;
    private static final int HANDSHAKE_MS = 5_000;
    private static final int MESSAGES_ON_THEIR_WAY = 1_000;
    private static final Pattern ADDRESS = Pattern.compile("tcp://([A-Za-z0-9._-]+):[0-9]{1,5}");
    private static final String MONITOR = "inproc://tensorwire-monitor";
    private static final int EVENTS =
            ZMQ.EVENT_HANDSHAKE_PROTOCOL | ZMQ.EVENT_DISCONNECTED | ZMQ.EVENT_CONNECT_RETRIED;

    private final Selector selector;
    private final ZMQ.Context context;
    private ZMQ.Socket socket;
    private ZMQ.Socket monitor;

    /** What ended a thread of JeroMQ. */
    private volatile Throwable failure;

    /** Makes nothing but the selector: other threads may wake it before there is a socket. */
    Link() {
        try {
            selector = Selector.open();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        context = ZMQ.context(1);
        context.setUncaughtExceptionHandler(
                (thread, error) -> {
                    failure = error;
                    wake();
                });
    }

    /**
     * Begin to connect.
     *
     * @throws RpcException INVALID_ARGUMENT: it is no address; UNAVAILABLE: its host's name is not
     *     known
     */
    void connect(ClientOptions options) {
        socket = context.socket(SocketType.DEALER);
        socket.setLinger(0);
        // What a peer does not read cannot be taken back from here: what is more waits in the
        // client, where it times out. A send never blocks.
        socket.setSndHWM(MESSAGES_ON_THEIR_WAY);
        socket.setRcvHWM(0);
        // Nothing is queued for a connection that does not stand: what waits for it is ours, and
        // can time out.
        socket.setImmediate(false);
        // Direct memory is scarcer than the heap, and to lack it ends JeroMQ's thread.
        socket.setMsgAllocationHeapThreshold(0);
        socket.setReconnectIVL((int) options.reconnectMin().toMillis());
        socket.setReconnectIVLMax((int) options.reconnectMax().toMillis());
        socket.setHeartbeatIvl(HEARTBEAT_MS);
        socket.setHeartbeatTimeout(HEARTBEAT_TIMEOUT_MS);
        socket.setTCPKeepAlive(1);
        socket.setHandshakeIvl(HANDSHAKE_MS);
        // Before it connects: a monitor that is made later can miss that the connection stands.
        socket.monitor(MONITOR, EVENTS);
        monitor = context.socket(SocketType.PAIR);
        monitor.connect(MONITOR);
        try {
            socket.getFD().register(selector, SelectionKey.OP_READ);
            monitor.getFD().register(selector, SelectionKey.OP_READ);
            socket.connect(options.address());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (IllegalArgumentException | ZMQException error) {
            throw refused(options.address(), error);
        }
    }

    /** A name may be known later, as in a cluster that starts; what is no address never is one. */
    private static RpcException refused(String address, RuntimeException error) {
        Matcher parts = ADDRESS.matcher(address);
        if (parts.matches() && isUnknown(parts.group(1))) {
            return new RpcException(
                    StatusCode.UNAVAILABLE,
                    "cannot connect to '" + address + "': the host's name is not known (yet)");
        }
        return new RpcException(
                StatusCode.INVALID_ARGUMENT,
                "cannot connect to '"
                        + address
                        + "': "
                        + error.getMessage()
                        + "; expected tcp://HOST:PORT");
    }

    private static boolean isUnknown(String host) {
        try {
            InetAddress.getByName(host);
            return false;
        } catch (UnknownHostException error) {
            return true;
        }
    }

    /**
     * Tell what has happened to the connection: events of {@link ZMQ}.
     *
     * @throws IllegalStateException a thread of JeroMQ has ended: nothing will happen any more
     */
    void observe(IntConsumer events) {
        if (failure != null) {
            throw new IllegalStateException("a thread of JeroMQ failed: " + failure, failure);
        }
        for (ZMQ.Event event = ZMQ.Event.recv(monitor, ZMQ.DONTWAIT);
                event != null;
                event = ZMQ.Event.recv(monitor, ZMQ.DONTWAIT)) {
            events.accept(event.getEvent());
        }
    }

    /**
     * Send a message, each frame from 0 to its limit; false if there is no connection to send it
     * through, or too much waits in it.
     */
    boolean send(List<ByteBuffer> frames) {
        int last = frames.size() - 1;
        for (int index = 0; index <= last; index++) {
            int flags = ZMQ.DONTWAIT | (index == last ? 0 : ZMQ.SNDMORE);
            if (!socket.base().send(new Msg(frames.get(index)), flags) && index == 0) {
                return false;
            }
        }
        return true;
    }

    /** Read so many messages at most; whether there may be more. */
    boolean receive(int limit, BiConsumer<ByteBuffer, List<ByteBuffer>> reader) {
        for (int read = 0; read < limit; read++) {
            Msg head = socket.base().recv(ZMQ.DONTWAIT);
            if (head == null) {
                return false;
            }
            List<ByteBuffer> frames =
                    head.hasMore()
                            ? readFrames(() -> socket.base().recv(ZMQ.DONTWAIT))
                            : List.of();
            if (frames != null) {
                reader.accept(bytes(head), frames);
            }
        }
        return true;
    }

    /**
     * The frames behind a head. The parts of a message arrive together, but JeroMQ drops a pipe
     * that is being read when it learns between two of them that the connection is lost: null
     * then, and the rest never comes.
     */
    static List<ByteBuffer> readFrames(Supplier<Msg> next) {
        List<ByteBuffer> frames = new ArrayList<>();
        Msg frame;
        do {
            frame = next.get();
            if (frame == null) {
                return null;
            }
            frames.add(bytes(frame));
        } while (frame.hasMore());
        return frames;
    }

    private static ByteBuffer bytes(Msg frame) {
        return frame.buf().clear().order(ByteOrder.LITTLE_ENDIAN);
    }

    /**
     * Sleep until something happens, {@link #wake} is called or the time is over; 0: there is no
     * such time.
     */
    void sleep(long milliseconds) {
        try {
            selector.select(milliseconds);
            selector.selectedKeys().clear();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** End the sleep, or the next one; any thread. */
    void wake() {
        selector.wakeup();
    }

    @Override
    public void close() {
        if (socket != null) {
            socket.monitor(null, 0);
            socket.close();
        }
        if (monitor != null) {
            monitor.setLinger(0);
            monitor.close();
        }
        if (failure == null) {
            context.term();
        } else {
            // A dead thread closes nothing, and who waits for it waits for ever.
            Thread term = new Thread(context::term, "tensorwire-term");
            term.setDaemon(true);
            term.start();
        }
        try {
            selector.close();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
