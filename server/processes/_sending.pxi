# From arrays to a message: a template of the head, bytes copied to where they are read, one system call.

cdef extern from "<sys/socket.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int MSG_TRUNC
    int MSG_CTRUNC
    int MSG_CMSG_CLOEXEC

cdef extern from *:
    """
    /* What NumPy's macros for arrays read; compiled packages rely on it, so it never changes within a major
       version. */
    typedef struct {
        PyObject_HEAD
        char *data;
        int nd;
        Py_ssize_t *dimensions;
        Py_ssize_t *strides;
        PyObject *base;
        PyObject *descr;
        int flags;
    } tw_array;
    #define tw_is(object, type) (Py_TYPE((PyObject *)(object)) == (PyTypeObject *)(type))
    """
    ctypedef struct tw_array:
        char *data
        int nd
        Py_ssize_t *dimensions
        PyObject *descr
        int flags
    bint tw_is(PyObject *, PyObject *)

cdef enum:
    KIND_REQUEST = 1
    KIND_REPLY = 2
    C_CONTIGUOUS = 0x0001
    #: Messages with more tensors, or tensors with more dimensions, take the long way.
    PLAIN_TENSORS = 16
    PLAIN_DIMS = 8
    FORMS_KEPT = 64
    COPY_WITHOUT_GIL = 1 << 16
    #: The longest extra of a plain message: blocks of 20 bytes, offsets of 9.
    EXTRA_ROOM = 16 + PLAIN_TENSORS * 20 + 256 * 9

cdef size_t INLINE = INLINE_LIMIT
cdef size_t INLINE_SUM = INLINE_TOTAL
cdef size_t HEADER_LIMIT = MAX_HEADER
cdef size_t EXTRA_LIMIT = MAX_EXTRA
cdef size_t MESSAGE_LIMIT = MAX_MESSAGE
cdef uint64_t COUNT_MAX = U32_MAX
cdef Py_ssize_t RETURNED_LIMIT = MAX_RETURNED
cdef bytes HEAD_START = bytes(MAGIC) + bytes((VERSION,))
assert Kind.REQUEST == KIND_REQUEST and Kind.REPLY == KIND_REPLY and MAX_RETURNED <= 256


cdef int _check_arrays() except -1:
    """See that arrays look as they should."""
    array = ndarray((2, 3), numpy_dtype("<f4"))
    turned = ndarray((3, 2), numpy_dtype("<f4"), array, 0, (4, 12))
    cdef tw_array *raw = <tw_array *> <PyObject *> array
    if (
        raw.nd != 2
        or raw.dimensions[0] != 2
        or raw.dimensions[1] != 3
        or <size_t> raw.data != <size_t> array.__array_interface__["data"][0]
        or <object> raw.descr is not array.dtype
        or not raw.flags & C_CONTIGUOUS
        or (<tw_array *> <PyObject *> turned).flags & C_CONTIGUOUS
    ):
        raise ImportError("this NumPy's arrays are not what they were")
    return 0


cdef struct Copy:
    const char *source
    size_t nbytes


cdef struct Part:
    # One tensor that is to be sent.
    Py_ssize_t first  # of its copies
    Py_ssize_t copies
    const char *last_row
    size_t nbytes
    bint inline


cdef class Form:
    """Names, dtypes and trailing dimensions of a message's tensors, and the header that says so."""

    cdef tuple names
    cdef tuple dtypes
    cdef tuple wanted
    cdef bytes header
    cdef Py_ssize_t tensors
    cdef uint64_t max_rows
    cdef int ranks[PLAIN_TENSORS]
    cdef Py_ssize_t dims[PLAIN_TENSORS][PLAIN_DIMS]
    cdef size_t row_nbytes[PLAIN_TENSORS]

    cdef bint has(self, Py_ssize_t index, tw_array *array) except -1:
        """Whether an array is a piece of a tensor of it."""
        cdef int dim
        if array.nd != self.ranks[index] or not array.flags & C_CONTIGUOUS:
            return False
        for dim in range(1, array.nd):
            if array.dimensions[dim] != self.dims[index][dim]:
                return False
        dtype = self.dtypes[index]
        return array.descr == <PyObject *> dtype or <object> array.descr == dtype


