package io.tensorwire.client;

/** Conversion of {@code float16} and {@code bfloat16}, which Java 17 does not have. */
final class HalfFloats {
    private static final int FLOAT_NAN_QUIET = 0x7fc0_0000;

    private HalfFloats() {}

    /** The float that a {@code bfloat16} is. */
    static float fromBfloat16(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    /** The nearest {@code bfloat16}; ties go to the even one. */
    static short toBfloat16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            // Rounding could make an infinity of it.
            return (short) ((bits | FLOAT_NAN_QUIET) >>> 16);
        }
        return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
    }

    /** The float that a {@code float16} is. */
    static float fromFloat16(short half) {
        int sign = (half & 0x8000) << 16;
        int exponent = (half >>> 10) & 0x1f;
        int fraction = half & 0x3ff;
        if (exponent == 0) {
            float magnitude = fraction * 0x1p-24f;
            return sign == 0 ? magnitude : -magnitude;
        }
        int widened = exponent == 0x1f ? 0xff : exponent + (127 - 15);
        return Float.intBitsToFloat(sign | widened << 23 | fraction << 13);
    }

    /** The nearest {@code float16}; ties go to the even one, what is too large to infinity. */
    static short toFloat16(float value) {
        int bits = Float.floatToRawIntBits(value);
        int sign = (bits >>> 16) & 0x8000;
        int magnitude = bits & 0x7fff_ffff;
        if (Float.isNaN(value)) {
            return (short) (sign | 0x7e00 | (magnitude >>> 13 & 0x3ff));
        }
        if (magnitude < 0x3880_0000) {
            // Below 2^-14: a multiple of 2^-24, which rint rounds half to even. 2^-14 itself
            // carries over rightly.
            return (short) (sign | (int) Math.rint(Float.intBitsToFloat(magnitude) * 0x1p24));
        }
        int rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
        int half = (rounded >>> 13) - ((127 - 15) << 10);
        return (short) (sign | Math.min(half, 0x7c00));
    }
}
