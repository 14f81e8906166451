package io.tensorwire.client;

import io.tensorwire.client.wire.Varlen;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Objects;

/**
 * Elements of one dtype in row-major order; a value.
 *
 * <p>Elements of fixed size lie little-endian in a buffer, direct or on the heap, that is never
 * copied unless a method says so: whoever {@linkplain #wrap wraps} a buffer must not change it from
 * then on. A tensor that a call gave is a view of the message that it came in; {@link #copy} frees
 * the rest of that.
 */
public final class Tensor {
    private final DType dtype;
    private final long[] shape;

    /** From 0 to its limit, little-endian, never changed; null where elements have any length. */
    private final ByteBuffer data;

    /** Null where elements have a fixed size. */
    private final byte[][] elements;

    private Tensor(DType dtype, long[] shape, ByteBuffer data, byte[][] elements) {
        this.dtype = dtype;
        this.shape = shape;
        this.data = data;
        this.elements = elements;
    }

    // ---------------------------------------------------------------- made from buffers and arrays

    /**
     * A view of a buffer, from its position to its limit, whatever byte order it has been given.
     *
     * @param dtype of fixed size
     * @param data little-endian elements; not copied, its position and limit stay
     * @param shape whole; none for a 0-d tensor
     * @return the tensor
     * @throws IllegalArgumentException the buffer has not as many bytes as dtype and shape need
     */
    public static Tensor wrap(DType dtype, ByteBuffer data, long... shape) {
        if (dtype.isVariable()) {
            throw new IllegalArgumentException(
                    "elements of " + dtype + " have any length; use ofElements or ofStrings");
        }
        if (data.remaining() % dtype.itemSize() != 0) {
            throw new IllegalArgumentException(
                    "a buffer of "
                            + data.remaining()
                            + " bytes has no whole number of "
                            + dtype
                            + " elements; expected a multiple of "
                            + dtype.itemSize());
        }
        Shapes.check(shape, data.remaining() / dtype.itemSize(), dtype + " elements");
        return new Tensor(dtype, shape.clone(), data.slice().order(ByteOrder.LITTLE_ENDIAN), null);
    }

    /**
     * A tensor whose elements have any length.
     *
     * @param dtype {@link DType#BYTES} or {@link DType#STRING} (UTF-8)
     * @param elements in row-major order; the arrays are not copied
     * @param shape whole; none for a 0-d tensor
     * @return the tensor
     * @throws IllegalArgumentException they are not as many as the shape needs, or one is null
     */
    public static Tensor ofElements(DType dtype, byte[][] elements, long... shape) {
        if (!dtype.isVariable()) {
            throw new IllegalArgumentException(
                    "elements of " + dtype + " have a fixed size; expected bytes or string");
        }
        Shapes.check(shape, elements.length, "elements");
        for (int index = 0; index < elements.length; index++) {
            if (elements[index] == null) {
                throw new IllegalArgumentException(
                        "element " + index + " is null; expected an array of bytes");
            }
        }
        return new Tensor(dtype, shape.clone(), null, elements);
    }

    /**
     * A {@link DType#FLOAT32} tensor.
     *
     * @param values copied
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor of(float[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Float.BYTES);
        data.asFloatBuffer().put(values);
        return wrap(DType.FLOAT32, data, Shapes.orVector(shape, values.length));
    }

    /**
     * A {@link DType#FLOAT64} tensor.
     *
     * @param values copied
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor of(double[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Double.BYTES);
        data.asDoubleBuffer().put(values);
        return wrap(DType.FLOAT64, data, Shapes.orVector(shape, values.length));
    }

    /**
     * An {@link DType#INT64} tensor.
     *
     * @param values copied
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor of(long[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Long.BYTES);
        data.asLongBuffer().put(values);
        return wrap(DType.INT64, data, Shapes.orVector(shape, values.length));
    }

    /**
     * An {@link DType#INT32} tensor.
     *
     * @param values copied
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor of(int[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Integer.BYTES);
        data.asIntBuffer().put(values);
        return wrap(DType.INT32, data, Shapes.orVector(shape, values.length));
    }

    /**
     * A {@link DType#UINT8} tensor, as images have it.
     *
     * @param values copied
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor ofUint8(byte[] values, long... shape) {
        return wrap(
                DType.UINT8,
                ByteBuffer.wrap(values.clone()),
                Shapes.orVector(shape, values.length));
    }

    /**
     * A {@link DType#BOOL} tensor.
     *
     * @param values copied
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor of(boolean[] values, long... shape) {
        ByteBuffer data = allocate(values.length, 1);
        for (int index = 0; index < values.length; index++) {
            data.put(index, (byte) (values[index] ? 1 : 0));
        }
        return wrap(DType.BOOL, data, Shapes.orVector(shape, values.length));
    }

    /**
     * A {@link DType#STRING} tensor.
     *
     * @param values text that has a form in UTF-8
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor of(String[] values, long... shape) {
        byte[][] encoded = new byte[values.length][];
        for (int index = 0; index < values.length; index++) {
            encoded[index] = values[index].getBytes(StandardCharsets.UTF_8);
        }
        return ofElements(DType.STRING, encoded, Shapes.orVector(shape, values.length));
    }

    /**
     * A {@link DType#FLOAT16} tensor of the nearest values.
     *
     * @param values rounded, ties to even
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor ofFloat16(float[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Short.BYTES);
        for (int index = 0; index < values.length; index++) {
            data.putShort(Short.BYTES * index, HalfFloats.toFloat16(values[index]));
        }
        return wrap(DType.FLOAT16, data, Shapes.orVector(shape, values.length));
    }

    /**
     * A {@link DType#BFLOAT16} tensor of the nearest values.
     *
     * @param values rounded, ties to even
     * @param shape whole; none: of one axis
     * @return the tensor
     */
    public static Tensor ofBfloat16(float[] values, long... shape) {
        ByteBuffer data = allocate(values.length, Short.BYTES);
        for (int index = 0; index < values.length; index++) {
            data.putShort(Short.BYTES * index, HalfFloats.toBfloat16(values[index]));
        }
        return wrap(DType.BFLOAT16, data, Shapes.orVector(shape, values.length));
    }

