# Small messages put together to bundles, without the GIL and without a Python object per message.
#
# Accepts only what is right beyond doubt. Anything else is left to `Intake`, which takes it, or knows what
# is wrong with it: so the rules, and the words for what breaks them, stand in one place.

cdef class Groups:
    """The messages of one drain, and how they belong together."""

    #: Messages seen, and bytes and requests among those that were taken here.
    cdef Py_ssize_t received
    cdef uint64_t nbytes
    cdef uint64_t requests
    #: The last message read was entered by way of `Intake`.
    cdef bint entered
    cdef Record **chunks
    cdef Py_ssize_t chunk_count
    cdef Py_ssize_t used
    cdef Group *groups
    cdef Py_ssize_t group_count
    cdef Py_ssize_t group_room
    cdef Plan **table
    cdef Plan *recent
    cdef uint64_t seed
    cdef uint64_t drain
    cdef list entries
    cdef Py_ssize_t entries_nbytes
    #: Group of a key that is more than a header, or of a header that found no place in the table.
    cdef dict keyed

    def __cinit__(self):
        self.entries = []
        self.keyed = {}
        self.drain = 1
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.table = <Plan **> calloc(SLOTS, sizeof(Plan *))
        if self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t index, chunk
        for chunk in range(self.chunk_count):
            for index in range(CHUNK):
                msg_close(&self.chunks[chunk][index].peer)
                msg_close(&self.chunks[chunk][index].head)
            free(self.chunks[chunk])
        free(self.chunks)
        free(self.groups)
        free(self.table)

    # ------------------------------------------------------------ reading

    cdef Record *record(self, Py_ssize_t index) noexcept nogil:
        return &self.chunks[index // CHUNK][index % CHUNK]

    cdef Record *room(self) noexcept nogil:
        """The record behind the last used one; NULL: no memory. Records never move: messages must not."""
        cdef Py_ssize_t index
        cdef Record **chunks
        cdef Record *chunk
        if self.used == self.chunk_count * CHUNK:
            chunks = <Record **> realloc(self.chunks, (self.chunk_count + 1) * sizeof(Record *))
            if chunks == NULL:
                return NULL
            self.chunks = chunks
            chunk = <Record *> malloc(CHUNK * sizeof(Record))
            if chunk == NULL:
                return NULL
            for index in range(CHUNK):
                msg_init(&chunk[index].peer)
                msg_init(&chunk[index].head)
            chunks[self.chunk_count] = chunk
            self.chunk_count += 1
        return self.record(self.used)

    cdef int pull(self, void *socket, Py_ssize_t limit, double now) noexcept nogil:
        """Read messages until `limit` or enough bytes have been received.

        Returns 0; EAGAIN: there are no more; -1: the last one needs the long way; or another error.
        """
        cdef Record *record
        cdef int error
        while self.received < limit and self.nbytes < ENOUGH_NBYTES:
            record = self.room()
            if record == NULL:
                return ENOMEM
            error = _recv(&record.peer, socket)
            if error:
                return error
            self.received += 1
            error = _recv(&record.head, socket)
            if error:
                return error
            self.nbytes += msg_size(&record.head)
            if msg_more(&record.head) or not self.take_plain(record, now):
                return -1
            self.used += 1
        return 0

    cdef bint take_plain(self, Record *record, double now) noexcept nogil:
        """Enter a request with a known header and nothing unusual; otherwise do nothing."""
        cdef const char *head = <const char *> msg_data(&record.head)
        cdef size_t size = msg_size(&record.head)
        cdef Plan *plan = self.plan_of(head, size)
        if plan == NULL:
            return False
        return self.enter(record, plan, -1, PREFIX_BYTES + plan.header_len, now)

    cdef Plan *plan_of(self, const char *head, size_t size) noexcept nogil:
        """The plan of a request without an extra; NULL if it is none, or its header is not known."""
        cdef size_t header_len
        if (
            size < PREFIX_BYTES
            or _u32(head) != MAGIC_WORD
            or head[AT_VERSION] != 1
            or head[AT_KIND] != 1
            or _u32(head + AT_EXTRA_LEN)
        ):
            return NULL
        header_len = _u32(head + AT_HEADER_LEN)
        if header_len > size - PREFIX_BYTES:
            return NULL
        return self.find(head + PREFIX_BYTES, header_len)

    cdef bint enter(
        self, Record *record, Plan *plan, Py_ssize_t group, size_t rows_at, double now
    ) noexcept nogil:
        """Add a request without frames to a group (-1: to its header's own), if all its lengths add up."""
        if not self.measure(record, plan, rows_at, now) or not self.fits(record, plan):
            return False
        if group < 0:
            group = self.group_of(plan)
            if group < 0:
                return False
        self.append(&self.groups[group], record)
        self.requests += record.count
        return True

    cdef bint measure(self, Record *record, Plan *plan, size_t rows_at, double now) noexcept nogil:
        """Read a request's ids, rows and deadline; whether they are possible."""
        cdef const char *head = <const char *> msg_data(&record.head)
        cdef size_t size = msg_size(&record.head)
        cdef uint64_t count = _u32(head + AT_COUNT)
        cdef uint64_t first_id = _u64(head + AT_ID)
        cdef uint64_t timeout_us = _u64(head + AT_TIMEOUT)
        cdef uint64_t rows = 0
        cdef uint32_t other = 0
        cdef uint64_t index
        if not 0 < count <= COUNT_LIMIT or first_id > LAST_ID - (count - 1):
            return False
        if rows_at > size or 4 * count > size - rows_at:
            return False
        for index in range(count):
            rows += _u32(head + rows_at + 4 * index)
            other |= _u32(head + rows_at + 4 * index) ^ 1
        record.first_id = first_id
        record.count = <uint32_t> count
        record.rows = rows
        record.unit_rows = other == 0
        record.rows_at = rows_at
        record.tensors_at = rows_at + 4 * count
        record.deadline = now + <double> timeout_us * 1e-6 if timeout_us else INFINITY
        return rows <= plan.max_rows

    cdef bint fits(self, Record *record, Plan *plan) noexcept nogil:
        """Whether a measured head ends where its tensors do, and all of them are in it.

        Nothing overflows: a tensor of at most `max_rows` rows has at most 2**48 bytes.
        """
        cdef uint64_t limit = _u32(<const char *> msg_data(&record.head) + AT_LIMIT)
        cdef size_t at = record.tensors_at
        cdef size_t nbytes
        cdef Py_ssize_t index
        for index in range(plan.tensors):
            nbytes = plan.row_nbytes[index] * record.rows
            if nbytes > limit:
                return False
            at = _aligned(at) + nbytes
        return at == msg_size(&record.head)

    cdef void append(self, Group *group, Record *record) noexcept nogil:
        record.next = -1
        if group.messages:
            self.record(group.last).next = self.used
        else:
            group.first = self.used
        group.last = self.used
        group.messages += 1
        group.requests += record.count
        group.rows += record.rows
        group.unit_rows = group.unit_rows and record.unit_rows

    # ------------------------------------------------------------ headers

    cdef Plan *find(self, const char *header, size_t length) noexcept nogil:
        cdef Plan *plan = self.recent
        cdef uint64_t slot
        cdef int probe
        if plan != NULL and plan.header_len == length and not memcmp(plan.header, header, length):
            return plan
        slot = _hashed(header, length, self.seed)
        for probe in range(PROBES):
            plan = self.table[(slot + probe) % SLOTS]
            if plan == NULL:
                return NULL
            if plan.header_len == length and not memcmp(plan.header, header, length):
                self.recent = plan
                return plan
        return NULL

    cdef Plan *learn(self, signature) except NULL:
        """The plan of a signature; it is found by its header from now on, unless too much collides."""
        cdef Entry entry
        cdef Plan *plan
        cdef uint64_t slot
        cdef bytes raw = signature.raw
        plan = self.find(PyBytes_AS_STRING(raw), len(raw))
        if plan != NULL:
            return plan
        entry = Entry(signature)
        plan = &entry.plan
        self.entries.append(entry)
        self.entries_nbytes += len(raw)
        slot = _hashed(plan.header, plan.header_len, self.seed)
        for probe in range(PROBES):
            if self.table[(slot + probe) % SLOTS] == NULL:
                self.table[(slot + probe) % SLOTS] = plan
                plan.placed = True
                break
        return plan

    cdef void forget(self):
        """Between drains: ever new headers cost decoding, never memory."""
        if len(self.entries) > PLANS_KEPT or self.entries_nbytes > PLANS_KEPT_NBYTES:
            memset(self.table, 0, SLOTS * sizeof(Plan *))
            self.recent = NULL
            self.entries = []
            self.entries_nbytes = 0

    cdef Py_ssize_t group_of(self, Plan *plan) noexcept nogil:
        """The group of messages with this header and nothing else; -1: no memory."""
        if plan.drain != self.drain:
            plan.group = self.new_group(plan)
            if plan.group < 0:
                return -1
            plan.drain = self.drain
        return plan.group

    cdef Py_ssize_t new_group(self, Plan *plan) noexcept nogil:
        cdef Py_ssize_t room
        cdef Group *groups
        cdef Group *group
        if self.group_count == self.group_room:
            room = 2 * self.group_room or 16
            groups = <Group *> realloc(self.groups, room * sizeof(Group))
            if groups == NULL:
                return -1
            self.groups = groups
            self.group_room = room
        group = &self.groups[self.group_count]
        memset(group, 0, sizeof(Group))
        group.plan = plan
        group.unit_rows = True
        self.group_count += 1
        return self.group_count - 1

    cdef bint enter_checked(self, key, signature, size_t rows_at, double now) except -1:
        """Enter the last message read, whose prefix, header and extra `Intake` has found right."""
        cdef Record *record = self.record(self.used)
        cdef Plan *plan
        cdef Py_ssize_t group = -1
        found = self.keyed.get(key)
        if found is not None:
            group = found
            plan = self.groups[group].plan
        else:
            plan = self.learn(signature)
            if not plan.placed or not isinstance(key, bytes):
                group = self.new_group(plan)
                if group < 0:
                    raise MemoryError
        if not self.enter(record, plan, group, rows_at, now):
            if found is None and group >= 0:
                self.group_count -= 1
            return False
        if found is None and group >= 0:
            # A reference to the key that the dictionary keeps, not to an equal one of a later message.
            self.keyed[key] = group
            self.groups[group].key = NULL if isinstance(key, bytes) else <PyObject *> key
        self.entered = True
        return True

    # ------------------------------------------------------------ bundles

    cdef list take(self, double now):
        """Everything entered since the last call."""
        cdef list bundles = []
        cdef Py_ssize_t index
        try:
            for index in range(self.group_count):
                bundles.append(self.seal(&self.groups[index], now))
        finally:
            self.reset()
        return bundles

    cdef void reset(self):
        cdef Py_ssize_t index
        cdef Record *record
        # With the one behind the last: a message that was not entered, however large it is.
        for index in range(min(self.used + 1, self.chunk_count * CHUNK)):
            record = self.record(index)
            msg_close(&record.peer)
            msg_init(&record.peer)
            msg_close(&record.head)
            msg_init(&record.head)
        self.used = 0
        self.group_count = 0
        self.drain += 1
        if self.keyed:
            self.keyed = {}
        self.forget()

    cdef object seal(self, Group *group, double now):
        cdef Entry entry = <Entry> group.plan.entry
        cdef char *targets[TENSORS]
        cdef size_t nbytes = 0
        cdef Block block
        cdef list inputs = []
        cdef Py_ssize_t index
        for index in range(group.plan.tensors):
            block = _new_block(group.plan.row_nbytes[index] * group.rows)
            targets[index] = block.data
            nbytes += block.nbytes
            inputs.append(
                _array(block.data, block, False, group.rows, entry.shapes[index], entry.dtypes[index])
            )
        if nbytes < GATHER_WITHOUT_GIL:
            self.copy_rows(group, targets)
        else:
            with nogil:
                self.copy_rows(group, targets)
        return self.bundle(group, entry, inputs, nbytes, now)

    cdef void copy_rows(self, Group *group, char **targets) noexcept nogil:
        """Every tensor's rows of every message behind each other; `enter` has checked the lengths."""
        cdef Py_ssize_t at = group.first
        cdef Py_ssize_t tensor
        cdef Record *record
        cdef const char *head
        cdef size_t offset, nbytes
        while at >= 0:
            record = self.record(at)
            head = <const char *> msg_data(&record.head)
            offset = record.tensors_at
            for tensor in range(group.plan.tensors):
                nbytes = group.plan.row_nbytes[tensor] * record.rows
                offset = _aligned(offset)
                memcpy(targets[tensor], head + offset, nbytes)
                targets[tensor] += nbytes
                offset += nbytes
            at = record.next

    cdef object bundle(self, Group *group, Entry entry, list inputs, size_t nbytes, double now):
        cdef list peers = []
        cdef list first_ids = []
        cdef list deadlines = []
        cdef list counts = None if group.requests == <uint64_t> group.messages else []
        cdef list rows = None if group.unit_rows else []
        cdef Py_ssize_t at = group.first
        cdef Record *record
        cdef tuple key = None if group.key == NULL else <tuple> group.key
        while at >= 0:
            record = self.record(at)
            peers.append(
                PyBytes_FromStringAndSize(<char *> msg_data(&record.peer), msg_size(&record.peer))
            )
            first_ids.append(record.first_id)
            deadlines.append(record.deadline)
            if counts is not None:
                counts.append(record.count)
            if rows is not None:
                self.append_rows(rows, record)
            at = record.next
        cdef object priority = 0 if key is None else key[1]
        cdef object routing_key = None if key is None else key[2]
        return _bundle(
            entry.signature, priority, routing_key, peers, first_ids, counts, deadlines, rows,
            group.requests, group.rows, inputs, now, nbytes,
        )

    cdef int append_rows(self, list rows, Record *record) except -1:
        cdef const char *at = <const char *> msg_data(&record.head) + record.rows_at
        cdef uint32_t index
        for index in range(record.count):
            rows.append(_u32(at + 4 * <size_t> index))
        return 0


#: What `_bundle` knows to set. With another set it calls the constructor, which is always right.
cdef bint PLAIN_BUNDLE = set(Bundle.__slots__) == {
    "_row_starts", "_starts", "counts", "deadlines", "earliest_deadline", "first_ids", "inputs", "mirrored",
    "nbytes", "peers", "priority", "received", "requests", "routing_key", "rows", "signature", "total_rows",
}


cdef object _bundle(
    signature, priority, routing_key, list peers, list first_ids, list counts, list deadlines, list rows,
    uint64_t requests, uint64_t total_rows, list inputs, double now, size_t nbytes,
):
    """``Bundle(...)``; its constructor in Python would take a third of the time of a lone message."""
    if not PLAIN_BUNDLE:
        return Bundle(
            signature, priority=priority, routing_key=routing_key, peers=peers, first_ids=first_ids,
            counts=counts, deadlines=deadlines, rows=rows, total_rows=total_rows, inputs=inputs,
            received=now, nbytes=nbytes,
        )
    bundle = Bundle.__new__(Bundle)
    bundle.signature = signature
    bundle.priority = priority
    bundle.routing_key = routing_key
    bundle.peers = peers
    bundle.first_ids = first_ids
    bundle.counts = counts
    bundle.deadlines = deadlines
    bundle.rows = rows
    bundle.total_rows = total_rows
    bundle.inputs = inputs
    bundle.received = now
    bundle.nbytes = nbytes
    bundle.mirrored = False
    bundle.requests = requests
    bundle.earliest_deadline = min(deadlines)
    bundle._starts = None
    bundle._row_starts = None
    return bundle
