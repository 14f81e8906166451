# Replies at a client's end: what their headers mean, and the arrays that are in them.

cdef enum:
    READINGS_KEPT = 64

assert Kind.REPLY == 2


cdef bint _is_plain_reply(const char *data, size_t size) noexcept nogil:
    """Whether a message of one frame begins as a reply without extras whose header is all there."""
    return (
        size >= PREFIX_BYTES
        and _u32(data) == MAGIC_WORD
        and data[AT_VERSION] == 1
        and data[AT_KIND] == 2
        and not _u32(data + AT_EXTRA_LEN)
        and _u32(data + AT_HEADER_LEN) <= size - PREFIX_BYTES
    )


cdef class Reading:
    """A reply header, decoded to what C needs; its tensors have elements of fixed size, and rows."""

    cdef bytes header
    cdef tuple names
    cdef tuple shapes
    cdef tuple dtypes
    #: Of the row counts.
    cdef size_t rows_at
    cdef Py_ssize_t tensors
    cdef uint64_t max_rows
    cdef size_t *row_nbytes
    cdef size_t *alignments

    def __cinit__(self, signature):
        layout = signature.layout
        cdef Py_ssize_t index
        self.header = signature.raw
        self.rows_at = PREFIX_BYTES + len(signature.raw)
        self.names = layout.names
        self.shapes = layout.shapes
        self.dtypes = layout.dtypes
        self.tensors = len(layout.row_nbytes)
        self.max_rows = layout.max_rows
        self.row_nbytes = <size_t *> malloc(2 * self.tensors * sizeof(size_t))
        if self.row_nbytes == NULL:
            raise MemoryError
        self.alignments = self.row_nbytes + self.tensors
        for index in range(self.tensors):
            self.row_nbytes[index] = layout.row_nbytes[index]
            self.alignments[index] = layout.dtypes[index].alignment

    def __dealloc__(self):
        free(self.row_nbytes)

    cdef bint fits(self, const char *data, size_t size, size_t at, uint64_t rows) noexcept nogil:
        """Whether a message with so many rows, whose tensors begin behind `at`, ends where they do, and all of
        them are in it."""
        cdef uint64_t limit = _u32(data + AT_LIMIT)
        cdef size_t nbytes
        cdef Py_ssize_t index
        if rows > self.max_rows:
            return False
        for index in range(self.tensors):
            nbytes = self.row_nbytes[index] * rows
            if nbytes > limit:
                return False
            at = _aligned(at) + nbytes
        return at == size

    cdef bint fits_one(self, const char *data, size_t size) noexcept nogil:
        """Whether a message about one request, whose prefix and header were checked, is well made."""
        cdef size_t at = self.rows_at + 4
        return at <= size and self.fits(data, size, at, _u32(data + self.rows_at))

    cdef bint fits_unit_rows(self, const char *data, size_t size, uint32_t count) noexcept nogil:
        """Whether one about so many requests is, and each of them has one row."""
        cdef size_t at = self.rows_at + 4 * <size_t> count
        cdef uint32_t index
        if at > size:
            return False
        for index in range(count):
            if _u32(data + self.rows_at + 4 * index) != 1:
                return False
        return self.fits(data, size, at, count)

    cdef object tensor(self, Py_ssize_t index, head, const char *data, size_t at, Py_ssize_t rows):
        """Rows of a tensor as a read-only view of `head`, whose bytes are at `data`."""
        shape, dtype = <tuple> self.shapes[index], self.dtypes[index]
        if new_array == NULL or (<size_t> data + at) % self.alignments[index]:
            # Where it lies askew, NumPy itself knows whether that matters.
            return ndarray((rows, *shape), dtype, head, at)
        return _array(<void *> (data + at), head, False, rows, shape, dtype)

    cdef dict outputs_of_one(self, head, const char *data):
        """The tensors of a message about one request that fits."""
        cdef size_t at = self.rows_at + 4
        cdef Py_ssize_t rows = _u32(data + self.rows_at)
        cdef Py_ssize_t index
        cdef dict found = {}
        for index in range(self.tensors):
            at = _aligned(at)
            found[self.names[index]] = self.tensor(index, head, data, at, rows)
            at += self.row_nbytes[index] * rows
        return found

    cdef dict outputs_of_row(self, head, const char *data, uint32_t count, uint32_t row):
        """Those of one request of a message about several of one row each."""
        cdef size_t at = self.rows_at + 4 * <size_t> count
        cdef Py_ssize_t index
        cdef dict found = {}
        for index in range(self.tensors):
            at = _aligned(at)
            found[self.names[index]] = self.tensor(
                index, head, data, at + self.row_nbytes[index] * row, 1
            )
            at += self.row_nbytes[index] * count
        return found


cdef class Readings:
    """What is known of reply headers, by their bytes."""

    #: Of the client: header bytes -> its signature. Who reads messages in Python adds to it.
    cdef dict known
    cdef dict kept
    cdef Reading last

    def __init__(self, dict known):
        self.known = known
        self.kept = {}

    cdef Reading find(self, const char *header, size_t length):
        """How messages with these header bytes are read; None: not here, or not yet."""
        cdef Reading reading = self.last
        if reading is not None and <size_t> PyBytes_GET_SIZE(reading.header) == length:
            if not memcmp(PyBytes_AS_STRING(reading.header), header, length):
                return reading
        cdef bytes raw = PyBytes_FromStringAndSize(header, length)
        reading = self.kept.get(raw)
        if reading is None:
            signature = self.known.get(raw)
            if signature is None or not signature.layout.groupable:
                return None
            if len(self.kept) >= READINGS_KEPT:
                self.kept.clear()
            reading = self.kept[raw] = Reading(signature)
        self.last = reading
        return reading
