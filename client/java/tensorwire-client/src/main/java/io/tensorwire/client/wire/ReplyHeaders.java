package io.tensorwire.client.wire;

import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Decoded reply headers by their bytes, of bounded number and size; for one thread.
 *
 * <p>The header that was seen last costs one comparison, every other known one a look-up; neither
 * allocates.
 */
public final class ReplyHeaders {
    private static final int MAX_ENTRIES = 4096;
    private static final int MAX_BYTES = 4 << 20;

    private final int maxEntries;
    private final Map<Key, ReplyHeader> known = new LinkedHashMap<>();
    private final Key probe = new Key();
    private Key lastKey = new Key();
    private ReplyHeader last;
    private int bytes;

    /** An empty cache. */
    public ReplyHeaders() {
        this(MAX_ENTRIES);
    }

    ReplyHeaders(int maxEntries) {
        this.maxEntries = maxEntries;
    }

    /** Bytes of a header; those of a probe belong to a message. */
    private static final class Key {
        private ByteBuffer bytes = ByteBuffer.allocate(0);

        @Override
        public int hashCode() {
            return bytes.hashCode();
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Key key && bytes.equals(key.bytes);
        }
    }

    /**
     * The header in a head frame.
     *
     * @param head of a REPLY
     * @param prefix its validated prefix
     * @return the decoded header
     * @throws ProtocolException it is not valid; nothing is kept then
     */
    public ReplyHeader get(ByteBuffer head, Prefix prefix) {
        probe.bytes = head.slice(Prefix.SIZE, prefix.headerLen());
        try {
            if (last == null || !lastKey.equals(probe)) {
                ReplyHeader found = known.get(probe);
                if (found == null) {
                    return add();
                }
                last = found;
                lastKey = copyOfProbe();
            }
            return last;
        } finally {
            // Not to keep the message.
            probe.bytes = lastKey.bytes;
        }
    }

    int size() {
        return known.size();
    }

    private ReplyHeader add() {
        Key key = copyOfProbe();
        ReplyHeader decoded = ReplyHeader.decode(key.bytes.array());
        if (known.size() >= maxEntries || bytes + key.bytes.limit() > MAX_BYTES) {
            // Whoever sends ever new headers costs decoding, never memory.
            known.clear();
            bytes = 0;
        }
        known.put(key, decoded);
        bytes += key.bytes.limit();
        last = decoded;
        lastKey = key;
        return decoded;
    }

    private Key copyOfProbe() {
        byte[] raw = new byte[probe.bytes.limit()];
        probe.bytes.get(0, raw);
        Key key = new Key();
        key.bytes = ByteBuffer.wrap(raw);
        return key;
    }
}
