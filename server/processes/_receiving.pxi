# From a message to arrays: one system call, every length checked, small tensors copied, others lent.

cdef extern from "<sys/socket.h>" nogil:
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    unsigned char *CMSG_DATA(cmsghdr *)
    size_t CMSG_LEN(size_t)
    int SOL_SOCKET
    int SCM_RIGHTS

cdef enum:
    #: As link.py has it: room for a few more descriptors than are ever sent.
    CONTROL_ROOM = 64
    READINGS_KEPT = 64

cdef uint64_t BLOCK_ALIGNMENT = ALIGNMENT


@cython.no_gc
@cython.freelist(16)
cdef class Lease:
    """What an array of the arena and all views of it have as their base: its end is theirs. See ``arena``."""

    cdef object memory
    cdef object append
    cdef uint64_t offset

    def __dealloc__(self):
        self.append(self.offset)


cdef class Reading:
    """A header, decoded to what C needs; its tensors have elements of fixed size, and rows."""

    cdef bytes header
    cdef tuple names
    cdef tuple shapes
    cdef tuple dtypes
    #: Outputs that a call asks for; None: it asks for none.
    cdef tuple wanted
    cdef Py_ssize_t tensors
    cdef uint64_t max_rows
    cdef size_t row_nbytes[PLAIN_TENSORS]

    def __cinit__(self, signature):
        layout = signature.layout
        cdef Py_ssize_t index
        self.header = signature.raw
        self.names = layout.names
        self.shapes = layout.shapes
        self.dtypes = layout.dtypes
        # A reply's are no names.
        self.wanted = signature.header.outputs or None
        self.tensors = len(layout.names)
        extent = layout._row_extent
        self.max_rows = min(COUNT_MAX, MAX_TENSOR_NBYTES // extent if extent else COUNT_MAX)
        for index in range(self.tensors):
            self.row_nbytes[index] = layout.row_nbytes[index]


cdef class Receiving:
    """The receiver's part: a message is received, measured, and made into arrays."""

    cdef int fd
    cdef int flags
    #: The message: it, its length, a descriptor that came along or -1.
    cdef char *data
    cdef size_t nbytes
    cdef int came
    cdef dict known
    cdef dict readings
    cdef Reading reading
    cdef object give_back
    cdef object append
    cdef object memory
    cdef char *arena
    cdef uint64_t arena_nbytes
    #: What was measured.
    cdef uint64_t rows
    cdef const char *tensor_at[PLAIN_TENSORS]
    cdef bint inside[PLAIN_TENSORS]
    cdef uint64_t tensor_offset[PLAIN_TENSORS]
    cdef Py_ssize_t blocks
    cdef uint64_t block_at[PLAIN_TENSORS]
    cdef uint64_t block_nbytes[PLAIN_TENSORS]
    cdef uint64_t returned[256]
    cdef Py_ssize_t returns
    #: The child's call in hand.
    cdef dict inputs
    cdef uint64_t call_id

    def __cinit__(self, int fd, bint blocking, inbound, outbound, signatures):
        self.data = <char *> malloc(MESSAGE_LIMIT + 1)
        if self.data == NULL:
            raise MemoryError
        self.fd = fd
        self.flags = MSG_CMSG_CLOEXEC | (0 if blocking else MSG_DONTWAIT)
        self.came = -1
        self.known = signatures.known
        self.readings = {}
        self.give_back = outbound.allocator.give_back
        self.append = inbound.returned.append
        self.memory = inbound.bytes
        self.arena = <char *> <size_t> inbound.address
        self.arena_nbytes = len(inbound.bytes)

    def __dealloc__(self):
        free(self.data)

    # ---------------------------------------------------------------- the socket

    cdef bint receive(self) except -1:
        """The next message; False: there is none at the moment. See :meth:`.link.Link.receive`."""
        cdef char control[CONTROL_ROOM]
        cdef iovec vector
        cdef msghdr message
        cdef ssize_t got
        cdef int error
        vector.iov_base = self.data
        vector.iov_len = MESSAGE_LIMIT + 1
        while True:
            memset(&message, 0, sizeof(message))
            message.msg_iov = &vector
            message.msg_iovlen = 1
            message.msg_control = control
            message.msg_controllen = CONTROL_ROOM
            if self.flags & MSG_DONTWAIT:
                got = recvmsg(self.fd, &message, self.flags)
                error = c_errno
            else:
                with nogil:
                    got = recvmsg(self.fd, &message, self.flags)
                    error = c_errno
            if got >= 0:
                break
            if error == EAGAIN:
                return False
            if error == EINTR:
                PyErr_CheckSignals()
            elif error != ECONNRESET:
                raise Closed(error)
        if got == 0:
            raise Closed
        self.nbytes = <size_t> got
        self.came = -1
        if message.msg_controllen or message.msg_flags & (MSG_TRUNC | MSG_CTRUNC):
            self.take_descriptors(&message)
        return True

    cdef int take_descriptors(self, msghdr *message) except -1:
        """At most one may have come; others are closed.

        Raises:
            ProtocolError: more came, or a message that is too long.
        """
        cdef int found = 0
        cdef int fd
        cdef size_t at
        cdef cmsghdr *control = CMSG_FIRSTHDR(message)
        while control != NULL:
            if control.cmsg_level == SOL_SOCKET and control.cmsg_type == SCM_RIGHTS:
                at = CMSG_LEN(0)
                while at + sizeof(int) <= control.cmsg_len:
                    memcpy(&fd, <char *> control + at, sizeof(int))
                    at += sizeof(int)
                    found += 1
                    if found == 1:
                        self.came = fd
                    else:
                        c_close(fd)
            control = CMSG_NXTHDR(message, control)
        if found > 1 or message.msg_flags & (MSG_TRUNC | MSG_CTRUNC):
            if self.came >= 0:
                c_close(self.came)
                self.came = -1
            raise ProtocolError(UNFIT)
        return 0

    cdef object strange(self):
        """The message as it came, for those who know every kind."""
        fd, self.came = self.came, -1
        return Received(PyBytes_FromStringAndSize(self.data, self.nbytes), fd)

    # ---------------------------------------------------------------- checks

    cdef bint measure(self, int kind) except -1:
        """Whether it is a plain message of this kind, all of whose lengths add up. False: it is unusual, or wrong;
        nothing was done."""
        cdef const char *data = self.data
        cdef const char *end = data + self.nbytes
        cdef size_t header_nbytes, extra_nbytes
        cdef const char *at
        if (
            self.came >= 0
            or self.nbytes < PREFIX_BYTES
            or _u32(data) != MAGIC_WORD
            or data[AT_VERSION] != VERSION
            or data[AT_KIND] != kind
            or _u32(data + AT_COUNT) != 1
        ):
            return False
        header_nbytes = _u32(data + AT_HEADER_LEN)
        extra_nbytes = _u32(data + AT_EXTRA_LEN)
        if (
            header_nbytes > HEADER_LIMIT
            or extra_nbytes > EXTRA_LIMIT
            or PREFIX_BYTES + header_nbytes + extra_nbytes + 4 > self.nbytes
        ):
            return False
        at = data + PREFIX_BYTES
        if not self.find_reading(at, header_nbytes):
            return False
        at += header_nbytes
        if not self.measure_cargo(at, at + extra_nbytes):
            return False
        self.rows = _u32(at + extra_nbytes)
        return self.rows <= self.reading.max_rows and self.measure_tensors(
            PREFIX_BYTES + header_nbytes + extra_nbytes + 4
        )

    cdef bint find_reading(self, const char *header, size_t nbytes) except -1:
        cdef Reading reading = self.reading
        if (
            reading is not None
            and <size_t> PyBytes_GET_SIZE(reading.header) == nbytes
            and not memcmp(PyBytes_AS_STRING(reading.header), header, nbytes)
        ):
            return True
        cdef bytes raw = PyBytes_FromStringAndSize(header, nbytes)
        reading = self.readings.get(raw)
        if reading is None:
            signature = self.known.get(raw)
            if signature is None or not signature.layout.groupable or len(signature.layout.names) > PLAIN_TENSORS:
                return False
            if len(self.readings) >= READINGS_KEPT:
                self.readings.clear()
            reading = self.readings[raw] = Reading(signature)
        self.reading = reading
        return True

    cdef bint measure_cargo(self, const char *at, const char *end) noexcept nogil:
        """Where the blocks lie, and what is free again."""
        cdef uint64_t count
        cdef uint64_t index
        if at == end or <uint8_t> at[0] != 0x92:
            return False
        at = _read_array(at + 1, end, &count)
        if at == NULL or count > PLAIN_TENSORS:
            return False
        self.returns = 0
        self.blocks = <Py_ssize_t> count
        for index in range(count):
            if end - at < 2 or <uint8_t> at[0] != 0x93 or <uint8_t> at[1] != 0xC3:
                return False
            at = _read_uint(at + 2, end, &self.block_at[index])
            if at == NULL:
                return False
            at = _read_uint(at, end, &self.block_nbytes[index])
            if at == NULL:
                return False
        at = _read_array(at, end, &count)
        if at == NULL or count > 256:
            return False
        for index in range(count):
            at = _read_uint(at, end, &self.returned[index])
            if at == NULL:
                return False
        self.returns = <Py_ssize_t> count
        return at == end

    cdef bint measure_tensors(self, size_t at) noexcept nogil:
        """Whether the message ends where its tensors do, and the others have the blocks for it."""
        cdef uint64_t limit = _u32(self.data + AT_LIMIT)
        cdef Py_ssize_t index
        cdef Py_ssize_t block = 0
        cdef uint64_t nbytes, offset
        for index in range(self.reading.tensors):
            nbytes = self.reading.row_nbytes[index] * self.rows
            self.inside[index] = nbytes <= limit
            if self.inside[index]:
                at = _aligned(at)
                # Both are far below what could overflow: max_rows sees to it.
                if at + nbytes > self.nbytes:
                    return False
                self.tensor_at[index] = self.data + at
                at += nbytes
                continue
            if block == self.blocks or self.block_nbytes[block] != nbytes:
                return False
            offset = self.block_at[block]
            if offset % BLOCK_ALIGNMENT or offset > self.arena_nbytes or nbytes > self.arena_nbytes - offset:
                return False
            self.tensor_at[index] = self.arena + offset
            self.tensor_offset[index] = offset
            block += 1
        return block == self.blocks and at == self.nbytes

    # ---------------------------------------------------------------- arrays

    cdef list arrays(self):
        """The tensors of a message that was measured, read-only."""
        cdef Reading reading = self.reading
        cdef Py_ssize_t index
        cdef Lease lease
        cdef size_t nbytes
        cdef list found = []
        for index in range(reading.tensors):
            shape, dtype = reading.shapes[index], reading.dtypes[index]
            if self.inside[index]:
                nbytes = reading.row_nbytes[index] * self.rows
                found.append(_copied_array(self.tensor_at[index], nbytes, self.rows, shape, dtype))
                continue
            lease = Lease.__new__(Lease)
            lease.memory = self.memory
            lease.offset = self.tensor_offset[index]
            lease.append = self.append
            found.append(_array(<void *> self.tensor_at[index], lease, False, self.rows, shape, dtype))
        return found

    cdef int take_back(self) except -1:
        """Free what the other side does not need any more; ProtocolError: it is not in use."""
        cdef Py_ssize_t index
        for index in range(self.returns):
            self.give_back(self.returned[index])
        return 0


# msgpack; NULL: it is something else, or not all there.

cdef const char *_read_array(const char *at, const char *end, uint64_t *count) noexcept nogil:
    cdef uint8_t first
    if at == end:
        return NULL
    first = <uint8_t> at[0]
    if first & 0xF0 == 0x90:
        count[0] = first & 0x0F
        return at + 1
    if first == 0xDC:
        return _read_big(at + 1, end, 2, count)
    return NULL


cdef const char *_read_uint(const char *at, const char *end, uint64_t *value) noexcept nogil:
    cdef uint8_t first
    if at == end:
        return NULL
    first = <uint8_t> at[0]
    if first < 0x80:
        value[0] = first
        return at + 1
    if first < 0xCC or first > 0xCF:
        return NULL
    return _read_big(at + 1, end, 1 << (first - 0xCC), value)


cdef const char *_read_big(const char *at, const char *end, int nbytes, uint64_t *value) noexcept nogil:
    cdef uint64_t found = 0
    cdef int index
    if end - at < nbytes:
        return NULL
    for index in range(nbytes):
        found = found << 8 | <uint8_t> at[index]
    value[0] = found
    return at + nbytes
