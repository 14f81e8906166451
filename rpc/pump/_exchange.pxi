# One request and its reply, for a caller that has the client to itself.

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    short POLLIN

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initial, int flags)
    int eventfd_read(int fd, uint64_t *value)
    int eventfd_write(int fd, uint64_t value)
    int EFD_CLOEXEC
    int EFD_NONBLOCK

cdef enum:
    NUMBER_SHIFT = 16  # the client's ID_BITS
    READINGS_KEPT = 64
    #: Why a pause is over.
    LOOK = 0
    DISTURBED = 1

#: Seconds of a single sleep, and of looking without a sleep. Signals are handled between them: one that comes
#: after that and before the sleep does not end the sleep, so none may be long.
cdef double LONGEST_SLEEP = 0.1
cdef double LONGEST_LOOK = 0.005

cdef bytes REQUEST_START = bytes(MAGIC) + bytes((VERSION, Kind.REQUEST, 0, 0))
assert Kind.REPLY == 2


cdef double _monotonic() noexcept nogil:
    """The clock of ``time.monotonic``."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Reading:
    """A reply header, decoded to what C needs; its tensors have elements of fixed size, and rows."""

    cdef bytes header
    cdef tuple names
    cdef tuple shapes
    cdef tuple dtypes
    #: Behind the row count.
    cdef size_t tensors_at
    cdef Py_ssize_t tensors
    cdef uint64_t max_rows
    cdef size_t *row_nbytes

    def __cinit__(self, signature):
        layout = signature.layout
        cdef Py_ssize_t index
        self.header = signature.raw
        self.tensors_at = PREFIX_BYTES + len(signature.raw) + 4
        self.names = layout.names
        self.shapes = layout.shapes
        self.dtypes = layout.dtypes
        self.tensors = len(layout.row_nbytes)
        self.max_rows = MAX_TENSOR_NBYTES // layout._row_extent
        self.row_nbytes = <size_t *> malloc(self.tensors * sizeof(size_t))
        if self.row_nbytes == NULL:
            raise MemoryError
        for index in range(self.tensors):
            self.row_nbytes[index] = layout.row_nbytes[index]

    def __dealloc__(self):
        free(self.row_nbytes)

    cdef bint fits(self, const char *data, size_t size) noexcept nogil:
        """Whether a message of one request, whose prefix and header were checked, ends where its tensors do,
        and all of them are in it."""
        cdef size_t at = self.tensors_at
        cdef uint64_t limit = _u32(data + AT_LIMIT)
        cdef uint64_t rows
        cdef size_t nbytes
        cdef Py_ssize_t index
        if at > size:
            return False
        rows = _u32(data + at - 4)
        if rows > self.max_rows:
            return False
        for index in range(self.tensors):
            nbytes = self.row_nbytes[index] * rows
            if nbytes > limit:
                return False
            at = _aligned(at) + nbytes
        return at == size

    cdef dict outputs(self, head, const char *data):
        """The tensors of a message that fits, as read-only views of `head`, whose bytes are at `data`."""
        cdef size_t at = self.tensors_at
        cdef Py_ssize_t rows = _u32(data + at - 4)
        cdef Py_ssize_t index
        cdef dict found = {}
        for index in range(self.tensors):
            at = _aligned(at)
            shape, dtype = <tuple> self.shapes[index], self.dtypes[index]
            if new_array == NULL or (<size_t> data + at) & 15:
                # Where it lies askew, NumPy itself knows whether that matters.
                array = ndarray((rows, *shape), dtype, head, at)
            else:
                array = _array(<void *> (data + at), head, False, rows, shape, dtype)
            found[self.names[index]] = array
            at += self.row_nbytes[index] * rows
        return found


cdef class Exchange:
    """See :class:`tensorwire.rpc.ends.Exchange`."""

    cdef object socket
    cdef void *handle
    cdef dict known
    cdef double spin
    #: What becomes readable when the socket may have something, and when another thread calls.
    cdef pollfd fds[2]
    cdef dict readings
    cdef Reading reading
    cdef uint64_t first_id
    #: The thread whose signal handlers run while it exchanges.
    cdef unsigned long handling
    #: The request was sent, its reply has not come.
    cdef bint waiting
    cdef readonly double deadline

    def __cinit__(self):
        self.fds[1].fd = -1

    def __init__(self, socket, int fd, dict known, double spin):
        self.socket = socket
        self.handle = <void *> <size_t> socket.underlying
        self.known = known
        self.spin = spin
        self.readings = {}
        self.fds[0].fd = fd
        self.fds[0].events = self.fds[1].events = POLLIN
        if self.fds[1].fd < 0:
            self.fds[1].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.fds[1].fd < 0:
            raise OSError(c_errno, os.strerror(c_errno))

    def __dealloc__(self):
        if self.fds[1].fd >= 0:
            c_close(self.fds[1].fd)

    def disturb(self):
        """See :meth:`tensorwire.rpc.ends.Exchange.disturb`."""
        eventfd_write(self.fds[1].fd, 1)

    def leave(self):
        """See :meth:`tensorwire.rpc.ends.Exchange.leave`."""
        waiting, self.waiting = self.waiting, False
        return waiting

    def handles_signal(self):
        """See :meth:`tensorwire.rpc.ends.Exchange.handles_signal`."""
        cdef bint here = self.handling == <unsigned long> PyThread_get_thread_ident()
        return here

    def call(self, uint64_t number, bytes tail, tensor, timeout):
        """See :meth:`tensorwire.rpc.ends.Exchange.call`."""
        self.waiting = False
        # A closed socket's memory is gone.
        if self.socket.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        _reap()
        self.deadline = INFINITY if timeout is None else _monotonic() + <double> timeout
        self.first_id = number << NUMBER_SHIFT
        if not self.post(tail, tensor):
            return None
        self.waiting = True
        return self.answer()

    cdef bint post(self, bytes tail, tensor) except -1:
        """Send the request; False: the tensor's bytes do not lie in one piece."""
        cdef Py_buffer view
        cdef msg_t head
        cdef msg_t body
        cdef int error
        try:
            PyObject_GetBuffer(tensor, &view, PyBUF_SIMPLE)
        except (BufferError, ValueError):
            return False
        cdef bint inlined = <size_t> view.len <= INLINE
        try:
            self.write(&head, tail, &view, view.len if inlined else 0)
        finally:
            PyBuffer_Release(&view)
        if not inlined:
            self.take_off(&head, &body, tensor)
        error = _send(&head, self.handle, 0 if inlined else SNDMORE)
        if error:
            msg_close(&head)
        elif not inlined:
            error = _send(&body, self.handle, 0)
        if error:
            if not inlined:
                msg_close(&body)
            raise _zmq_error(error)
        return True

    cdef int write(self, msg_t *head, bytes tail, Py_buffer *view, size_t nbytes) except -1:
        """The head frame, with so many bytes of the tensor."""
        cdef size_t at = AT_TIMEOUT + PyBytes_GET_SIZE(tail)
        cdef char *data
        if msg_init_size(head, at + nbytes):
            raise MemoryError
        data = <char *> msg_data(head)
        memcpy(data, PyBytes_AS_STRING(REQUEST_START), AT_ID)
        memcpy(data + AT_ID, &self.first_id, 8)
        memcpy(data + AT_TIMEOUT, PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
        memcpy(data + at, view.buf, nbytes)
        return 0

    cdef int take_off(self, msg_t *head, msg_t *body, tensor) except -1:
        try:
            _take_off(body, tensor)
        except BaseException:
            msg_close(head)
            raise
        return 0

    cdef object answer(self):
        """Wait for a message; see ``call``."""
        cdef msg_t message
        cdef int error
        cdef int outcome = LOOK
        cdef double look_until = _monotonic() + self.spin if self.spin else 0.0
        msg_init(&message)
        try:
            while outcome == LOOK:
                self.handle_signals()
                if not self.waiting:
                    return None
                # Also before the first sleep: sending can swallow the signal that something has arrived.
                error = _recv(&message, self.handle)
                if not error:
                    return self.taken(&message)
                if error != EAGAIN:
                    raise _zmq_error(error)
                if _monotonic() >= self.deadline:
                    return None
                with nogil:
                    outcome = self.pause(look_until)
        finally:
            msg_close(&message)
        return None

    cdef int handle_signals(self) except -1:
        """Run Python's signal handlers, which may use the client, close the socket, and raise anything."""
        self.handling = <unsigned long> PyThread_get_thread_ident()
        try:
            PyErr_CheckSignals()
            # pyzmq may run some, too.
            closed = self.socket.closed
        finally:
            self.handling = 0
        if closed and self.waiting:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        return 0

    cdef int pause(self, double look_until) noexcept nogil:
        """Until something may have arrived, another thread calls, or a signal comes, or for some time."""
        cdef double now = _monotonic()
        cdef double until
        cdef uint64_t times
        cdef int found = 0
        if now < look_until:
            until = min(min(look_until, now + LONGEST_LOOK), self.deadline)
            while found == 0 and now < until:
                found = poll(self.fds, 2, 0)
                now = _monotonic()
        else:
            found = poll(self.fds, 2, <int> (max(0.0, min(LONGEST_SLEEP, self.deadline - now)) * 1e3) + 1)
        if found > 0 and self.fds[1].revents:
            eventfd_read(self.fds[1].fd, &times)
            return DISTURBED
        return LOOK

    cdef object taken(self, msg_t *message):
        """What a message is: the reply as a dict of its outputs, or anything else as it came."""
        cdef const char *data = <const char *> msg_data(message)
        cdef size_t size = msg_size(message)
        cdef Reading reading = None
        cdef bint more = msg_more(message)
        if not more and self.is_reply(data, size):
            reading = self.reading_of(data + PREFIX_BYTES, _u32(data + AT_HEADER_LEN))
        head = _head(message)
        if reading is None or not reading.fits(data, size):
            return head, (_rest(self.handle) if more else ())
        self.waiting = False
        _reap()
        if type(head) is bytes:
            data = PyBytes_AS_STRING(head)
        return reading.outputs(head, data)

    cdef bint is_reply(self, const char *data, size_t size) noexcept nogil:
        """Whether the prefix is that of a reply to the one request that is waited for."""
        return (
            size >= PREFIX_BYTES
            and _u32(data) == MAGIC_WORD
            and data[AT_VERSION] == 1
            and data[AT_KIND] == 2
            and _u64(data + AT_ID) == self.first_id
            and _u32(data + AT_COUNT) == 1
            and not _u32(data + AT_EXTRA_LEN)
            and _u32(data + AT_HEADER_LEN) <= size - PREFIX_BYTES
        )

    cdef Reading reading_of(self, const char *header, size_t length):
        """How messages with these header bytes are read; None: not here, or not yet."""
        cdef Reading reading = self.reading
        if reading is not None and <size_t> PyBytes_GET_SIZE(reading.header) == length:
            if not memcmp(PyBytes_AS_STRING(reading.header), header, length):
                return reading
        cdef bytes raw = PyBytes_FromStringAndSize(header, length)
        reading = self.readings.get(raw)
        if reading is None:
            signature = self.known.get(raw)
            if signature is None or not signature.layout.groupable:
                return None
            if len(self.readings) >= READINGS_KEPT:
                self.readings.clear()
            reading = self.readings[raw] = Reading(signature)
        self.reading = reading
        return reading
