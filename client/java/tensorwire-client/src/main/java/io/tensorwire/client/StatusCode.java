package io.tensorwire.client;

/** Why a call failed: gRPC's canonical status codes, with their names and numbers. */
public enum StatusCode {
    /** No error. */
    OK(0),
    /** The call was cancelled. */
    CANCELLED(1),
    /** An error without a code. */
    UNKNOWN(2),
    /** The request can never succeed as it is: wrong name, dtype, shape or option. */
    INVALID_ARGUMENT(3),
    /** The call's timeout passed. */
    DEADLINE_EXCEEDED(4),
    /** No such model, version or label. */
    NOT_FOUND(5),
    /** What should be created is there. */
    ALREADY_EXISTS(6),
    /** Not allowed to this caller. */
    PERMISSION_DENIED(7),
    /** A limit was reached: queue, requests in flight, memory. Worth another try later. */
    RESOURCE_EXHAUSTED(8),
    /** The server is not in the state that this needs. */
    FAILED_PRECONDITION(9),
    /** Given up because of a change at the same time. */
    ABORTED(10),
    /** A value lies outside its range. */
    OUT_OF_RANGE(11),
    /** Another protocol version, or an operation that this server does not know. */
    UNIMPLEMENTED(12),
    /** The model or the server failed. */
    INTERNAL(13),
    /** No server, or one that shuts down or has lost the worker. Worth another try. */
    UNAVAILABLE(14),
    /** Data was lost or is corrupt. */
    DATA_LOSS(15),
    /** The caller is not known. */
    UNAUTHENTICATED(16),
    /**
     * A code that this version of the client does not know; {@link RpcException#code()} has its
     * number.
     */
    UNRECOGNIZED(-1);

    private static final StatusCode[] KNOWN = values();

    private final int number;

    StatusCode(int number) {
        this.number = number;
    }

    /**
     * The status of a number.
     *
     * @param number as on the wire
     * @return {@link #UNRECOGNIZED} if this version does not know it
     */
    public static StatusCode of(int number) {
        // The constants stand in the order of their numbers, from 0 on.
        return number >= 0 && number < UNRECOGNIZED.ordinal() ? KNOWN[number] : UNRECOGNIZED;
    }

    /**
     * The number on the wire.
     *
     * @return 0 to 16; -1 for {@link #UNRECOGNIZED}
     */
    public int number() {
        return number;
    }

    /**
     * The name of a number, for people.
     *
     * @param number as on the wire
     * @return for example {@code NOT_FOUND} for 5, {@code CODE_99} for one that is not known
     */
    public static String nameOf(int number) {
        StatusCode known = of(number);
        return known == UNRECOGNIZED ? "CODE_" + number : known.name();
    }
}
