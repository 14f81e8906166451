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
    #: Why a pause is over.
    LOOK = 0
    DISTURBED = 1

#: Seconds of a single sleep, and of looking without a sleep. Signals are handled between them: one that comes
#: after that and before the sleep does not end the sleep, so none may be long.
cdef double LONGEST_SLEEP = 0.1
cdef double LONGEST_LOOK = 0.005

cdef double _monotonic() noexcept nogil:
    """The clock of ``time.monotonic``."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Exchange:
    """See :class:`tensorwire.rpc.ends.Exchange`."""

    cdef object socket
    cdef void *handle
    cdef Readings readings
    cdef double spin
    #: What becomes readable when the socket may have something, and when another thread calls.
    cdef pollfd fds[2]
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
        self.readings = Readings(known)
        self.spin = spin
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
        if not _post_one(self.handle, self.first_id, tail, tensor):
            return None
        self.waiting = True
        return self.answer()

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
            reading = self.readings.find(data + PREFIX_BYTES, _u32(data + AT_HEADER_LEN))
        head = _head(message)
        if reading is None or not reading.fits_one(data, size):
            return head, (_rest(self.handle) if more else ())
        self.waiting = False
        _reap()
        if type(head) is bytes:
            data = PyBytes_AS_STRING(head)
        return reading.outputs_of_one(head, data)

    cdef bint is_reply(self, const char *data, size_t size) noexcept nogil:
        """Whether the prefix is that of a reply to the one request that is waited for."""
        return (
            _is_plain_reply(data, size)
            and _u64(data + AT_ID) == self.first_id
            and _u32(data + AT_COUNT) == 1
        )
