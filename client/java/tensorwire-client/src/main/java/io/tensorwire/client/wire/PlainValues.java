package io.tensorwire.client.wire;

import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;

import java.math.BigInteger;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * msgpack values as Java's own: null, Boolean, Long (BigInteger where it does not fit), Double,
 * String, byte[], List and Map.
 */
public final class PlainValues {
    private PlainValues() {}

    /**
     * The msgpack value of an object.
     *
     * @param plain of one of the types above; any Number, and lists and maps of such
     * @return the value
     * @throws IllegalArgumentException it is of another type
     */
    public static Value packed(Object plain) {
        if (plain == null) {
            return ValueFactory.newNil();
        } else if (plain instanceof String text) {
            return ValueFactory.newString(text);
        } else if (plain instanceof Boolean flag) {
            return ValueFactory.newBoolean(flag);
        } else if (plain instanceof Double || plain instanceof Float) {
            return ValueFactory.newFloat(((Number) plain).doubleValue());
        } else if (plain instanceof BigInteger integer) {
            return ValueFactory.newInteger(integer);
        } else if (plain instanceof Long
                || plain instanceof Integer
                || plain instanceof Short
                || plain instanceof Byte) {
            return ValueFactory.newInteger(((Number) plain).longValue());
        } else if (plain instanceof byte[] bytes) {
            return ValueFactory.newBinary(bytes);
        } else if (plain instanceof List<?> list) {
            return ValueFactory.newArray(list.stream().map(PlainValues::packed).toList());
        } else if (plain instanceof Map<?, ?> map) {
            ValueFactory.MapBuilder builder = ValueFactory.newMapBuilder();
            map.forEach((key, value) -> builder.put(packed(key), packed(value)));
            return builder.build();
        }
        throw new IllegalArgumentException(
                "a "
                        + plain.getClass().getName()
                        + " cannot be sent; expected null, a "
                        + "Boolean, a Number, a String, a byte[], or a List or Map of these");
    }

    /**
     * The msgpack values of a map.
     *
     * @param plain see {@link #packed}
     * @return a map in the same order
     */
    public static Map<String, Value> packedMap(Map<String, ?> plain) {
        Map<String, Value> packed = new LinkedHashMap<>();
        plain.forEach(
                (key, value) ->
                        packed.put(Objects.requireNonNull(key, "a key is null"), packed(value)));
        return packed;
    }

    /**
     * The object of a msgpack value.
     *
     * @param packed any value
     * @return see above; lists and maps are unmodifiable
     */
    public static Object plain(Value packed) {
        return switch (packed.getValueType()) {
            case NIL -> null;
            case BOOLEAN -> packed.asBooleanValue().getBoolean();
            case INTEGER ->
                    packed.asIntegerValue().isInLongRange()
                            ? (Object) packed.asIntegerValue().toLong()
                            : packed.asIntegerValue().toBigInteger();
            case FLOAT -> packed.asFloatValue().toDouble();
            case STRING -> packed.asStringValue().asString();
            case BINARY -> packed.asBinaryValue().asByteArray();
            case ARRAY -> packed.asArrayValue().list().stream().map(PlainValues::plain).toList();
            case MAP -> plainMap(packed.asMapValue().map());
            case EXTENSION ->
                    throw new ProtocolException(
                            "an extension type of msgpack; expected plain values");
        };
    }

    private static Map<Object, Object> plainMap(Map<Value, Value> packed) {
        Map<Object, Object> plain = new LinkedHashMap<>();
        packed.forEach((key, value) -> plain.put(plain(key), plain(value)));
        return Collections.unmodifiableMap(plain);
    }
}
