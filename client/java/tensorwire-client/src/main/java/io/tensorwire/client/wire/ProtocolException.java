package io.tensorwire.client.wire;

import io.tensorwire.client.RpcException;
import io.tensorwire.client.StatusCode;

/** Bytes that are not a valid message. */
public final class ProtocolException extends RpcException {
    private static final long serialVersionUID = 1L;

    /**
     * A message that breaks the protocol.
     *
     * @param description what was found and what was expected
     */
    public ProtocolException(String description) {
        super(StatusCode.INVALID_ARGUMENT, description);
    }

    /**
     * A message of which a part cannot be decoded.
     *
     * @param description what was found and what was expected
     * @param cause what the decoder says
     */
    public ProtocolException(String description, Exception cause) {
        super(StatusCode.INVALID_ARGUMENT, description);
        initCause(cause);
    }

    /**
     * A message of another protocol version.
     *
     * @param version what was found
     * @return the exception, of status UNIMPLEMENTED
     */
    static RpcException otherVersion(int version) {
        return new RpcException(
                StatusCode.UNIMPLEMENTED,
                "protocol version "
                        + version
                        + " is not supported; this peer speaks "
                        + Prefix.VERSION);
    }
}
