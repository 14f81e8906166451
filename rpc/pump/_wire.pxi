# The fields of a message's prefix, little-endian integers in it.

#: Offsets in the prefix; see ..wire.prefix.PREFIX.
cdef enum:
    AT_VERSION = 4
    AT_KIND = 5
    AT_ID = 8
    AT_TIMEOUT = 16
    AT_COUNT = 24
    AT_HEADER_LEN = 28
    AT_EXTRA_LEN = 32
    AT_LIMIT = 36
    AT_QUEUE_US = 40
    AT_COMPUTE_US = 44
    PREFIX_BYTES = 48

cdef uint32_t MAGIC_WORD = int.from_bytes(MAGIC, "little")
assert PREFIX_SIZE == PREFIX_BYTES and VERSION == 1 and Kind.REQUEST == 1


cdef inline uint32_t _u32(const char *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint64_t _u64(const char *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline size_t _aligned(size_t offset) noexcept nogil:
    return (offset + 15) & ~<size_t> 15
