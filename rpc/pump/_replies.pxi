# Replies: heads from templates, rows behind them, and large frames that libzmq reads where they lie.

cdef enum:
    #: Replies with more outputs than this take the long way.
    OUTPUTS = 16
    ANSWERS_KEPT = 64

cdef size_t INLINE = INLINE_LIMIT
cdef bytes REPLY_START = bytes(MAGIC) + bytes((VERSION, Kind.REPLY, 0, 0))


cdef extern from *:
    """
    /* Frames that libzmq is done with. Its threads push, whoever holds the GIL takes all at once. */
    static void *finished_head = NULL;
    static void push_finished(void **next, void *flight) {
        void *head = __atomic_load_n(&finished_head, __ATOMIC_RELAXED);
        do { *next = head; } while (!__atomic_compare_exchange_n(
            &finished_head, &head, flight, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    }
    static void *take_finished(void) {
        if (!__atomic_load_n(&finished_head, __ATOMIC_RELAXED)) return NULL;
        return __atomic_exchange_n(&finished_head, NULL, __ATOMIC_ACQUIRE);
    }
    """
    void push_finished(void **next, void *flight) noexcept nogil
    void *take_finished() noexcept nogil


#: Buffers that libzmq has and that were not let go of yet.
cdef Py_ssize_t flying = 0


cdef class Flight:
    """A buffer that libzmq reads from; kept alive until it says that it is done."""

    cdef Py_buffer view
    cdef void *next
    cdef bint over

    @property
    def done(self):
        """Whether the frame has been sent, or given up."""
        _reap()
        return self.over


cdef void _landed(void *data, void *hint) noexcept nogil:
    """Called by libzmq, in any of its threads: without the GIL nothing more can be done here."""
    push_finished(&(<Flight> hint).next, hint)


cdef int _reap() except -1:
    """Let go of the buffers that libzmq is done with."""
    global flying
    cdef void *at = take_finished()
    cdef Flight flight
    while at != NULL:
        flight = <Flight> at
        at = flight.next
        flight.over = True
        flying -= 1
        PyBuffer_Release(&flight.view)
        Py_DECREF(flight)
    return 0


cdef int _copy_of(msg_t *message, const char *data, size_t size) except -1:
    if msg_init_size(message, size):
        raise MemoryError
    memcpy(msg_data(message), data, size)
    return 0


