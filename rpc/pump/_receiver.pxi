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

    def __init__(self, socket):
        self.socket = socket
        self.handle = <void *> <size_t> socket.underlying

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
        head = _head(&message)
        msg_close(&message)
        deliver(head, _rest(self.handle) if more else ())
        return True
