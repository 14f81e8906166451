package io.tensorwire.client.wire;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.msgpack.value.Value;
import org.msgpack.value.ValueFactory;

import java.util.HexFormat;
import java.util.List;
import java.util.Map;

/** Results of control calls, as they are and as they must not be. */
class BodiesTest {
    @ParameterizedTest
    @ValueSource(strings = {"dd7fffffff", "df7fffffff", "db7fffffff", "c67fffffff", "c97fffffff00"})
    void aClaimedLengthIsNotBelieved(String body) {
        byte[] raw = HexFormat.of().parseHex(body);
        assertThrows(ProtocolException.class, () -> Bodies.result(raw));
    }

    @ParameterizedTest
    @ValueSource(strings = {"c1", "", "92c0", "c0c0"})
    void whatIsNoValueIsRefused(String body) {
        byte[] raw = HexFormat.of().parseHex(body);
        assertThrows(ProtocolException.class, () -> Bodies.result(raw));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 64})
    void valuesAreNestedAsDeepAsTheLimit(int depth) {
        byte[] raw = HexFormat.of().parseHex("91".repeat(depth) + "c0");
        Value value = Bodies.result(raw);
        assertTrue(value.isArrayValue());
    }

    @ParameterizedTest
    @ValueSource(ints = {65, 1_000_000})
    void deeperOnesAreRefused(int depth) {
        byte[] raw = HexFormat.of().parseHex("91".repeat(depth) + "c0");
        ProtocolException error =
                assertThrows(ProtocolException.class, () -> Bodies.result(raw));
        assertTrue(error.description().contains("deeper"), error.description());
    }

    @ParameterizedTest
    @ValueSource(longs = {-1, 7, 1L << 40})
    void everyKindOfValueIsRead(long number) {
        Value value =
                ValueFactory.newMap(
                        Map.of(
                                ValueFactory.newString("list"),
                                ValueFactory.newArray(
                                        List.of(
                                                ValueFactory.newNil(),
                                                ValueFactory.newBoolean(true),
                                                ValueFactory.newInteger(number),
                                                ValueFactory.newFloat(0.5),
                                                ValueFactory.newString("h\u00e9"),
                                                ValueFactory.newBinary(new byte[] {1, -1})))));
        byte[] raw = Msgpack.write(packer -> value.writeTo(packer));
        assertEquals(value, Bodies.result(raw));
    }
}
