# Signatures as the loop over messages needs them.

cdef enum:
    #: A head in bytes up to this, because slices of bytes are cheaper than those of a view.
    COPIED_NBYTES = 4096
    TENSORS = 256
    CHUNK = 64
    SLOTS = 4096
    PROBES = 16
    PLANS_KEPT = 1024
    PLANS_KEPT_NBYTES = 1 << 20
    GATHER_WITHOUT_GIL = 1 << 16

cdef uint64_t COUNT_LIMIT = MAX_COUNT
cdef uint64_t LAST_ID = MAX_ID
cdef uint64_t ENOUGH_NBYTES = DRAIN_NBYTES
assert MAX_TENSORS == TENSORS


cdef uint64_t _hashed(const char *data, size_t length, uint64_t seed) noexcept nogil:
    """Any fair mix will do: what collides costs a bounded number of steps, then takes the long way."""
    cdef uint64_t value = seed ^ length
    cdef uint64_t word
    while length >= 8:
        value = (value ^ _u64(data)) * <uint64_t> 0x9E3779B97F4A7C15
        value ^= value >> 29
        data += 8
        length -= 8
    if length:
        word = 0
        memcpy(&word, data, length)
        value = (value ^ word) * <uint64_t> 0x9E3779B97F4A7C15
        value ^= value >> 29
    return value


cdef struct Plan:
    # A signature as the loop needs it.
    const char *header  # the signature's own bytes
    size_t header_len
    uint64_t max_rows  # with more, a tensor were larger than any message
    Py_ssize_t tensors
    size_t *row_nbytes
    PyObject *entry
    bint placed  # in the table
    uint64_t drain  # the drain that `group` belongs to
    Py_ssize_t group


cdef struct Record:
    # A message that was read, or has room to be.
    msg_t peer
    msg_t head
    uint64_t first_id
    uint64_t rows
    double deadline
    size_t rows_at
    size_t tensors_at
    uint32_t count
    bint unit_rows
    Py_ssize_t next  # in its group; -1: none


cdef struct Group:
    Plan *plan
    PyObject *key  # (header, priority, routing key), or NULL
    Py_ssize_t first
    Py_ssize_t last
    Py_ssize_t messages
    uint64_t requests
    uint64_t rows
    bint unit_rows  # every request has one row


cdef class Entry:
    """A groupable signature, decoded to what C needs."""

    cdef Plan plan
    cdef readonly object signature
    cdef tuple dtypes
    cdef tuple shapes

    def __cinit__(self, signature):
        layout = signature.layout
        self.signature = signature
        self.dtypes = layout.dtypes
        self.shapes = layout.shapes
        cdef bytes raw = signature.raw
        cdef Py_ssize_t index
        self.plan.header = PyBytes_AS_STRING(raw)
        self.plan.header_len = len(raw)
        self.plan.max_rows = MAX_TENSOR_NBYTES // layout._row_extent
        self.plan.tensors = len(layout.row_nbytes)
        self.plan.row_nbytes = <size_t *> malloc(self.plan.tensors * sizeof(size_t))
        if self.plan.row_nbytes == NULL:
            raise MemoryError
        for index in range(self.plan.tensors):
            self.plan.row_nbytes[index] = layout.row_nbytes[index]
        self.plan.entry = <PyObject *> self

    def __dealloc__(self):
        free(self.plan.row_nbytes)