    private static ByteBuffer allocate(int elements, int itemSize) {
        return ByteBuffer.allocate(Math.multiplyExact(elements, itemSize))
                .order(ByteOrder.LITTLE_ENDIAN);
    }

    // ---------------------------------------------------------------- what it is

    /**
     * What its elements are.
     *
     * @return the dtype
     */
    public DType dtype() {
        return dtype;
    }

    /**
     * Its shape.
     *
     * @return a copy; empty for a 0-d tensor
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * The number of its axes.
     *
     * @return 0 for a 0-d tensor
     */
    public int rank() {
        return shape.length;
    }

    /**
     * The length of an axis.
     *
     * @param axis from 0 on
     * @return its length
     */
    public long dimension(int axis) {
        return shape[Objects.checkIndex(axis, shape.length)];
    }

    /**
     * The number of its elements.
     *
     * @return 1 for a 0-d tensor
     */
    public int size() {
        return data == null ? elements.length : data.limit() / dtype.itemSize();
    }

    /**
     * The same elements in another shape.
     *
     * @param newShape of as many elements; none for a 0-d tensor
     * @return a view
     */
    public Tensor reshape(long... newShape) {
        Shapes.check(newShape, size(), "elements");
        return new Tensor(dtype, newShape.clone(), data, elements);
    }

    /**
     * Some of its rows, along the first axis.
     *
     * @param from the first row
     * @param count how many
     * @return a view
     * @throws IndexOutOfBoundsException it has not as many
     */
    public Tensor rows(long from, long count) {
        if (shape.length == 0) {
            throw new IndexOutOfBoundsException("a 0-d tensor has no rows");
        }
        Objects.checkFromIndexSize(from, count, shape[0]);
        long[] part = shape.clone();
        part[0] = count;
        int perRow = shape[0] == 0 ? 0 : (int) (size() / shape[0]);
        int first = (int) from * perRow;
        int total = (int) count * perRow;
        if (data == null) {
            return new Tensor(
                    dtype, part, null, Arrays.copyOfRange(elements, first, first + total));
        }
        ByteBuffer slice = data.slice(first * dtype.itemSize(), total * dtype.itemSize());
        return new Tensor(dtype, part, slice.order(ByteOrder.LITTLE_ENDIAN), null);
    }

    /**
     * The same values in memory of their own.
     *
     * @return a tensor that keeps no message alive
     */
    public Tensor copy() {
        if (data == null) {
            return this;
        }
        ByteBuffer own = allocate(data.limit(), 1);
        own.put(0, data, 0, data.limit());
        return new Tensor(dtype, shape, own, null);
    }

    // ---------------------------------------------------------------- its elements

    /**
     * Its bytes as they travel: little-endian elements; for {@code bytes} and {@code string} their
     * lengths, then they.
     *
     * @return a read-only view from 0 to its limit; for {@code bytes} and {@code string} a copy
     */
    public ByteBuffer data() {
        return payload().asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    /** Whether it has this dtype and shape. */
    boolean isLike(DType otherDtype, long[] otherShape) {
        return dtype == otherDtype && Arrays.equals(shape, otherShape);
    }

    /** As {@link #data}, without the protection; for who neither changes nor shares it. */
    ByteBuffer payload() {
        return data == null ? Varlen.encode(elements) : data;
    }

    /**
     * Its elements as other types: arrays, buffers and text.
     *
     * @return a reader
     */
    public Elements elements() {
        return new Elements(dtype, data, elements);
    }

    /**
     * Its elements; short for {@code elements().floats()}.
     *
     * @return a copy
     */
    public float[] floats() {
        return elements().floats();
    }

    /**
     * Its elements; short for {@code elements().longs()}.
     *
     * @return a copy
     */
    public long[] longs() {
        return elements().longs();
    }

    /**
     * Its elements; short for {@code elements().strings()}.
     *
     * @return a copy
     */
    public String[] strings() {
        return elements().strings();
    }

    /** Equal dtype, shape and bits. */
    @Override
    public boolean equals(Object other) {
        return other instanceof Tensor tensor
                && dtype == tensor.dtype
                && Arrays.equals(shape, tensor.shape)
                && Objects.equals(data, tensor.data)
                && Arrays.deepEquals(elements, tensor.elements);
    }

    @Override
    public int hashCode() {
        return Objects.hash(dtype, Arrays.hashCode(shape), data, Arrays.deepHashCode(elements));
    }

    @Override
    public String toString() {
        return dtype + Arrays.toString(shape);
    }
}
