# Tensors: memory that belongs to them, and arrays made of it.

cdef extern from "Python.h":
    int PyBuffer_FillInfo(Py_buffer *, object, void *, Py_ssize_t, bint, int) except -1


cdef class Block:
    """Zero or more rows of one tensor, at an address that is a multiple of 64: what vector code likes best.

    Read-only, because requests of several callers may share it. It belongs to the arrays that are made of
    it, and its memory is used again by nobody before the last of them is gone.
    """

    cdef char *data
    cdef Py_ssize_t nbytes

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.nbytes, True, flags)

    def __len__(self):
        return self.nbytes


cdef Block _new_block(size_t nbytes):
    cdef Block block = Block.__new__(Block)
    cdef void *data = NULL
    if posix_memalign(&data, 64, nbytes or 1):
        raise MemoryError(f"no memory for {nbytes} bytes of tensors")
    block.data = <char *> data
    block.nbytes = nbytes
    return block


# NumPy's own way to make an array takes a tenth of the time of its Python interface. Its functions stand in
# a table whose order never changes within a major version, or compiled packages would break; so they need no
# header.

ctypedef unsigned int (*_version_fn)() noexcept
ctypedef object (*_new_array_fn)(
    PyTypeObject *, PyObject *, int, const Py_ssize_t *, const Py_ssize_t *, void *, int, PyObject *
)
ctypedef int (*_set_base_fn)(PyObject *, PyObject *) except -1

cdef enum:
    NUMPY_VERSION = 0
    NUMPY_NEW_FROM_DESCR = 94
    NUMPY_SET_BASE = 282
    NUMPY_ALIGNED = 0x0100
    NUMPY_WRITABLE = 0x0400
    MAX_DIMS = 32  # MAX_RANK

cdef _new_array_fn new_array = NULL
cdef _set_base_fn set_base = NULL


cdef int _find_numpy() except -1:
    """Leaves the functions NULL where this NumPy is of a major version that was not seen yet."""
    global new_array, set_base
    table = getattr(_multiarray_umath, "_ARRAY_API", None)
    if table is None or not PyCapsule_IsValid(table, NULL):
        return 0
    cdef void **functions = <void **> PyCapsule_GetPointer(table, NULL)
    if (<_version_fn> functions[NUMPY_VERSION])() not in (0x01000009, 0x02000000):
        return 0
    new_array = <_new_array_fn> functions[NUMPY_NEW_FROM_DESCR]
    set_base = <_set_base_fn> functions[NUMPY_SET_BASE]
    return 0


_find_numpy()


cdef object _array(void *data, owner, bint writable, Py_ssize_t rows, tuple shape, dtype):
    """An array ``[rows, *shape]`` of the memory that `owner` exports as a buffer; it has the bytes for it."""
    cdef Py_ssize_t dims[MAX_DIMS]
    cdef int rank = 1
    if new_array == NULL or len(shape) >= MAX_DIMS:
        return ndarray((rows, *shape), dtype, owner)
    dims[0] = rows
    for size in shape:
        dims[rank] = size
        rank += 1
    cdef int flags = NUMPY_ALIGNED | (NUMPY_WRITABLE if writable else 0)
    # The calls take over their references to dtype and owner.
    Py_INCREF(dtype)
    array = new_array(
        <PyTypeObject *> ndarray, <PyObject *> dtype, rank, dims, NULL, data, flags, NULL
    )
    Py_INCREF(owner)
    set_base(<PyObject *> array, <PyObject *> owner)
    return array


cdef object _copied_array(const char *data, size_t nbytes, Py_ssize_t rows, tuple shape, dtype):
    cdef Block block = _new_block(nbytes)
    memcpy(block.data, data, nbytes)
    return _array(block.data, block, False, rows, shape, dtype)
