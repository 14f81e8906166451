package io.tensorwire.client;

/** A call that failed: why, as a status code, and in words. */
public class RpcException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** As on the wire. */
    private final int code;

    /** Without the status. */
    private final String description;

    /**
     * A failure with a status that this version knows.
     *
     * @param status why
     * @param description what was wrong and what was expected
     */
    public RpcException(StatusCode status, String description) {
        this(status.number(), description);
    }

    /**
     * A failure with any status, as it came over the wire.
     *
     * @param code the status; 0, which is no error, becomes UNKNOWN
     * @param description what was wrong and what was expected
     */
    public RpcException(int code, String description) {
        super(StatusCode.nameOf(wireCode(code)) + ": " + description);
        this.code = wireCode(code);
        this.description = description;
    }

    private static int wireCode(int code) {
        return code == StatusCode.OK.number() ? StatusCode.UNKNOWN.number() : code;
    }

    /**
     * The status.
     *
     * @return {@link StatusCode#UNRECOGNIZED} for a code that this version does not know
     */
    public StatusCode status() {
        return StatusCode.of(code);
    }

    /**
     * The number of the status, also where this version does not know it.
     *
     * @return as on the wire
     */
    public int code() {
        return code;
    }

    /**
     * What was wrong and what was expected, without the status.
     *
     * @return for a person to read
     */
    public String description() {
        return description;
    }
}
