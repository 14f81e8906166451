# libzmq as pyzmq has loaded it.
#
# The functions are looked up in the library that is already there, so that building needs neither libzmq nor
# its headers, and sockets and messages belong to the same libzmq as pyzmq's.

#: zmq_msg_t: 64 bytes that only libzmq looks into.
cdef struct msg_t:
    uint64_t opaque[8]

ctypedef void (*free_fn)(void *data, void *hint) noexcept nogil

cdef int (*msg_init)(msg_t *) noexcept nogil
cdef int (*msg_init_size)(msg_t *, size_t) noexcept nogil
cdef int (*msg_init_data)(msg_t *, void *, size_t, free_fn, void *) noexcept nogil
cdef int (*msg_close)(msg_t *) noexcept nogil
cdef int (*msg_copy)(msg_t *, msg_t *) noexcept nogil
cdef int (*msg_more)(const msg_t *) noexcept nogil
cdef int (*msg_recv)(msg_t *, void *, int) noexcept nogil
cdef int (*msg_send)(msg_t *, void *, int) noexcept nogil
cdef size_t (*msg_size)(const msg_t *) noexcept nogil
cdef void *(*msg_data)(msg_t *) noexcept nogil
cdef int (*last_errno)() noexcept nogil

cdef int DONTWAIT = 1
cdef int SNDMORE = 2


cdef size_t _address(object library, str name) except 0:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value


cdef int _load() except -1:
    global msg_init, msg_init_size, msg_init_data, msg_close, msg_copy, msg_more
    global msg_recv, msg_send, msg_size, msg_data, last_errno
    library = ctypes.CDLL(zmq.backend.cython._zmq.__file__)
    msg_init = <int (*)(msg_t *) noexcept nogil> _address(library, "zmq_msg_init")
    msg_init_size = <int (*)(msg_t *, size_t) noexcept nogil> _address(library, "zmq_msg_init_size")
    msg_init_data = <int (*)(msg_t *, void *, size_t, free_fn, void *) noexcept nogil> _address(
        library, "zmq_msg_init_data"
    )
    msg_close = <int (*)(msg_t *) noexcept nogil> _address(library, "zmq_msg_close")
    msg_copy = <int (*)(msg_t *, msg_t *) noexcept nogil> _address(library, "zmq_msg_copy")
    msg_more = <int (*)(const msg_t *) noexcept nogil> _address(library, "zmq_msg_more")
    msg_recv = <int (*)(msg_t *, void *, int) noexcept nogil> _address(library, "zmq_msg_recv")
    msg_send = <int (*)(msg_t *, void *, int) noexcept nogil> _address(library, "zmq_msg_send")
    msg_size = <size_t (*)(const msg_t *) noexcept nogil> _address(library, "zmq_msg_size")
    msg_data = <void *(*)(msg_t *) noexcept nogil> _address(library, "zmq_msg_data")
    last_errno = <int (*)() noexcept nogil> _address(library, "zmq_errno")
    return 0


try:
    if sys.byteorder != "little":
        raise ImportError("the compiled pump reads the wire's integers as they are: little-endian only")
    _load()
except (AttributeError, OSError) as error:
    # Some builds of pyzmq hide libzmq's functions: the caller then takes the pump in plain Python.
    raise ImportError(f"pyzmq's libzmq cannot be called: {error}") from error


cdef int _recv(msg_t *message, void *socket) noexcept nogil:
    """0, or the error; a signal is no reason to stop, as nothing here waits."""
    cdef int error
    while msg_recv(message, socket, DONTWAIT) < 0:
        error = last_errno()
        if error != EINTR:
            return error
    return 0


cdef int _send(msg_t *message, void *socket, int flags) noexcept nogil:
    """0, or the error; the message still is the caller's then."""
    cdef int error
    while msg_send(message, socket, flags | DONTWAIT) < 0:
        error = last_errno()
        if error != EINTR:
            return error
    return 0


cdef object _zmq_error(int error):
    """What pyzmq raises."""
    if error == EAGAIN:
        return zmq.Again(error)
    return zmq.ContextTerminated(error) if error == zmq.ETERM else zmq.ZMQError(error)


cdef class Frame:
    """A received frame: its bytes are libzmq's own, and go back when the last view of them is gone."""

    cdef msg_t message

    def __cinit__(self):
        msg_init(&self.message)

    def __dealloc__(self):
        msg_close(&self.message)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, msg_data(&self.message), msg_size(&self.message), False, flags)

    def __len__(self):
        return msg_size(&self.message)
