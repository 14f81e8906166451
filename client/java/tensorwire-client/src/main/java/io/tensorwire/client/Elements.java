package io.tensorwire.client;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * A tensor's elements in row-major order as Java's types. Arrays are copies, buffers are read-only
 * views.
 *
 * <p>Each method throws {@link IllegalStateException} for dtypes that it does not give without
 * loss. Unsigned elements come as the bits that they are, but for {@link #longs()}, which widens
 * those of up to 32 bits.
 */
public final class Elements {
    private static final Set<DType> FLOATS = EnumSet.of(DType.FLOAT32, DType.COMPLEX64);
    private static final Set<DType> DOUBLES = EnumSet.of(DType.FLOAT64, DType.COMPLEX128);
    private static final Set<DType> LONGS = EnumSet.of(DType.INT64, DType.UINT64);
    private static final Set<DType> INTS = EnumSet.of(DType.INT32, DType.UINT32);
    private static final Set<DType> SHORTS =
            EnumSet.of(DType.INT16, DType.UINT16, DType.FLOAT16, DType.BFLOAT16);
    private static final Set<DType> HALVES = EnumSet.of(DType.FLOAT16, DType.BFLOAT16);
    private static final Set<DType> INTEGERS =
            EnumSet.of(
                    DType.INT8,
                    DType.INT16,
                    DType.INT32,
                    DType.INT64,
                    DType.UINT8,
                    DType.UINT16,
                    DType.UINT32,
                    DType.UINT64);
    private static final Set<DType> BYTES =
            EnumSet.copyOf(
                    Arrays.stream(DType.values())
                            .filter(dtype -> dtype.itemSize() == 1)
                            .collect(Collectors.toSet()));

    private final DType dtype;
    private final ByteBuffer data;
    private final byte[][] variable;

    Elements(DType dtype, ByteBuffer data, byte[][] variable) {
        this.dtype = dtype;
        this.data = data;
        this.variable = variable;
    }

    /**
     * Elements of {@code float32} (and {@code complex64}: real and imaginary parts by turns),
     * {@code float16} and {@code bfloat16}.
     *
     * @return a copy
     */
    public float[] floats() {
        if (HALVES.contains(dtype)) {
            return widenedHalves();
        }
        float[] values = new float[count(FLOATS, "floats, or halves to widen", Float.BYTES)];
        data.asFloatBuffer().get(values);
        return values;
    }

    /**
     * Elements of {@code float64} (and {@code complex128}), and those that {@link #floats()} gives,
     * widened.
     *
     * @return a copy
     */
    public double[] doubles() {
        if (HALVES.contains(dtype) || FLOATS.contains(dtype)) {
            float[] narrow = floats();
            double[] values = new double[narrow.length];
            Arrays.setAll(values, index -> narrow[index]);
            return values;
        }
        double[] values = new double[count(DOUBLES, "doubles, or floats to widen", Double.BYTES)];
        data.asDoubleBuffer().get(values);
        return values;
    }

    /**
     * Elements of any integer dtype, widened; {@code uint64} as the bits that they are.
     *
     * @return a copy
     */
    public long[] longs() {
        int count = count(INTEGERS, "integers", dtype.itemSize());
        long[] values = new long[count];
        Arrays.setAll(values, this::integer);
        return values;
    }

    private long integer(int index) {
        int at = index * dtype.itemSize();
        return switch (dtype) {
            case INT8 -> data.get(at);
            case UINT8 -> Byte.toUnsignedLong(data.get(at));
            case INT16 -> data.getShort(at);
            case UINT16 -> Short.toUnsignedLong(data.getShort(at));
            case INT32 -> data.getInt(at);
            case UINT32 -> Integer.toUnsignedLong(data.getInt(at));
            default -> data.getLong(at);
        };
    }

    /**
     * Elements of {@code int32} and {@code uint32}.
     *
     * @return a copy
     */
    public int[] ints() {
        int[] values = new int[count(INTS, "ints", Integer.BYTES)];
        data.asIntBuffer().get(values);
        return values;
    }

    /**
     * Elements of {@code int16} and {@code uint16}, and the bits of {@code float16} and {@code
     * bfloat16}.
     *
     * @return a copy
     */
    public short[] shorts() {
        short[] values = new short[count(SHORTS, "shorts", Short.BYTES)];
        data.asShortBuffer().get(values);
        return values;
    }

    /**
     * Elements of any dtype of one byte.
     *
     * @return a copy
     */
    public byte[] bytes() {
        byte[] values = new byte[count(BYTES, "single bytes", 1)];
        data.get(0, values);
        return values;
    }

    /**
     * Elements of {@code bool}.
     *
     * @return a copy
     */
    public boolean[] booleans() {
        boolean[] values = new boolean[count(EnumSet.of(DType.BOOL), "booleans", 1)];
        for (int index = 0; index < values.length; index++) {
            values[index] = data.get(index) != 0;
        }
        return values;
    }

    /**
     * Elements of {@code string}.
     *
     * @return a copy
     */
    public String[] strings() {
        check(EnumSet.of(DType.STRING), "strings");
        return Arrays.stream(variable)
                .map(element -> new String(element, StandardCharsets.UTF_8))
                .toArray(String[]::new);
    }

    /**
     * Elements of {@code bytes}, and those of {@code string} as UTF-8.
     *
     * @return a copy
     */
    public byte[][] byteArrays() {
        check(EnumSet.of(DType.BYTES, DType.STRING), "elements of any length");
        return Arrays.stream(variable).map(byte[]::clone).toArray(byte[][]::new);
    }

    /**
     * Elements of {@code float32} and {@code complex64}.
     *
     * @return a read-only view
     */
    public FloatBuffer floatBuffer() {
        return view(FLOATS, "floats").asFloatBuffer();
    }

    /**
     * Elements of {@code float64} and {@code complex128}.
     *
     * @return a read-only view
     */
    public DoubleBuffer doubleBuffer() {
        return view(DOUBLES, "doubles").asDoubleBuffer();
    }

    /**
     * Elements of {@code int64} and {@code uint64}.
     *
     * @return a read-only view
     */
    public LongBuffer longBuffer() {
        return view(LONGS, "longs").asLongBuffer();
    }

    /**
     * Elements of {@code int32} and {@code uint32}.
     *
     * @return a read-only view
     */
    public IntBuffer intBuffer() {
        return view(INTS, "ints").asIntBuffer();
    }

    /**
     * Elements of {@code int16} and {@code uint16}, and the bits of {@code float16} and {@code
     * bfloat16}.
     *
     * @return a read-only view
     */
    public ShortBuffer shortBuffer() {
        return view(SHORTS, "shorts").asShortBuffer();
    }

    private float[] widenedHalves() {
        float[] values = new float[data.limit() / Short.BYTES];
        for (int index = 0; index < values.length; index++) {
            short bits = data.getShort(Short.BYTES * index);
            values[index] =
                    dtype == DType.FLOAT16
                            ? HalfFloats.fromFloat16(bits)
                            : HalfFloats.fromBfloat16(bits);
        }
        return values;
    }

    private ByteBuffer view(Set<DType> expected, String what) {
        check(expected, what);
        return data.asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    private int count(Set<DType> expected, String what, int itemSize) {
        check(expected, what);
        return data.limit() / itemSize;
    }

    private void check(Set<DType> expected, String what) {
        if (!expected.contains(dtype)) {
            throw new IllegalStateException(
                    "the elements are " + dtype + "; as " + what + " there are " + expected);
        }
    }
}
