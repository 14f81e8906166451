# Requests with tensor frames: bundles of their own, whose large tensors stay where libzmq has put them.


cdef object _framed_bundle(Groups groups, Record *record, bytes peer, list frames, double now):
    """The bundle of a request with a known header; None: something is unusual or wrong."""
    cdef const char *head = <const char *> msg_data(&record.head)
    cdef Plan *plan = groups.plan_of(head, msg_size(&record.head))
    if plan == NULL or not groups.measure(record, plan, PREFIX_BYTES + plan.header_len, now):
        return None
    if not _frames_fit(record, plan, frames):
        return None
    cdef Entry entry = <Entry> plan.entry
    cdef list rows = None
    if not record.unit_rows:
        rows = []
        groups.append_rows(rows, record)
    cdef size_t nbytes = msg_size(&record.head)
    cdef Frame frame
    for frame in frames:
        nbytes += msg_size(&frame.message)
    return _bundle(
        entry.signature, 0, None, [peer], [record.first_id],
        None if record.count == 1 else [record.count], [record.deadline], rows,
        record.count, record.rows, _framed_tensors(record, entry, frames), now, nbytes,
    )


cdef bint _frames_fit(Record *record, Plan *plan, list frames) except -1:
    """Whether head and frames of a measured message are what its header describes, to the byte."""
    cdef uint64_t limit = _u32(<const char *> msg_data(&record.head) + AT_LIMIT)
    cdef size_t at = record.tensors_at
    cdef size_t nbytes
    cdef Py_ssize_t index
    cdef Py_ssize_t framed = 0
    for index in range(plan.tensors):
        nbytes = plan.row_nbytes[index] * record.rows
        if nbytes <= limit:
            at = _aligned(at) + nbytes
        elif framed == len(frames) or msg_size(&(<Frame> frames[framed]).message) != nbytes:
            return False
        else:
            framed += 1
    return framed == len(frames) and at == msg_size(&record.head)


cdef list _framed_tensors(Record *record, Entry entry, list frames):
    """The tensors of a message that fits. Those in the head are small, and copied."""
    cdef const char *head = <const char *> msg_data(&record.head)
    cdef uint64_t limit = _u32(head + AT_LIMIT)
    cdef size_t at = record.tensors_at
    cdef size_t nbytes
    cdef Py_ssize_t index
    cdef list inputs = []
    rest = iter(frames)
    for index in range(entry.plan.tensors):
        shape, dtype = entry.shapes[index], entry.dtypes[index]
        nbytes = entry.plan.row_nbytes[index] * record.rows
        if nbytes > limit:
            inputs.append(_framed_array(next(rest), record.rows, shape, dtype))
        else:
            at = _aligned(at)
            inputs.append(_copied_array(head + at, nbytes, record.rows, shape, dtype))
            at += nbytes
    return inputs


cdef object _framed_array(Frame frame, Py_ssize_t rows, tuple shape, dtype):
    """An array of a frame that has exactly the bytes for it; no copy, unless the frame lies askew."""
    cdef char *data = <char *> msg_data(&frame.message)
    if <size_t> data % <size_t> dtype.alignment:
        return _copied_array(data, msg_size(&frame.message), rows, shape, dtype)
    return _array(data, frame, True, rows, shape, dtype)
