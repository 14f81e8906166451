package io.tensorwire.client.wire;

/** What a message is. */
public enum Kind {
    /** A call, or several, to the server. */
    REQUEST(1),
    /** Their answer. */
    REPLY(2),
    /** Why calls failed. */
    ERROR(3),
    /** Gives calls up. */
    CANCEL(4),
    /** Is anybody there? */
    PING(5),
    /** The answer to that. */
    PONG(6),
    /** Introspection or administration. */
    CONTROL(7),
    /** The answer to that. */
    CONTROL_REPLY(8);

    private final int number;

    Kind(int number) {
        this.number = number;
    }

    /**
     * The value on the wire.
     *
     * @return 1 to 8
     */
    public int number() {
        return number;
    }
}
