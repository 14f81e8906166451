# Requests of one tensor each, written into libzmq's memory and sent.

cdef enum:
    NUMBER_SHIFT = 16  # the client's ID_BITS

cdef bytes REQUEST_START = bytes(MAGIC) + bytes((VERSION, Kind.REQUEST, 0, 0))


cdef int _write_start(char *data, uint64_t first_id, bytes tail, size_t nbytes) except -1:
    """The head frame up to the id, and the first bytes of a tail."""
    memcpy(data, PyBytes_AS_STRING(REQUEST_START), AT_ID)
    memcpy(data + AT_ID, &first_id, 8)
    memcpy(data + AT_TIMEOUT, PyBytes_AS_STRING(tail), nbytes)
    return 0


cdef int _send_both(void *handle, msg_t *head, msg_t *body) except -1:
    """Send a message of one frame, or of two; both are gone afterwards in any case."""
    cdef int error = _send(head, handle, 0 if body == NULL else SNDMORE)
    if error:
        msg_close(head)
    elif body != NULL:
        error = _send(body, handle, 0)
    if error:
        if body != NULL:
            msg_close(body)
        raise _zmq_error(error)
    return 0


cdef bint _post_one(void *handle, uint64_t first_id, bytes tail, tensor) except -1:
    """Send one request; False: the tensor's bytes do not lie in one piece."""
    cdef Py_buffer view
    cdef msg_t head
    cdef msg_t body
    cdef size_t at = AT_TIMEOUT + PyBytes_GET_SIZE(tail)
    try:
        PyObject_GetBuffer(tensor, &view, PyBUF_SIMPLE)
    except (BufferError, ValueError):
        return False
    cdef bint inlined = <size_t> view.len <= INLINE
    try:
        if msg_init_size(&head, at + (view.len if inlined else 0)):
            raise MemoryError
        _write_start(<char *> msg_data(&head), first_id, tail, PyBytes_GET_SIZE(tail))
        if inlined:
            memcpy(<char *> msg_data(&head) + at, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    if not inlined:
        try:
            _take_off(&body, tensor)
        except BaseException:
            msg_close(&head)
            raise
    _send_both(handle, &head, NULL if inlined else &body)
    return True


cdef bint _gather(char *data, size_t nbytes, list tensors) except -1:
    """Copy tensors behind each other; False: one is not in one piece of so many bytes."""
    cdef Py_buffer view
    cdef bint fits
    for tensor in tensors:
        try:
            PyObject_GetBuffer(tensor, &view, PyBUF_SIMPLE)
        except (BufferError, ValueError):
            return False
        fits = <size_t> view.len == nbytes
        if fits:
            memcpy(data, view.buf, nbytes)
        PyBuffer_Release(&view)
        if not fits:
            return False
        data += nbytes
    return True


cdef bint _post_many(void *handle, uint64_t first_id, bytes tail, size_t nbytes, list tensors) except -1:
    """Send several requests in one message; False: nothing was sent, see :func:`_gather`."""
    cdef msg_t head
    cdef msg_t body
    cdef const char *from_tail = PyBytes_AS_STRING(tail)
    cdef uint32_t count = <uint32_t> len(tensors)
    cdef uint32_t index
    if PyBytes_GET_SIZE(tail) < PREFIX_BYTES - AT_TIMEOUT:
        raise ValueError("the tail is shorter than a prefix")
    # What follows the id is in the tail: the lengths, the parts that they are of, and one row count.
    cdef size_t rows_at = PREFIX_BYTES
    rows_at += _u32(from_tail + AT_HEADER_LEN - AT_TIMEOUT) + _u32(from_tail + AT_EXTRA_LEN - AT_TIMEOUT)
    cdef size_t at = rows_at + 4 * <size_t> count
    cdef bint inlined = nbytes * count <= INLINE
    cdef bint gathered = False
    cdef char *data
    if rows_at + 4 > AT_TIMEOUT + <size_t> PyBytes_GET_SIZE(tail):
        raise ValueError("the tail is shorter than it says")
    if msg_init_size(&head, _aligned(at) + nbytes * count if inlined else at):
        raise MemoryError
    data = <char *> msg_data(&head)
    _write_start(data, first_id, tail, rows_at - AT_TIMEOUT)
    memcpy(data + AT_COUNT, &count, 4)
    for index in range(count):
        memcpy(data + rows_at + 4 * index, from_tail + rows_at - AT_TIMEOUT, 4)
    if inlined:
        memset(data + at, 0, _aligned(at) - at)
        data += _aligned(at)
    elif msg_init_size(&body, nbytes * count):
        msg_close(&head)
        raise MemoryError
    else:
        data = <char *> msg_data(&body)
    try:
        gathered = _gather(data, nbytes, tensors)
    finally:
        if not gathered:
            msg_close(&head)
            if not inlined:
                msg_close(&body)
    if gathered:
        _send_both(handle, &head, NULL if inlined else &body)
    return gathered


cdef class Poster:
    """See :class:`tensorwire.rpc.ends.Poster`."""

    cdef object socket
    cdef void *handle

    def __init__(self, socket):
        self.socket = socket
        self.handle = <void *> <size_t> socket.underlying

    def post(self, uint64_t number, bytes tail, size_t nbytes, list tensors):
        """See :meth:`tensorwire.rpc.ends.Poster.post`."""
        # A closed socket's memory is gone.
        if self.socket.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        _reap()
        if not tensors:
            return False
        if len(tensors) == 1:
            return _post_one(self.handle, number << NUMBER_SHIFT, tail, tensors[0])
        return _post_many(self.handle, number << NUMBER_SHIFT, tail, nbytes, tensors)
