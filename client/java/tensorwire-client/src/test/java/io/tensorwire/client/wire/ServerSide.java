package io.tensorwire.client.wire;

import io.tensorwire.client.RpcException;

import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.Value;
import org.msgpack.value.ValueType;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** What a server reads: the half of the protocol that a client has no use for, for its tests. */
final class ServerSide {
    private ServerSide() {}

    /** A decoded request. */
    record Request(
            Prefix prefix, RequestHeader header, Map<String, Value> extra, MessageReader body) {}

    /** Reads and checks any message to a server; a Request, or null for other kinds. */
    static Request read(ByteBuffer head, List<ByteBuffer> frames) {
        Prefix prefix = Prefix.read(head);
        if (prefix.is(Kind.REQUEST)) {
            return request(prefix, head, frames);
        }
        if (!prefix.is(Kind.CANCEL) && !prefix.is(Kind.PING) && !prefix.is(Kind.CONTROL)) {
            throw new ProtocolException("kind " + prefix.kind() + " is none that a server takes");
        }
        if (!frames.isEmpty() || prefix.bodyEnd() != head.limit()) {
            throw new ProtocolException("further frames, or bytes behind the end");
        }
        if (prefix.is(Kind.CONTROL)) {
            call(bytes(head, Prefix.SIZE, prefix.headerLen()));
        }
        return null;
    }

    static byte[] bytes(ByteBuffer head, int at, int length) {
        byte[] bytes = new byte[length];
        head.get(at, bytes);
        return bytes;
    }

    private static Request request(Prefix prefix, ByteBuffer head, List<ByteBuffer> frames) {
        RequestHeader header = header(bytes(head, Prefix.SIZE, prefix.headerLen()));
        Map<String, Value> extra =
                extra(bytes(head, Prefix.SIZE + prefix.headerLen(), prefix.extraLen()));
        return new Request(
                prefix, header, extra, new MessageReader(prefix, head, frames, header.inputs()));
    }

    static RequestHeader header(byte[] raw) {
        return Msgpack.read(raw, "header", unpacker -> new Fields().read(unpacker));
    }

    private static final class Fields {
        private String model;
        private Long version;
        private String label;
        private List<String> outputs;
        private List<TensorHeader> inputs;
        private boolean rows = true;

        RequestHeader read(MessageUnpacker unpacker) throws IOException {
            HeaderReader.readMap(unpacker, this::entry);
            if (model == null
                    || inputs == null
                    || version != null && (version < 0 || version > Prefix.MAX_U32)) {
                throw new ProtocolException("a key is missing, or the version out of range");
            }
            return new RequestHeader(model, version, label, outputs, new Layout(inputs, rows));
        }

        private boolean entry(String key, MessageUnpacker unpacker) throws IOException {
            switch (key) {
                case "model" -> model = unpacker.unpackString();
                case "version" ->
                        version = unpacker.tryUnpackNil() ? null : (Long) unpacker.unpackLong();
                case "label" -> label = unpacker.tryUnpackNil() ? null : unpacker.unpackString();
                case "outputs" -> outputs = unpacker.tryUnpackNil() ? null : strings(unpacker);
                case "inputs" -> inputs = HeaderReader.readTensors(unpacker);
                case "rows" -> rows = unpacker.unpackBoolean();
                default -> {
                    return false;
                }
            }
            return true;
        }

        private static List<String> strings(MessageUnpacker unpacker) throws IOException {
            List<String> strings = new ArrayList<>();
            for (int left = unpacker.unpackArrayHeader(); left > 0; left--) {
                strings.add(unpacker.unpackString());
            }
            return strings;
        }
    }

    static Map<String, Value> extra(byte[] raw) {
        if (raw.length == 0) {
            return Map.of();
        }
        Map<String, Value> extra = map(raw, "extra");
        Value priority = extra.get("priority");
        if (priority != null
                && !(priority.isIntegerValue()
                        && List.of(0L, 1L).contains(priority.asIntegerValue().toLong()))) {
            throw new ProtocolException("priority " + priority + " is not known; expected 0 or 1");
        }
        expect(extra, "routing_key", ValueType.BINARY);
        expect(extra, "trace", ValueType.MAP);
        expect(extra, "metadata", ValueType.MAP);
        if (extra.containsKey("trace") && extra.get("trace").isMapValue()) {
            extra.get("trace")
                    .asMapValue()
                    .map()
                    .forEach(
                            (key, value) -> {
                                if (!key.isStringValue() || !value.isStringValue()) {
                                    throw new ProtocolException(
                                            "trace holds other things than strings");
                                }
                            });
        }
        return extra;
    }

    private static void call(byte[] raw) {
        Map<String, Value> call = map(raw, "control call");
        if (!call.containsKey("method") || !call.get("method").isStringValue()) {
            throw new ProtocolException("a control call has no method");
        }
        if (call.containsKey("params") && !call.get("params").isMapValue()) {
            throw new ProtocolException("a control call's params are no map");
        }
    }

    private static void expect(Map<String, Value> map, String key, ValueType type) {
        Value value = map.get(key);
        if (value != null && !value.isNilValue() && value.getValueType() != type) {
            throw new ProtocolException(key + " is " + value.getValueType() + ", expected " + type);
        }
    }

    private static Map<String, Value> map(byte[] raw, String what) {
        return Msgpack.read(
                raw,
                what,
                unpacker -> {
                    Map<String, Value> map = new HashMap<>();
                    for (int left = unpacker.unpackMapHeader(); left > 0; left--) {
                        map.put(unpacker.unpackString(), unpacker.unpackValue());
                    }
                    return map;
                });
    }

    /**
     * What a receiver does with a message: {@code ok}, {@code dropped}, or {@code STATUS id count}.
     */
    static String outcome(ByteBuffer head, List<ByteBuffer> frames) {
        try {
            read(head, frames);
            return "ok";
        } catch (RpcException error) {
            return refusal(head, error.status().name());
        }
    }

    static String refusal(ByteBuffer head, String status) {
        return Prefix.answerable(head)
                .map(ids -> status + " " + Long.toUnsignedString(ids.first()) + " " + ids.count())
                .orElse("dropped");
    }
}
