package io.tensorwire.client.wire;

import io.tensorwire.client.DType;

import java.util.Arrays;

/**
 * One tensor in a header: {@code [name, dtype, shape]}; the shape lacks the rows where the header
 * says so.
 */
public final class TensorHeader {
    /** Tensors of more bytes exist nowhere; keeps arithmetic far from overflow. */
    static final long MAX_TENSOR_BYTES = 1L << 48;

    private static final int MAX_RANK = 31;
    private static final int VARIABLE_ELEMENT_SIZE = 8;

    private final String name;
    private final DType dtype;
    private final long[] shape;
    private final long elements;
    private final long extent;

    /**
     * A tensor in a header.
     *
     * @param name of the input or output
     * @param dtype of its elements
     * @param shape with or without rows
     * @throws ProtocolException the shape is impossible
     */
    public TensorHeader(String name, DType dtype, long... shape) {
        this.name = name;
        this.dtype = dtype;
        this.shape = shape.clone();
        checkShape();
        this.elements = product(false);
        int itemSize = dtype.isVariable() ? VARIABLE_ELEMENT_SIZE : dtype.itemSize();
        this.extent = checkedExtent(product(true), itemSize);
    }

    /**
     * Its name.
     *
     * @return of the input or output
     */
    public String name() {
        return name;
    }

    /**
     * Its dtype.
     *
     * @return of its elements
     */
    public DType dtype() {
        return dtype;
    }

    /**
     * Its shape.
     *
     * @return a copy
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * The shape of so many rows of it.
     *
     * @param rows the first dimension; negative: the shape is whole already
     * @return a new array
     */
    public long[] shape(long rows) {
        if (rows < 0) {
            return shape();
        }
        long[] whole = new long[shape.length + 1];
        whole[0] = rows;
        System.arraycopy(shape, 0, whole, 1, shape.length);
        return whole;
    }

    /** The elements of one row, or of the whole tensor. */
    long elements() {
        return elements;
    }

    /**
     * Its bytes with each 0 among its dimensions taken as 1; of one row, or of the whole tensor.
     */
    long extent() {
        return extent;
    }

    /** Whether it has this shape, behind a first axis of rows or without one. */
    boolean matches(long[] whole, boolean rows) {
        int skipped = rows ? 1 : 0;
        return Arrays.equals(
                shape, 0, shape.length, whole, skipped, Math.max(skipped, whole.length));
    }

    private void checkShape() {
        if (shape.length > MAX_RANK) {
            throw new ProtocolException(
                    "tensor '"
                            + name
                            + "' has "
                            + shape.length
                            + " dimensions; at most "
                            + MAX_RANK
                            + " are allowed");
        }
        for (long dimension : shape) {
            if (dimension < 0 || dimension > MAX_TENSOR_BYTES) {
                throw new ProtocolException(
                        "tensor '" + name + "' has an impossible shape " + Arrays.toString(shape));
            }
        }
    }

    private long product(boolean zeroAsOne) {
        long product = 1;
        for (long dimension : shape) {
            product = checkedExtent(product, zeroAsOne ? Math.max(1, dimension) : dimension);
        }
        return product;
    }

    private long checkedExtent(long size, long factor) {
        if (factor > 0 && size > MAX_TENSOR_BYTES / factor) {
            throw new ProtocolException(
                    "tensor '"
                            + name
                            + "' of shape "
                            + Arrays.toString(shape)
                            + " is larger than any message");
        }
        return size * factor;
    }

    @Override
    public String toString() {
        return name + ": " + dtype + Arrays.toString(shape);
    }
}
