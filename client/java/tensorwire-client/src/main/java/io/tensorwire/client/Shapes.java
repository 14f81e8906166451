package io.tensorwire.client;

import java.util.Arrays;

/** Arithmetic of shapes. */
final class Shapes {
    private Shapes() {}

    /**
     * The elements of a shape.
     *
     * @throws IllegalArgumentException a dimension is negative, or they are more than fit into a
     *     long
     */
    static long elements(long[] shape) {
        boolean empty = false;
        long elements = 1;
        for (long dimension : shape) {
            if (dimension < 0) {
                throw new IllegalArgumentException(
                        "shape "
                                + Arrays.toString(shape)
                                + " has the dimension "
                                + dimension
                                + "; expected 0 or more");
            }
            empty |= dimension == 0;
            if (Math.multiplyHigh(elements, Math.max(1, dimension)) != 0) {
                throw new IllegalArgumentException(
                        "shape " + Arrays.toString(shape) + " is larger than any tensor");
            }
            elements *= Math.max(1, dimension);
        }
        return empty ? 0 : elements;
    }

    /** Checks that a shape has so many elements; {@code what} was found is for the message. */
    static void check(long[] shape, long found, String what) {
        long expected = elements(shape);
        if (expected != found) {
            throw new IllegalArgumentException(
                    "shape "
                            + Arrays.toString(shape)
                            + " needs "
                            + expected
                            + " "
                            + what
                            + ", found "
                            + found);
        }
    }

    /** The shape as given, or of one axis where none is. */
    static long[] orVector(long[] shape, int length) {
        return shape.length == 0 ? new long[] {length} : shape.clone();
    }
}