cdef class Sending:
    """The sender's part: arrays are gathered, packed, and their message is posted."""

    cdef int fd
    cdef int flags
    cdef object outbound
    cdef object take
    cdef object give_back
    cdef object returned
    cdef char *arena
    #: The head, and the tensors that go along behind it.
    cdef char *head
    cdef char *inside
    cdef size_t inside_nbytes
    cdef bint has_inside
    cdef dict forms
    cdef Form form
    cdef tuple names
    #: All pieces, those of one tensor after those of the other.
    cdef list pieces
    cdef Part parts[PLAIN_TENSORS]
    cdef Py_ssize_t tensors
    cdef Copy *copies
    cdef Py_ssize_t copies_room
    cdef uint64_t rows
    cdef size_t limit
    cdef size_t blocks
    cdef uint64_t offsets[PLAIN_TENSORS]
    cdef uint64_t sizes[PLAIN_TENSORS]

    def __cinit__(self, int fd, bint blocking, inbound, outbound):
        self.head = <char *> malloc(PREFIX_BYTES + HEADER_LIMIT + EXTRA_ROOM + 32)
        # More than so much inline there never is, nor more space between.
        self.inside = <char *> malloc(INLINE_SUM + PLAIN_TENSORS * 16)
        if self.head == NULL or self.inside == NULL:
            raise MemoryError
        self.fd = fd
        self.flags = MSG_NOSIGNAL | (0 if blocking else MSG_DONTWAIT)
        self.outbound = outbound
        self.take = outbound.allocator.take
        self.give_back = outbound.allocator.give_back
        self.returned = inbound.returned
        self.arena = <char *> <size_t> outbound.address
        self.forms = {}

    def __dealloc__(self):
        free(self.head)
        free(self.inside)
        free(self.copies)

    # ---------------------------------------------------------------- what is to be sent

    cdef bint gather_inputs(self, dict inputs) except -1:
        """Take note of the pieces of all tensors. False: something is unusual."""
        cdef list pieces = []
        cdef Py_ssize_t index = 0
        cdef Py_ssize_t count
        if not 0 < len(inputs) <= PLAIN_TENSORS:
            return False
        for some in inputs.values():
            if type(some) is not list and type(some) is not tuple:
                return False
            count = len(some)
            if not count:
                return False
            self.parts[index].first = len(pieces)
            self.parts[index].copies = count
            pieces += some
            index += 1
        self.tensors = index
        self.pieces = pieces
        cdef tuple known = None if self.form is None else self.form.names
        if known is None or not _same_names(known, inputs):
            known = tuple(inputs)
        self.names = known
        return True

    cdef bint gather_outputs(self, tuple names, outputs) except -1:
        """As above, where each tensor is one array."""
        cdef Py_ssize_t index
        cdef Py_ssize_t count = len(names)
        if not 0 < count <= PLAIN_TENSORS or len(outputs) != count:
            return False
        self.pieces = list(outputs)
        for index in range(count):
            self.parts[index].first = index
            self.parts[index].copies = 1
        self.tensors = count
        self.names = names
        return True

    cdef bint pack(self, Py_ssize_t padding, tuple wanted) except -1:
        """Copy what was gathered to where the other side reads it. False: something is unusual, and nothing was
        done."""
        try:
            if not self.measure(padding, wanted):
                return False
            return self.write(padding)
        finally:
            # Whoever waits for the message to be posted must not find these alive.
            self.pieces = None

    cdef bint measure(self, Py_ssize_t padding, tuple wanted) except -1:
        """Look at every piece; note what is to be copied."""
        cdef Py_ssize_t count = len(self.pieces)
        cdef Py_ssize_t index, at
        cdef size_t small = 0
        cdef Part *part
        cdef Form form
        for piece in self.pieces:
            if type(piece) is not ndarray:
                return False
        form = self.find_form(wanted)
        if form is None:
            return False
        if count > self.copies_room and not self.make_room(count):
            raise MemoryError
        for index in range(self.tensors):
            part = &self.parts[index]
            if not self.measure_part(form, index, part, padding):
                return False
            if part.nbytes <= INLINE:
                small += part.nbytes
        self.limit = INLINE if small <= INLINE_SUM else 0
        self.form = form
        return True

    cdef bint make_room(self, Py_ssize_t count) except -1:
        cdef Copy *grown = <Copy *> realloc(self.copies, 2 * count * sizeof(Copy))
        if grown == NULL:
            return False
        self.copies = grown
        self.copies_room = 2 * count
        return True

    cdef bint measure_part(self, Form form, Py_ssize_t index, Part *part, Py_ssize_t padding) except -1:
        cdef list pieces = self.pieces
        cdef size_t row_nbytes = form.row_nbytes[index]
        cdef uint64_t rows = 0
        cdef Py_ssize_t at
        cdef tw_array *array
        part.last_row = NULL
        for at in range(part.first, part.first + part.copies):
            array = <tw_array *> <PyObject *> pieces[at]
            if not form.has(index, array):
                return False
            self.copies[at].source = array.data
            self.copies[at].nbytes = row_nbytes * <size_t> array.dimensions[0]
            rows += <uint64_t> array.dimensions[0]
            if array.dimensions[0]:
                part.last_row = array.data + row_nbytes * <size_t> (array.dimensions[0] - 1)
        if padding and part.last_row == NULL:
            return False
        rows += <uint64_t> padding
        if index == 0:
            self.rows = rows
        if rows != self.rows or rows > form.max_rows:
            return False
        part.nbytes = row_nbytes * rows
        return True

    cdef Form find_form(self, tuple wanted):
        """The form of what was gathered; None: it has none that is plain."""
        cdef Form form = self.form
        cdef Py_ssize_t index
        if form is not None and self.is_form(form, wanted):
            return form
        cdef list key = [wanted, self.names]
        for index in range(self.tensors):
            array = self.pieces[self.parts[index].first]
            key += (array.dtype, array.shape[1:])
        found = tuple(key)
        form = self.forms.get(found)
        if form is None:
            form = self.make_form(wanted)
            if form is not None:
                if len(self.forms) >= FORMS_KEPT:
                    self.forms.clear()
                self.forms[found] = form
        return form

    cdef bint is_form(self, Form form, tuple wanted) except -1:
        cdef Py_ssize_t index
        if form.names is not self.names and form.names != self.names:
            return False
        if form.wanted is not wanted and form.wanted != wanted:
            return False
        for index in range(self.tensors):
            if not form.has(index, <tw_array *> <PyObject *> self.pieces[self.parts[index].first]):
                return False
        return True

    cdef Form make_form(self, tuple wanted):
        cdef Form form = Form()
        cdef Py_ssize_t index, dim
        cdef list tensors = []
        cdef list dtypes = []
        for index in range(self.tensors):
            array = self.pieces[self.parts[index].first]
            if not 1 <= array.ndim <= PLAIN_DIMS or array.dtype.byteorder == ">":
                return None
            try:
                name = name_of_dtype(array.dtype)
                tensors.append((self.names[index], name, array.shape[1:]))
            except RpcError:
                return None
            dtypes.append(array.dtype)
            form.ranks[index] = array.ndim
            for dim in range(1, array.ndim):
                form.dims[index][dim] = array.shape[dim]
        try:
            header, layout = self.outbound.form(tuple(tensors), True, wanted)
        except RpcError:
            return None
        extent = layout._row_extent
        form.max_rows = min(COUNT_MAX, MAX_TENSOR_NBYTES // extent if extent else COUNT_MAX)
        for index in range(self.tensors):
            form.row_nbytes[index] = layout.row_nbytes[index]
        form.names = self.names
        form.dtypes = tuple(dtypes)
        form.wanted = wanted
        form.header = header
        form.tensors = self.tensors
        return form

    # ---------------------------------------------------------------- copies

    cdef bint write(self, Py_ssize_t padding) except -1:
        """Copy all tensors; False: the arena has no room for them."""
        cdef Py_ssize_t index
        cdef Part *part
        cdef size_t at = 0
        self.blocks = 0
        self.has_inside = False
        for index in range(self.tensors):
            part = &self.parts[index]
            part.inline = part.nbytes <= self.limit
            if part.inline:
                self.has_inside = True
                memset(self.inside + at, 0, _aligned(at) - at)
                at = _aligned(at)
                self.copy(part, self.inside + at, padding, self.form.row_nbytes[index])
                at += part.nbytes
            elif not self.into_arena(part, padding, self.form.row_nbytes[index]):
                self.discard()
                return False
        self.inside_nbytes = at
        return True

    cdef bint into_arena(self, Part *part, Py_ssize_t padding, size_t row_nbytes) except -1:
        offset = self.take(part.nbytes)
        if offset is None:
            return False
        cdef uint64_t at = offset
        self.offsets[self.blocks] = at
        self.sizes[self.blocks] = part.nbytes
        self.blocks += 1
        if part.nbytes < COPY_WITHOUT_GIL:
            self.copy(part, self.arena + at, padding, row_nbytes)
        else:
            with nogil:
                self.copy(part, self.arena + at, padding, row_nbytes)
        return True

    cdef int discard(self) except -1:
        """Take back what is not going to be sent."""
        while self.blocks:
            self.blocks -= 1
            self.give_back(self.offsets[self.blocks])
        return 0

    cdef void copy(self, Part *part, char *target, Py_ssize_t padding, size_t row_nbytes) noexcept nogil:
        cdef Py_ssize_t at
        for at in range(part.first, part.first + part.copies):
            memcpy(target, self.copies[at].source, self.copies[at].nbytes)
            target += self.copies[at].nbytes
        for at in range(padding):
            memcpy(target, part.last_row, row_nbytes)
            target += row_nbytes

    # ---------------------------------------------------------------- the message

    cdef object post(self, int kind, uint64_t call_id, uint64_t deadline_us, uint32_t compute_us):
        """Send what was packed. True: it is on its way; else the message, for which the socket has no room.

        Raises:
            Closed: nobody is there to read it.
        """
        cdef size_t nbytes = self.write_head(kind, call_id, deadline_us, compute_us)
        cdef iovec vectors[2]
        cdef msghdr message
        cdef int error
        memset(&message, 0, sizeof(message))
        vectors[0].iov_base = self.head
        vectors[0].iov_len = nbytes
        vectors[1].iov_base = self.inside
        vectors[1].iov_len = self.inside_nbytes
        message.msg_iov = vectors
        message.msg_iovlen = 2 if self.has_inside else 1
        while True:
            if self.flags & MSG_DONTWAIT:
                error = 0 if sendmsg(self.fd, &message, self.flags) >= 0 else c_errno
            else:
                with nogil:
                    error = 0 if sendmsg(self.fd, &message, self.flags) >= 0 else c_errno
            if not error:
                return True
            if error == EINTR:
                PyErr_CheckSignals()
            elif error == EAGAIN:
                return self.whole(nbytes)
            else:
                raise Closed(error)

    cdef bytes whole(self, size_t nbytes):
        cdef bytes start = PyBytes_FromStringAndSize(self.head, nbytes)
        return start + PyBytes_FromStringAndSize(self.inside, self.inside_nbytes) if self.has_inside else start

    cdef size_t write_head(self, int kind, uint64_t call_id, uint64_t deadline_us, uint32_t compute_us) except 0:
        """Everything before the first tensor; how long that is."""
        cdef char *head = self.head
        cdef size_t header_nbytes = PyBytes_GET_SIZE(self.form.header)
        cdef char *at = head + PREFIX_BYTES + header_nbytes
        cdef char *end
        cdef uint32_t field
        cdef size_t nbytes
        memset(head, 0, PREFIX_BYTES)
        memcpy(head, PyBytes_AS_STRING(HEAD_START), 5)
        head[AT_KIND] = <char> kind
        memcpy(head + AT_ID, &call_id, 8)
        memcpy(head + AT_TIMEOUT, &deadline_us, 8)
        field = 1
        memcpy(head + AT_COUNT, &field, 4)
        field = <uint32_t> header_nbytes
        memcpy(head + AT_HEADER_LEN, &field, 4)
        field = <uint32_t> self.limit
        memcpy(head + AT_LIMIT, &field, 4)
        memcpy(head + AT_COMPUTE_US, &compute_us, 4)
        memcpy(head + PREFIX_BYTES, PyBytes_AS_STRING(self.form.header), header_nbytes)
        end = self.write_cargo(at)
        field = <uint32_t> (end - at)
        memcpy(head + AT_EXTRA_LEN, &field, 4)
        field = <uint32_t> self.rows
        memcpy(end, &field, 4)
        nbytes = end + 4 - head
        if self.has_inside:
            memset(head + nbytes, 0, _aligned(nbytes) - nbytes)
            nbytes = _aligned(nbytes)
        return nbytes

    cdef char *write_cargo(self, char *at) except NULL:
        """Where the blocks lie, and what is free again."""
        cdef size_t index
        cdef list free_again = []
        at[0] = <char> 0x92
        at = _write_array(at + 1, self.blocks)
        for index in range(self.blocks):
            at[0] = <char> 0x93
            at[1] = <char> 0xC3
            at = _write_uint(at + 2, self.offsets[index])
            at = _write_uint(at, self.sizes[index])
        returned = self.returned
        while len(returned) and len(free_again) < RETURNED_LIMIT:
            free_again.append(returned.popleft())
        at = _write_array(at, len(free_again))
        for offset in free_again:
            at = _write_uint(at, offset)
        return at


cdef bint _same_names(tuple known, dict inputs) except -1:
    cdef Py_ssize_t index = 0
    if len(known) != len(inputs):
        return False
    for name in inputs:
        if name is not known[index] and name != known[index]:
            return False
        index += 1
    return True


# msgpack, as msgspec writes it: in as few bytes as possible.

cdef char *_write_array(char *at, size_t count) noexcept nogil:
    if count < 16:
        at[0] = <char> (0x90 | count)
        return at + 1
    at[0] = <char> 0xDC
    return _write_big(at + 1, count, 2)


cdef char *_write_uint(char *at, uint64_t value) noexcept nogil:
    if value < 0x80:
        at[0] = <char> value
        return at + 1
    if value < 0x100:
        at[0] = <char> 0xCC
        return _write_big(at + 1, value, 1)
    if value < 0x10000:
        at[0] = <char> 0xCD
        return _write_big(at + 1, value, 2)
    if not value >> 32:
        at[0] = <char> 0xCE
        return _write_big(at + 1, value, 4)
    at[0] = <char> 0xCF
    return _write_big(at + 1, value, 8)


cdef char *_write_big(char *at, uint64_t value, int nbytes) noexcept nogil:
    """Big-endian."""
    cdef int index
    for index in range(nbytes):
        at[index] = <char> (value >> (8 * (nbytes - 1 - index)))
    return at + nbytes
