package io.tensorwire.client;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * A message that can be sent.
 *
 * @param envelope whose calls it carries
 * @param frames as they travel, each from 0 to its limit
 */
record Outgoing(Envelope envelope, List<ByteBuffer> frames) {
    private static final int TIMEOUT_AT = 16;

    /** Writes what remains of the timeout into a message that waited for a connection. */
    void refresh(long now) {
        frames.get(0).putLong(TIMEOUT_AT, microseconds(envelope.deadline(), now));
    }

    /** What remains as on the wire: 0 for no limit, at least 1 otherwise. */
    static long microseconds(long deadline, long now) {
        return deadline == Call.NO_TIMEOUT ? 0 : Math.max(1, (deadline - now) / 1000);
    }
}
