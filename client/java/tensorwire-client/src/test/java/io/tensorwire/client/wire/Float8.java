package io.tensorwire.client.wire;

import io.tensorwire.client.DType;

/** The value of an 8-bit float, for comparing with the vectors; finite values only. */
final class Float8 {
    private Float8() {}

    static double value(DType dtype, byte raw) {
        int bits = Byte.toUnsignedInt(raw);
        return switch (dtype) {
            case FLOAT8_E8M0FNU -> Math.pow(2, bits - 127);
            case FLOAT8_E3M4 -> decode(bits, 4, 3);
            case FLOAT8_E4M3, FLOAT8_E4M3FN -> decode(bits, 3, 7);
            case FLOAT8_E4M3FNUZ -> decode(bits, 3, 8);
            case FLOAT8_E4M3B11FNUZ -> decode(bits, 3, 11);
            case FLOAT8_E5M2 -> decode(bits, 2, 15);
            case FLOAT8_E5M2FNUZ -> decode(bits, 2, 16);
            default -> throw new IllegalArgumentException(dtype.wireName());
        };
    }

    private static double decode(int bits, int fractionBits, int bias) {
        double sign = (bits & 0x80) == 0 ? 1 : -1;
        int exponent = (bits & 0x7f) >> fractionBits;
        double fraction = (bits & ((1 << fractionBits) - 1)) / (double) (1 << fractionBits);
        return exponent == 0
                ? sign * fraction * Math.pow(2, 1 - bias)
                : sign * (1 + fraction) * Math.pow(2, exponent - bias);
    }
}
