package io.tensorwire.client.wire;

import io.tensorwire.client.RpcException;

import java.nio.ByteBuffer;
import java.util.Optional;

/**
 * The 48 bytes that every head frame begins with. 32-bit fields that need all their bits are longs;
 * {@code id} and {@code timeoutUs} are unsigned.
 *
 * @param kind what the message is; a number, for there may be more kinds than {@link Kind} knows
 * @param flags ignored
 * @param status of an ERROR
 * @param id of the first request
 * @param timeoutUs microseconds that remain; 0: no limit
 * @param count of requests
 * @param headerLen bytes of the header
 * @param extraLen bytes of the extra
 * @param inlineLimit tensors of more bytes have frames of their own
 * @param queueUs microseconds in the server's queue
 * @param computeUs microseconds in the model
 */
public record Prefix(
        int kind,
        int flags,
        int status,
        long id,
        long timeoutUs,
        int count,
        int headerLen,
        int extraLen,
        long inlineLimit,
        long queueUs,
        long computeUs) {
    /** Bytes of a prefix. */
    public static final int SIZE = 48;

    /** The protocol version. */
    public static final int VERSION = 1;

    /** The most requests in a message. */
    public static final int MAX_COUNT = 65_536;

    /** The most bytes of a header of a REQUEST or REPLY, and of an extra. */
    public static final int MAX_HEADER = 65_536;

    /** The most tensors in a message. */
    public static final int MAX_TENSORS = 256;

    /** The largest value of 32 bits. */
    public static final long MAX_U32 = 0xffff_ffffL;

    /** Inline tensors begin at multiples of this. */
    static final int ALIGNMENT = 16;

    /** "TWIR", little-endian. */
    private static final int MAGIC = 0x5249_5754;

    private static final int VERSION_AT = 4;
    private static final int ID_AT = 8;

    /** A frame of this size has an id. */
    private static final int ANSWERABLE_SIZE = 16;

    private static final int COUNT_AT = 24;

    /**
     * The requests that a message is about.
     *
     * @param first id of the first
     * @param count how many
     */
    public record Ids(long first, int count) {}

    /**
     * The prefix of a message that has a head frame alone.
     *
     * @param kind what it is
     * @param id of its request
     * @param count of requests
     * @param headerLen bytes of what stands in the header's place
     * @param timeoutUs of a CONTROL
     * @return the prefix
     */
    public static Prefix control(Kind kind, long id, int count, int headerLen, long timeoutUs) {
        return new Prefix(kind.number(), 0, 0, id, timeoutUs, count, headerLen, 0, 0, 0, 0);
    }

    /**
     * The validated prefix of a head frame.
     *
     * @param head little-endian
     * @return the prefix
     * @throws RpcException another protocol version; too short, wrong magic, or lengths over the
     *     limits or the frame
     */
    public static Prefix read(ByteBuffer head) {
        if (head.limit() < SIZE) {
            throw new ProtocolException(
                    "head frame has " + head.limit() + " bytes; a prefix alone has " + SIZE);
        }
        if (head.getInt(0) != MAGIC) {
            throw new ProtocolException(
                    String.format(
                            "magic is %08x, expected %08x (little-endian)", head.getInt(0), MAGIC));
        }
        if (head.get(VERSION_AT) != VERSION) {
            throw ProtocolException.otherVersion(Byte.toUnsignedInt(head.get(VERSION_AT)));
        }
        int kind = Byte.toUnsignedInt(head.get(5));
        long count = u32(head, COUNT_AT);
        long headerLen = u32(head, 28);
        long extraLen = u32(head, 32);
        checkLengths(head, kind, headerLen, extraLen);
        long id = head.getLong(ID_AT);
        checkIds(id, count);
        return new Prefix(
                kind,
                Byte.toUnsignedInt(head.get(6)),
                Byte.toUnsignedInt(head.get(7)),
                id,
                head.getLong(16),
                (int) count,
                (int) headerLen,
                (int) extraLen,
                u32(head, 36),
                u32(head, 40),
                u32(head, 44));
    }

    /**
     * The requests of a head frame that may be malformed otherwise.
     *
     * @param head little-endian
     * @return nothing if there is no id to find a call by; one request if its count cannot be right
     */
    public static Optional<Ids> answerable(ByteBuffer head) {
        if (head.limit() < ANSWERABLE_SIZE || head.getInt(0) != MAGIC) {
            return Optional.empty();
        }
        long first = head.getLong(ID_AT);
        if (head.limit() >= SIZE && head.get(VERSION_AT) == VERSION) {
            long count = u32(head, COUNT_AT);
            if (count >= 1 && count <= MAX_COUNT && !exceedsIds(first, count)) {
                return Optional.of(new Ids(first, (int) count));
            }
        }
        return Optional.of(new Ids(first, 1));
    }

    /**
     * Write the 48 bytes.
     *
     * @param head little-endian; written from its beginning on, its position stays
     */
    public void write(ByteBuffer head) {
        head.putInt(0, MAGIC);
        head.put(VERSION_AT, (byte) VERSION);
        head.put(5, (byte) kind);
        head.put(6, (byte) flags);
        head.put(7, (byte) status);
        head.putLong(ID_AT, id);
        head.putLong(16, timeoutUs);
        head.putInt(COUNT_AT, count);
        head.putInt(28, headerLen);
        head.putInt(32, extraLen);
        head.putInt(36, (int) inlineLimit);
        head.putInt(40, (int) Math.min(queueUs, MAX_U32));
        head.putInt(44, (int) Math.min(computeUs, MAX_U32));
    }

    /**
     * Whether the message is of a kind.
     *
     * @param other a kind
     * @return whether it is
     */
    public boolean is(Kind other) {
        return kind == other.number();
    }

    /** Where the row counts begin, or the frame ends. */
    int bodyEnd() {
        return SIZE + headerLen + extraLen;
    }

    /** The next multiple of the alignment. */
    static long aligned(long offset) {
        return (offset + ALIGNMENT - 1) & -ALIGNMENT;
    }

    private static void checkLengths(ByteBuffer head, int kind, long headerLen, long extraLen) {
        // The body of a control call or result stands in the header's place, and may be longer.
        boolean interned = kind == Kind.REQUEST.number() || kind == Kind.REPLY.number();
        if (interned && headerLen > MAX_HEADER || extraLen > MAX_HEADER) {
            throw new ProtocolException(
                    "header of "
                            + headerLen
                            + " and extra of "
                            + extraLen
                            + " bytes; at most "
                            + MAX_HEADER
                            + " each");
        }
        if (SIZE + headerLen + extraLen > head.limit()) {
            throw new ProtocolException(
                    "header and extra of "
                            + headerLen
                            + " + "
                            + extraLen
                            + " bytes do not fit into a head frame of "
                            + head.limit());
        }
    }

    private static void checkIds(long id, long count) {
        if (count < 1 || count > MAX_COUNT) {
            throw new ProtocolException("count is " + count + ", expected 1 to " + MAX_COUNT);
        }
        if (exceedsIds(id, count)) {
            throw new ProtocolException(
                    count
                            + " requests from id "
                            + Long.toUnsignedString(id)
                            + " on exceed the largest id");
        }
    }

    private static boolean exceedsIds(long id, long count) {
        return Long.compareUnsigned(id + count - 1, id) < 0;
    }

    private static long u32(ByteBuffer head, int at) {
        return Integer.toUnsignedLong(head.getInt(at));
    }
}