cdef class Sender:
    """Stands in for pyzmq's ``send``. The difference is in large frames: pyzmq has a thread of its own that
    learns when they are done, and a socket between that and libzmq's; here a list does."""

    cdef object socket
    cdef void *handle

    def __init__(self, socket):
        self.socket = socket
        self.handle = <void *> <size_t> socket.underlying

    def __call__(self, frame, int flags=0, bint copy=True, bint track=False):
        """Send one frame; with ``track``, an object with a property ``done``."""
        cdef msg_t message
        cdef Py_buffer view
        cdef int error
        cdef Flight flight = None
        if self.socket.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        if copy:
            PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
            try:
                _copy_of(&message, <const char *> view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        else:
            flight = _take_off(&message, frame)
        error = _send(&message, self.handle, flags)
        if error:
            msg_close(&message)
            raise _zmq_error(error)
        return flight


    def send(self, frame, int flags):
        """Send a large frame from where it lies; its memory is kept until :meth:`settle` lets go of it."""
        _reap()
        self(frame, flags, False)

    def settle(self):
        """Let go of what libzmq is done with; whether it still has some, of any sender in this process."""
        _reap()
        return flying > 0


cdef Flight _take_off(msg_t *message, frame):
    global flying
    cdef Flight flight = Flight()
    PyObject_GetBuffer(frame, &flight.view, PyBUF_SIMPLE)
    if msg_init_data(message, flight.view.buf, flight.view.len, _landed, <void *> flight):
        PyBuffer_Release(&flight.view)
        raise MemoryError
    Py_INCREF(flight)
    flying += 1
    return flight


cdef class Answer:
    """A reply template, decoded to what C needs."""

    cdef object template
    cdef bytes header
    cdef tuple dtypes
    #: Replies of this template can be written here.
    cdef bint plain
    cdef bint rows
    cdef Py_ssize_t tensors
    cdef size_t row_nbytes[OUTPUTS]

    def __cinit__(self, template):
        layout = template.layout
        self.template = template
        self.header = template.header
        self.dtypes = layout.dtypes
        self.tensors = len(layout.row_nbytes)
        self.plain = layout.fixed and self.tensors <= OUTPUTS
        self.rows = layout.rows
        if self.plain:
            for index in range(self.tensors):
                self.row_nbytes[index] = layout.row_nbytes[index]

    cdef bint holds(self, Py_ssize_t output, size_t nbytes, Py_ssize_t row, Py_ssize_t rows) noexcept nogil:
        """Whether an output of so many bytes has these rows."""
        cdef size_t each = self.row_nbytes[output]
        if row < 0 or rows < 0:
            return False
        return not each or (<size_t> row <= nbytes // each and <size_t> rows <= nbytes // each - row)


cdef class Scratch:
    """The part of a reply before its tensors, ready to be copied: it differs by the id alone."""

    cdef char *head
    cdef size_t room
    cdef size_t head_nbytes
    #: Of the whole head frame, with its tensors.
    cdef size_t nbytes
    #: Some tensors are no part of it, but frames of their own.
    cdef bint framed
    cdef uint32_t queue_us
    cdef uint32_t compute_us
    cdef Answer answer
    cdef uint32_t count

    def __dealloc__(self):
        free(self.head)

    cdef void times(self, uint32_t queue_us, uint32_t compute_us) noexcept nogil:
        """What the next replies say they took."""
        self.queue_us = queue_us
        self.compute_us = compute_us
        if self.count:
            memcpy(self.head + AT_QUEUE_US, &self.queue_us, 4)
            memcpy(self.head + AT_COMPUTE_US, &self.compute_us, 4)

    cdef int prepare(self, Answer answer, uint32_t count) except -1:
        """For replies to so many requests of one row each."""
        if self.count == count and self.answer is answer:
            return 0
        cdef size_t header_len = PyBytes_GET_SIZE(answer.header)
        cdef size_t size = PREFIX_BYTES + header_len + (4 * <size_t> count if answer.rows else 0)
        self.count = 0
        if size > self.room:
            free(self.head)
            self.room = 0
            self.head = <char *> malloc(size)
            if self.head == NULL:
                raise MemoryError
            self.room = size
        self.fill(answer, header_len, count)
        self.head_nbytes = self.nbytes = size
        self.framed = False
        cdef Py_ssize_t index
        for index in range(answer.tensors):
            if answer.row_nbytes[index] * count > INLINE:
                self.framed = True
            else:
                self.nbytes = _aligned(self.nbytes) + answer.row_nbytes[index] * count
        self.answer = answer
        self.count = count
        return 0

    cdef void fill(self, Answer answer, uint32_t header_len, uint32_t count):
        cdef uint32_t one = 1
        cdef uint32_t limit = <uint32_t> INLINE
        cdef uint32_t index
        cdef char *rows = self.head + PREFIX_BYTES + header_len
        memset(self.head, 0, PREFIX_BYTES)
        memcpy(self.head, PyBytes_AS_STRING(REPLY_START), 8)
        memcpy(self.head + AT_COUNT, &count, 4)
        memcpy(self.head + AT_HEADER_LEN, &header_len, 4)
        memcpy(self.head + AT_LIMIT, &limit, 4)
        memcpy(self.head + AT_QUEUE_US, &self.queue_us, 4)
        memcpy(self.head + AT_COMPUTE_US, &self.compute_us, 4)
        memcpy(self.head + PREFIX_BYTES, PyBytes_AS_STRING(answer.header), header_len)
        if answer.rows:
            for index in range(count):
                memcpy(rows + 4 * <size_t> index, &one, 4)

    cdef void write(self, char *data, uint64_t first_id, Py_buffer *views, Py_ssize_t row) noexcept nogil:
        """The head frame of one reply: rows from `row` on, which the caller knows to be there."""
        cdef size_t *row_nbytes = self.answer.row_nbytes
        cdef size_t at = self.head_nbytes
        cdef size_t begin, nbytes
        cdef Py_ssize_t index
        memcpy(data, self.head, at)
        memcpy(data + AT_ID, &first_id, 8)
        for index in range(self.answer.tensors):
            nbytes = row_nbytes[index] * self.count
            if nbytes <= INLINE:
                begin = _aligned(at)
                memset(data + at, 0, begin - at)
                memcpy(data + begin, <const char *> views[index].buf + row * row_nbytes[index], nbytes)
                at = begin + nbytes

    cdef list frames(self, uint64_t first_id, outputs, Py_buffer *views, Py_ssize_t row):
        """All frames of one reply; the large ones are views of the outputs."""
        cdef bytes head = PyBytes_FromStringAndSize(NULL, self.nbytes)
        cdef Py_ssize_t index
        self.write(PyBytes_AS_STRING(head), first_id, views, row)
        cdef list frames = [head]
        for index in range(self.answer.tensors):
            if self.answer.row_nbytes[index] * self.count > INLINE:
                output = outputs[index]
                frames.append(payload_of(output[row : row + self.count] if self.answer.rows else output))
        return frames


cdef int _view(output, dtype, Py_buffer *view) except -1:
    """The bytes of an output as they travel."""
    if type(output) is ndarray and output.dtype is dtype:
        try:
            PyObject_GetBuffer(output, view, PyBUF_SIMPLE)
            return 0
        except (BufferError, ValueError):
            pass  # not in one piece, or of a type that exports no buffer
    PyObject_GetBuffer(payload_of(output), view, PyBUF_SIMPLE)
    return 0


cdef struct Span:
    # Walks over the messages, or parts of messages, of some requests; see Bundle.messages.
    Py_ssize_t lo
    Py_ssize_t hi
    Py_ssize_t end  # of the message
    Py_ssize_t message
    Py_ssize_t start  # the first request of the part
    Py_ssize_t skipped  # how many of the message come before it
    Py_ssize_t requests


cdef void _begin(Span *span, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil:
    memset(span, 0, sizeof(Span))
    span.lo = lo
    span.hi = hi
    span.message = -1


cdef bint _advance(Span *span, list counts) except -1:
    """Go to the next part. `counts` None: every message is one request."""
    cdef Py_ssize_t begin
    if span.lo >= span.hi:
        return False
    if counts is None:
        span.message = span.start = span.lo
        span.requests = 1
        span.lo += 1
        return True
    begin = span.end
    while span.end <= span.lo:
        begin = span.end
        span.message += 1
        span.end += counts[span.message]
    span.start = span.lo
    span.skipped = span.lo - begin
    span.requests = min(span.end, span.hi) - span.lo
    span.lo += span.requests
    return True
