package io.tensorwire.client;

import java.util.Arrays;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/** What the elements of a tensor are; every dtype of the protocol. */
public enum DType {
    /** One byte, 0 or 1. */
    BOOL("bool", 1),
    /** Signed, 8 bits. */
    INT8("int8", 1),
    /** Signed, 16 bits. */
    INT16("int16", 2),
    /** Signed, 32 bits. */
    INT32("int32", 4),
    /** Signed, 64 bits. */
    INT64("int64", 8),
    /** Unsigned, 8 bits. */
    UINT8("uint8", 1),
    /** Unsigned, 16 bits. */
    UINT16("uint16", 2),
    /** Unsigned, 32 bits. */
    UINT32("uint32", 4),
    /** Unsigned, 64 bits. */
    UINT64("uint64", 8),
    /** IEEE 754 half precision. */
    FLOAT16("float16", 2),
    /** IEEE 754 single precision. */
    FLOAT32("float32", 4),
    /** IEEE 754 double precision. */
    FLOAT64("float64", 8),
    /** Two {@code float32}: real and imaginary part. */
    COMPLEX64("complex64", 8),
    /** Two {@code float64}: real and imaginary part. */
    COMPLEX128("complex128", 16),
    /** The upper half of a {@code float32}. */
    BFLOAT16("bfloat16", 2),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E3M4("float8_e3m4", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E4M3("float8_e4m3", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E4M3B11FNUZ("float8_e4m3b11fnuz", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E4M3FN("float8_e4m3fn", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E4M3FNUZ("float8_e4m3fnuz", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E5M2("float8_e5m2", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E5M2FNUZ("float8_e5m2fnuz", 1),
    /** 8-bit float of ml_dtypes. */
    FLOAT8_E8M0FNU("float8_e8m0fnu", 1),
    /** Elements of any bytes and any length. */
    BYTES("bytes", 0),
    /** Elements of text of any length. */
    STRING("string", 0);

    private static final Map<String, DType> OF_NAME =
            Arrays.stream(values())
                    .collect(Collectors.toUnmodifiableMap(DType::wireName, Function.identity()));

    private final String wireName;
    private final int itemSize;

    DType(String wireName, int itemSize) {
        this.wireName = wireName;
        this.itemSize = itemSize;
    }

    /**
     * The dtype of a name on the wire.
     *
     * @param wireName for example {@code float32}
     * @return the dtype
     * @throws IllegalArgumentException no dtype has that name
     */
    public static DType of(String wireName) {
        DType found = OF_NAME.get(wireName);
        if (found == null) {
            String known = OF_NAME.keySet().stream().sorted().collect(Collectors.joining(", "));
            throw new IllegalArgumentException(
                    "unknown dtype '" + wireName + "'; expected one of " + known);
        }
        return found;
    }

    /**
     * The name on the wire and in NumPy.
     *
     * @return for example {@code float32}
     */
    public String wireName() {
        return wireName;
    }

    /**
     * The bytes of one element.
     *
     * @return 0 for {@link #BYTES} and {@link #STRING}, whose elements have any length
     */
    public int itemSize() {
        return itemSize;
    }

    /**
     * Whether elements have any length.
     *
     * @return true for {@link #BYTES} and {@link #STRING}
     */
    public boolean isVariable() {
        return itemSize == 0;
    }

    @Override
    public String toString() {
        return wireName;
    }
}
