package io.tensorwire.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.Size;

import org.junit.jupiter.api.Test;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ReadOnlyBufferException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

class TensorTest {
    @Test
    void aBufferIsNotCopied() {
        ByteBuffer direct = ByteBuffer.allocateDirect(16).order(ByteOrder.LITTLE_ENDIAN);
        Tensor tensor = Tensor.wrap(DType.FLOAT32, direct.position(8), 2);
        direct.putFloat(12, 2.5f);
        assertArrayEquals(new float[] {0, 2.5f}, tensor.floats());
        assertEquals(2.5f, tensor.elements().floatBuffer().get(1));
        assertThrows(ReadOnlyBufferException.class, () -> tensor.data().put(0, (byte) 1));
    }

    @Test
    void shapesAreChecked() {
        IllegalArgumentException error =
                assertThrows(IllegalArgumentException.class, () -> Tensor.of(new float[5], 2, 3));
        assertEquals("shape [2, 3] needs 6 float32 elements, found 5", error.getMessage());
        assertThrows(IllegalArgumentException.class, () -> Tensor.of(new long[1], -1));
        assertThrows(
                IllegalArgumentException.class, () -> Tensor.of(new long[0], 1L << 40, 1L << 40));
        assertThrows(
                IllegalArgumentException.class,
                () -> Tensor.wrap(DType.INT32, ByteBuffer.allocate(3), 1));
        assertThrows(
                IllegalArgumentException.class,
                () -> Tensor.ofElements(DType.BYTES, new byte[][] {null}, 1));
        assertEquals(0, Tensor.of(new long[0], 1L << 40, 0).size());
        assertEquals(0, Tensor.of(new float[] {1}).reshape().rank());
    }

    @Test
    void elementsOfOtherDtypesAreRefusedInWords() {
        IllegalStateException error =
                assertThrows(IllegalStateException.class, () -> Tensor.of(new long[1]).floats());
        assertTrue(
                error.getMessage().contains("int64") && error.getMessage().contains("float32"),
                error.getMessage());
    }

    @Test
    void rowsAreViewsAndCopiesAreNot() {
        Tensor tensor = Tensor.of(new int[] {1, 2, 3, 4, 5, 6}, 3, 2);
        assertArrayEquals(new int[] {3, 4, 5, 6}, tensor.rows(1, 2).elements().ints());
        assertThrows(IndexOutOfBoundsException.class, () -> tensor.rows(2, 2));
        assertEquals(tensor, tensor.copy());
        assertNotEquals(tensor, tensor.reshape(2, 3));
        Tensor text = Tensor.of(new String[] {"a", "b", "c"});
        assertArrayEquals(new String[] {"b"}, text.rows(1, 1).strings());
        assertSame(text, text.copy());
    }

    @Test
    void unsignedElementsAreWidened() {
        Tensor bytes = Tensor.ofUint8(new byte[] {-1, 1});
        assertArrayEquals(new long[] {255, 1}, bytes.longs());
        assertArrayEquals(new byte[] {-1, 1}, bytes.elements().bytes());
    }

    @Test
    void everyHalfKeepsItsBits() {
        for (int bits = 0; bits < 1 << 16; bits++) {
            float half = HalfFloats.fromFloat16((short) bits);
            float brain = HalfFloats.fromBfloat16((short) bits);
            if (!Float.isNaN(half)) {
                assertEquals((short) bits, HalfFloats.toFloat16(half), Integer.toHexString(bits));
            }
            if (!Float.isNaN(brain)) {
                assertEquals((short) bits, HalfFloats.toBfloat16(brain), Integer.toHexString(bits));
            }
        }
        assertTrue(Float.isNaN(HalfFloats.fromFloat16(HalfFloats.toFloat16(Float.NaN))));
        assertTrue(Float.isNaN(HalfFloats.fromBfloat16(HalfFloats.toBfloat16(Float.NaN))));
        assertEquals(Float.POSITIVE_INFINITY, HalfFloats.fromFloat16(HalfFloats.toFloat16(65_520)));
        assertEquals(65_504, HalfFloats.fromFloat16(HalfFloats.toFloat16(65_519)));
    }

    @Property
    void theNearestHalfIsTaken(@ForAll float value) {
        short bits = HalfFloats.toFloat16(value);
        float found = HalfFloats.fromFloat16(bits);
        if (Math.abs(value) < 65_504) {
            float below = HalfFloats.fromFloat16((short) (bits - 1));
            float above = HalfFloats.fromFloat16((short) (bits + 1));
            double error = Math.abs((double) found - value);
            assertTrue(
                    !(Math.abs((double) below - value) < error), value + " is nearer to " + below);
            assertTrue(
                    !(Math.abs((double) above - value) < error), value + " is nearer to " + above);
        }
    }

    @Property(tries = 200)
    void arraysComeBack(
            @ForAll float[] floats, @ForAll long[] longs, @ForAll @Size(max = 20) String[] text) {
        assertArrayEquals(floats, Tensor.of(floats).floats());
        assertArrayEquals(longs, Tensor.of(longs).longs());
        String[] valid =
                Arrays.stream(text)
                        .map(
                                each ->
                                        new String(
                                                each.getBytes(StandardCharsets.UTF_8),
                                                StandardCharsets.UTF_8))
                        .toArray(String[]::new);
        assertArrayEquals(valid, Tensor.of(valid).strings());
    }
}
