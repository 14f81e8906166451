package io.tensorwire.client.wire;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;

import io.tensorwire.client.DType;
import io.tensorwire.client.Tensor;

import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** The vectors' JSON as messages, and messages as the vectors' JSON. */
final class Json {
    private static final JsonNodeFactory NODES = JsonNodeFactory.instance;

    private Json() {}

    static String hex(ByteBuffer bytes) {
        byte[] raw = new byte[bytes.limit()];
        bytes.get(0, raw);
        return HexFormat.of().formatHex(raw);
    }

    static long[] longs(JsonNode array) {
        return Vector.elements(array).mapToLong(JsonNode::asLong).toArray();
    }

    static int[] ints(JsonNode array) {
        return Vector.elements(array).mapToInt(JsonNode::asInt).toArray();
    }

    static Prefix prefix(JsonNode message, int headerLen, int extraLen) {
        return new Prefix(
                Kind.valueOf(message.get("kind").asText()).number(),
                message.get("flags").asInt(),
                message.get("status").asInt(),
                Long.parseUnsignedLong(message.get("id").asText()),
                Long.parseUnsignedLong(message.get("timeout_us").asText()),
                message.get("count").asInt(),
                headerLen,
                extraLen,
                message.get("inline_limit").asLong(),
                message.get("queue_us").asLong(),
                message.get("compute_us").asLong());
    }

    static RequestHeader requestHeader(JsonNode header, Layout layout) {
        return new RequestHeader(
                header.get("model").asText(),
                header.has("version") ? (Long) header.get("version").asLong() : null,
                header.has("label") ? header.get("label").asText() : null,
                header.has("outputs")
                        ? Vector.elements(header.get("outputs")).map(JsonNode::asText).toList()
                        : null,
                layout);
    }

    /** Written by a server only. */
    static byte[] replyHeader(JsonNode header, Layout layout) {
        assert layout.tensors().size() == header.get("outputs").size();
        return Msgpack.write(packer -> value(header).writeTo(packer));
    }

    static byte[] errorBody(String text) {
        Map<String, Value> body =
                text.isEmpty() ? Map.of() : Map.of("message", ValueFactory.newString(text));
        return Msgpack.write(packer -> packed(body).writeTo(packer));
    }

    static byte[] extra(JsonNode extra) {
        if (extra.isNull()) {
            return new byte[0];
        }
        if (extra.isEmpty()) {
            return Msgpack.write(packer -> packer.packMapHeader(0));
        }
        JsonNode key = extra.get("routing_key");
        return Bodies.extra(
                extra.has("priority") ? extra.get("priority").asInt() : 0,
                key == null ? null : HexFormat.of().parseHex(key.get("hex").asText()),
                extra.has("trace") ? strings(extra.get("trace")) : null,
                extra.has("metadata") ? ordered(extra.get("metadata")) : null);
    }

    private static Map<String, String> strings(JsonNode map) {
        Map<String, String> strings = new LinkedHashMap<>();
        map.properties().forEach(entry -> strings.put(entry.getKey(), entry.getValue().asText()));
        return strings;
    }

    static Map<String, Value> map(JsonNode map) {
        return new TreeMap<>(ordered(map));
    }

    static Map<String, Value> ordered(JsonNode map) {
        Map<String, Value> values = new LinkedHashMap<>();
        map.properties().forEach(entry -> values.put(entry.getKey(), value(entry.getValue())));
        return values;
    }

    static Value value(JsonNode node) {
        if (node.isObject()) {
            return node.size() == 1 && node.has("hex")
                    ? ValueFactory.newBinary(HexFormat.of().parseHex(node.get("hex").asText()))
                    : packed(ordered(node));
        }
        if (node.isArray()) {
            return ValueFactory.newArray(Vector.elements(node).map(Json::value).toList());
        }
        if (node.isTextual()) {
            return ValueFactory.newString(node.asText());
        }
        if (node.isBoolean()) {
            return ValueFactory.newBoolean(node.asBoolean());
        }
        if (node.isIntegralNumber()) {
            return ValueFactory.newInteger(node.bigIntegerValue());
        }
        return node.isNull() ? ValueFactory.newNil() : ValueFactory.newFloat(node.asDouble());
    }

    private static Value packed(Map<String, Value> map) {
        ValueFactory.MapBuilder builder = ValueFactory.newMapBuilder();
        map.forEach((key, value) -> builder.put(ValueFactory.newString(key), value));
        return builder.build();
    }

    /** The values of a tensor as the vectors have them. */
    static ArrayNode values(Tensor tensor) {
        ArrayNode values = NODES.arrayNode();
        switch (tensor.dtype()) {
            case STRING -> List.of(tensor.strings()).forEach(values::add);
            case BYTES ->
                    List.of(tensor.elements().byteArrays())
                            .forEach(
                                    each ->
                                            values.add(
                                                    NODES.objectNode()
                                                            .put(
                                                                    "hex",
                                                                    HexFormat.of()
                                                                            .formatHex(each))));
            case BOOL -> {
                for (boolean each : tensor.elements().booleans()) {
                    values.add(each);
                }
            }
            case COMPLEX64, COMPLEX128 -> {
                double[] parts = tensor.elements().doubles();
                for (int index = 0; index < parts.length; index += 2) {
                    values.add(NODES.arrayNode().add(parts[index]).add(parts[index + 1]));
                }
            }
            default -> addNumbers(values, tensor);
        }
        return values;
    }

    private static void addNumbers(ArrayNode values, Tensor tensor) {
        if (tensor.dtype().wireName().contains("int")) {
            for (long each : tensor.longs()) {
                values.add(each);
            }
        } else if (tensor.dtype().wireName().startsWith("float8")) {
            for (byte each : tensor.elements().bytes()) {
                values.add(Float8.value(tensor.dtype(), each));
            }
        } else {
            for (double each : tensor.elements().doubles()) {
                values.add(each);
            }
        }
    }

    /**
     * The tensor that a vector describes: from its values where Java has their type, else from its
     * payload.
     */
    static Tensor tensor(JsonNode described) {
        DType dtype = DType.of(described.get("dtype").asText());
        long[] shape = longs(described.get("shape"));
        JsonNode values = described.get("values");
        if (dtype.isVariable()) {
            byte[][] elements =
                    Vector.elements(values)
                            .map(
                                    each ->
                                            each.isTextual()
                                                    ? each.asText().getBytes(StandardCharsets.UTF_8)
                                                    : HexFormat.of()
                                                            .parseHex(each.get("hex").asText()))
                            .toArray(byte[][]::new);
            return Tensor.ofElements(dtype, elements, shape);
        }
        float[] floats = new float[values.size()];
        double[] doubles = new double[values.size()];
        for (int index = 0; index < floats.length; index++) {
            doubles[index] = values.get(index).asDouble();
            floats[index] = (float) doubles[index];
        }
        return switch (dtype) {
            case FLOAT16 -> Tensor.ofFloat16(floats, floats.length).reshape(shape);
            case BFLOAT16 -> Tensor.ofBfloat16(floats, floats.length).reshape(shape);
            case FLOAT32 -> Tensor.of(floats, floats.length).reshape(shape);
            case FLOAT64 -> Tensor.of(doubles, doubles.length).reshape(shape);
            case INT64 -> Tensor.of(longs(values), values.size()).reshape(shape);
            case INT32 -> Tensor.of(ints(values), values.size()).reshape(shape);
            default ->
                    Tensor.wrap(
                            dtype,
                            ByteBuffer.wrap(
                                    HexFormat.of().parseHex(described.get("payload").asText())),
                            shape);
        };
    }
}
