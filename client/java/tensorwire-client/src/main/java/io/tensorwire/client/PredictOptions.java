package io.tensorwire.client;

import io.tensorwire.client.wire.Bodies;
import io.tensorwire.client.wire.PlainValues;
import io.tensorwire.client.wire.Prefix;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * What a call asks for besides its inputs; immutable. Make one for all calls that ask for the same.
 *
 * <pre>{@code
 * PredictOptions options = PredictOptions.DEFAULT.withLabel("canary").withTimeout(Duration.ofMillis(200));
 * }</pre>
 */
public final class PredictOptions {
    /** The default version, the client's timeout, all outputs. */
    public static final PredictOptions DEFAULT = new PredictOptions(new Fields());

    private final Fields fields;
    private final byte[] extra;

    /** Changed by its maker only, before anybody else sees it. */
    private static final class Fields implements Cloneable {
        private Long version;
        private String label;
        private List<String> outputs;
        private Duration timeout;
        private boolean timeoutGiven;
        private byte[] routingKey;
        private int priority;
        private Map<String, String> trace;
        private Map<String, ?> metadata;

        Fields copy() {
            try {
                return (Fields) clone();
            } catch (CloneNotSupportedException error) {
                throw new AssertionError(error);
            }
        }
    }

    private PredictOptions(Fields fields) {
        this.fields = fields;
        this.extra =
                Bodies.extra(
                        fields.priority,
                        fields.routingKey,
                        fields.trace,
                        fields.metadata == null ? null : PlainValues.packedMap(fields.metadata));
    }

    /**
     * Ask for a version by number.
     *
     * @param version 0 to 4294967295
     * @return other options, which name no label
     */
    public PredictOptions withVersion(long version) {
        if (version < 0 || version > Prefix.MAX_U32) {
            throw new IllegalArgumentException(
                    "version is " + version + ", expected 0 to " + Prefix.MAX_U32);
        }
        Fields changed = fields.copy();
        changed.version = version;
        changed.label = null;
        return new PredictOptions(changed);
    }

    /**
     * Ask for the version that has a label.
     *
     * @param label for example {@code stable}
     * @return other options, which name no version
     */
    public PredictOptions withLabel(String label) {
        Fields changed = fields.copy();
        changed.label = Objects.requireNonNull(label, "label");
        changed.version = null;
        return new PredictOptions(changed);
    }

    /**
     * Ask for some outputs only.
     *
     * @param names in the order in which the result shall have them
     * @return other options
     */
    public PredictOptions withOutputs(String... names) {
        Fields changed = fields.copy();
        changed.outputs = List.of(names);
        return new PredictOptions(changed);
    }

    /**
     * How long a call may take.
     *
     * @param timeout more than zero; null: no limit
     * @return other options
     */
    public PredictOptions withTimeout(Duration timeout) {
        Fields changed = fields.copy();
        changed.timeout = timeout == null ? null : ClientOptions.positive("timeout", timeout);
        changed.timeoutGiven = true;
        return new PredictOptions(changed);
    }

    /**
     * With sticky routes, equal keys go to the same version.
     *
     * @param key any text
     * @return other options
     */
    public PredictOptions withRoutingKey(String key) {
        return withRoutingKey(key.getBytes(StandardCharsets.UTF_8));
    }

    /**
     * With sticky routes, equal keys go to the same version.
     *
     * @param key any bytes
     * @return other options
     */
    public PredictOptions withRoutingKey(byte[] key) {
        Fields changed = fields.copy();
        changed.routingKey = key.clone();
        return new PredictOptions(changed);
    }

    /**
     * Be taken from the server's queue before others.
     *
     * @return other options
     */
    public PredictOptions withHighPriority() {
        Fields changed = fields.copy();
        changed.priority = 1;
        return new PredictOptions(changed);
    }

    /**
     * W3C trace context.
     *
     * @param trace {@code traceparent}, and {@code tracestate} if there is one
     * @return other options
     */
    public PredictOptions withTrace(Map<String, String> trace) {
        Fields changed = fields.copy();
        changed.trace = new LinkedHashMap<>(trace);
        return new PredictOptions(changed);
    }

    /**
     * Anything that shall travel with the request.
     *
     * @param metadata null, Boolean, Number, String, byte[], and lists and maps of these
     * @return other options
     */
    public PredictOptions withMetadata(Map<String, ?> metadata) {
        Fields changed = fields.copy();
        changed.metadata = new LinkedHashMap<>(metadata);
        return new PredictOptions(changed);
    }

    Long version() {
        return fields.version;
    }

    String label() {
        return fields.label;
    }

    List<String> outputs() {
        return fields.outputs;
    }

    byte[] extra() {
        return extra;
    }

    /** Nanoseconds, those of the client where nothing was said. */
    long timeout(long ofClient) {
        return fields.timeoutGiven ? ClientOptions.nanos(fields.timeout) : ofClient;
    }
}
