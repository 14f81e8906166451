package io.tensorwire.client.wire;

import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;

import java.util.Map;

/** What messages without tensors carry, and the extra of a request. */
public final class Bodies {
    private static final String UNREADABLE = "(the error's text could not be read)";

    private Bodies() {}

    /**
     * The text of an ERROR. A body that cannot be read must not keep the code from the caller.
     *
     * @param raw msgpack, or nothing
     * @return what was wrong
     */
    public static String errorText(byte[] raw) {
        if (raw.length == 0) {
            return "";
        }
        try {
            return Msgpack.read(
                    raw,
                    "error",
                    unpacker -> {
                        String[] text = {""};
                        HeaderReader.readMap(
                                unpacker,
                                (key, value) -> {
                                    if (!key.equals("message")) {
                                        return false;
                                    }
                                    text[0] = value.unpackString();
                                    return true;
                                });
                        return text[0];
                    });
        } catch (ProtocolException error) {
            return UNREADABLE;
        }
    }

    /**
     * The body of a CONTROL.
     *
     * @param method its name
     * @param params by name; none are left out
     * @return msgpack
     */
    public static byte[] call(String method, Map<String, Value> params) {
        return Msgpack.write(
                packer -> {
                    packer.packMapHeader(params.isEmpty() ? 1 : 2)
                            .packString("method")
                            .packString(method);
                    if (!params.isEmpty()) {
                        packer.packString("params");
                        packMap(params).writeTo(packer);
                    }
                });
    }

    /**
     * The value in a CONTROL_REPLY.
     *
     * @param raw msgpack
     * @return any value
     * @throws ProtocolException it is not valid, or nested too deep
     */
    public static Value result(byte[] raw) {
        return Msgpack.read(
                raw, "control result", unpacker -> new BoundedValues(unpacker, raw.length).read());
    }

    /**
     * The extra of a request.
     *
     * @param priority 0 normal, 1 high
     * @param routingKey or null
     * @param trace W3C trace context, or null
     * @param metadata of the user, or null
     * @return msgpack; empty if everything has its default
     */
    public static byte[] extra(
            int priority,
            byte[] routingKey,
            Map<String, String> trace,
            Map<String, Value> metadata) {
        int keys = (priority == 0 ? 0 : 1) + count(routingKey) + count(trace) + count(metadata);
        if (keys == 0) {
            return new byte[0];
        }
        return Msgpack.write(
                packer -> {
                    packer.packMapHeader(keys);
                    if (priority != 0) {
                        packer.packString("priority").packInt(priority);
                    }
                    if (routingKey != null) {
                        packer.packString("routing_key")
                                .packBinaryHeader(routingKey.length)
                                .writePayload(routingKey);
                    }
                    if (trace != null) {
                        packer.packString("trace").packMapHeader(trace.size());
                        for (Map.Entry<String, String> entry : trace.entrySet()) {
                            packer.packString(entry.getKey()).packString(entry.getValue());
                        }
                    }
                    if (metadata != null) {
                        packer.packString("metadata");
                        packMap(metadata).writeTo(packer);
                    }
                });
    }

    private static int count(Object value) {
        return value == null ? 0 : 1;
    }

    private static Value packMap(Map<String, Value> map) {
        ValueFactory.MapBuilder builder = ValueFactory.newMapBuilder();
        map.forEach((key, value) -> builder.put(ValueFactory.newString(key), value));
        return builder.build();
    }
}
