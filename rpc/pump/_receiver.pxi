# Reading at a client's end: messages as they are, without an object of pyzmq's for each frame.


cdef object _head(msg_t *message):
    """The bytes of a head frame, which nobody can write to."""
    cdef Frame frame
    cdef size_t size = msg_size(message)
    if size <= COPIED_NBYTES:
        return PyBytes_FromStringAndSize(<char *> msg_data(message), size)
    frame = Frame()
    msg_copy(&frame.message, message)
    return memoryview(frame).toreadonly()


cdef list _rest(void *handle):
    """The message's further frames: libzmq hands out whole messages, so all of them are there."""
    cdef list frames = []
    cdef Frame frame
    cdef int error
    cdef bint more = True
    while more:
        frame = Frame()
        error = _recv(&frame.message, handle)
        if error:
            raise _zmq_error(error)
        more = msg_more(&frame.message)
        frames.append(memoryview(frame).toreadonly())
    return frames


cdef class Receiver:
    """See :class:`tensorwire.rpc.ends.Receiver`."""

    cdef object socket
    cdef void *handle
    cdef Readings readings
    cdef object waiting
    cdef dict envelopes

    def __init__(self, socket, known=None, waiting=None):
        self.socket = socket
        self.handle = <void *> <size_t> socket.underlying
        self.waiting = waiting
        if waiting is not None:
            self.readings = Readings(known)
            self.envelopes = waiting.envelopes

    def one(self, deliver):
        """Read one message if there is one; whether there was."""
        return self.pass_on(deliver)

    def all(self, deliver):
        """Read until nothing is there."""
        while self.pass_on(deliver):
            pass

    cdef bint pass_on(self, deliver) except -1:
        cdef msg_t message
        cdef int error
        if self.socket.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        msg_init(&message)
        error = _recv(&message, self.handle)
        if error:
            msg_close(&message)
            if error == EAGAIN:
                return False
            raise _zmq_error(error)
        cdef bint more = msg_more(&message)
        cdef bint answered = False
        try:
            if self.waiting is not None and not more:
                answered = self.answer(&message)
            head = None if answered else _head(&message)
        finally:
            msg_close(&message)
        if not answered:
            deliver(head, _rest(self.handle) if more else ())
        return True

    cdef bint answer(self, msg_t *message) except -1:
        """Answer the calls that a plain reply is for; False: it is something else, or not for all of them."""
        cdef const char *data = <const char *> msg_data(message)
        cdef size_t size = msg_size(message)
        cdef uint32_t count
        cdef Reading reading
        if not _is_plain_reply(data, size):
            return False
        reading = self.readings.find(data + PREFIX_BYTES, _u32(data + AT_HEADER_LEN))
        count = _u32(data + AT_COUNT)
        if reading is None or not 0 < count <= MAX_COUNT:
            return False
        if not (reading.fits_one(data, size) if count == 1 else reading.fits_unit_rows(data, size, count)):
            return False
        found = self.take(_u64(data + AT_ID), count)
        if found is None:
            return False
        head = _head(message)
        self.complete(<list> found, reading, head, count)
        return True

    cdef object take(self, uint64_t first_id, uint32_t count):
        """The calls that so many ids are of, which are answered now; None: nobody waits for them."""
        cdef list calls
        envelope = self.envelopes.get(first_id >> NUMBER_SHIFT)
        if envelope is None:
            return None
        calls = envelope.calls
        cdef uint64_t start = first_id & ((1 << NUMBER_SHIFT) - 1)
        if start + count > <uint64_t> len(calls):
            return None
        if count != <uint64_t> len(calls) or count != envelope.open:
            return self.waiting.take(envelope, start, count)
        # As `take` does for a whole envelope.
        envelope.open = 0
        envelope.calls = []
        del self.envelopes[first_id >> NUMBER_SHIFT]
        return calls

    cdef int complete(self, list calls, Reading reading, head, uint32_t count) except -1:
        cdef Py_buffer view
        cdef uint32_t index = 0
        PyObject_GetBuffer(head, &view, PyBUF_SIMPLE)
        try:
            for index in range(count):
                call = calls[index]
                # One that was cancelled, or has expired.
                if call is None or call.done():
                    continue
                if count == 1:
                    call.set_result(reading.outputs_of_one(head, <const char *> view.buf))
                else:
                    call.set_result(reading.outputs_of_row(head, <const char *> view.buf, count, index))
        except BaseException as error:
            # They are pending no more: nobody else would ever answer them.
            for call in calls[index:]:
                if call is not None and not call.done():
                    call.set_exception(error)
            raise
        finally:
            PyBuffer_Release(&view)
        return 0
