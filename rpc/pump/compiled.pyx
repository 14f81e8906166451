# cython: language_level=3, embedsignature=False, binding=True
"""The pump, compiled: what :class:`~.python.PythonPump` does, with nothing done per message in Python.

The commonest messages are read, checked, grouped, answered here, in C. For everything else this calls the
very code that the pump in Python consists of: :class:`~.intake.Intake` for what comes in,
:class:`~.outbox.Outbox` for peers that are slow or gone, ``PythonPump.reply`` for unusual outputs.
"""

import ctypes
import os
import sys
import time

import zmq
import zmq.backend.cython._zmq
from numpy import ndarray

try:
    from numpy._core import _multiarray_umath
except ImportError:  # NumPy 1
    from numpy.core import _multiarray_umath

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EHOSTUNREACH, EINTR, ENOMEM
from libc.errno cimport errno as c_errno
from libc.math cimport INFINITY
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.stdlib cimport posix_memalign
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close

from ..errors import RpcError
from ..wire.header import MAX_TENSOR_NBYTES, Interner, Signature
from ..wire.message import INLINE_LIMIT, answerable_ids, build_error, payload_of
from ..wire.prefix import (
    MAGIC,
    MAX_COUNT,
    MAX_ID,
    MAX_TENSORS,
    PREFIX_SIZE,
    U32_MAX,
    VERSION,
    Kind,
)
from .bundle import Bundle
from .intake import Intake
from .interface import DRAIN_NBYTES, Drained
from .python import PythonPump

include "_wire.pxi"
include "_tensors.pxi"
include "_libzmq.pxi"
include "_signatures.pxi"
include "_groups.pxi"
include "_framed.pxi"
include "_replies.pxi"
include "_posting.pxi"
include "_readings.pxi"
include "_receiver.pxi"
include "_exchange.pxi"

#: Messages read before the GIL is released: for a few it would cost more than it is worth to anybody.
cdef Py_ssize_t HELD_MESSAGES = 8


class _GroupingIntake(Intake):
    """Intake's rules; what may share a block goes to the groups in C."""

    def __init__(self, signatures, groups):
        super().__init__(signatures)
        self._in_c = groups

    def _append(self, key, signature, peer, head, first_id, timeout_us, count, rows_at, limit, now):
        cdef Groups groups = self._in_c
        if not groups.enter_checked(key, signature, rows_at, now):
            # Malformed: Intake knows what to say.
            super()._append(key, signature, peer, head, first_id, timeout_us, count, rows_at, limit, now)


cdef class CompiledPump:
    """See :class:`~.interface.Pump`."""

    cdef readonly object counters
    cdef object _socket
    cdef void *_handle
    cdef object _clock
    cdef Groups _groups
    cdef object _intake
    #: The intake may have something to take.
    cdef bint _strange
    cdef object _python
    cdef object _outbox
    cdef dict _held
    cdef Answer _answer
    cdef dict _answers
    cdef Scratch _scratch

    def __init__(self, socket, *, clock=time.monotonic, signatures=None, max_peer_nbytes=64 << 20):
        self._socket = socket
        self._handle = <void *> <size_t> socket.underlying
        self._clock = clock
        self._groups = Groups()
        self._python = PythonPump(socket, clock=clock, max_peer_nbytes=max_peer_nbytes)
        self._intake = _GroupingIntake(signatures or Interner(Signature), self._groups)
        self.counters = self._python.counters
        self._outbox = self._python._outbox
        self._outbox._send = Sender(socket)
        self._held = self._outbox._held
        self._answers = {}
        self._scratch = Scratch()

    cdef int _check_open(self) except -1:
        # A closed socket's memory is gone.
        if self._socket.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)
        return 0

    # ---------------------------------------------------------------- in

    def drain(self, Py_ssize_t limit=1024):
        """See :meth:`~.interface.Pump.drain`."""
        cdef Groups groups = self._groups
        self._check_open()
        _reap()
        groups.received = 0
        groups.nbytes = 0
        groups.requests = 0
        cdef double now = self._clock()
        try:
            self._read(limit, now)
        finally:
            if groups.received:
                counters = self.counters
                counters.messages += groups.received
                counters.requests += groups.requests
                counters.bytes_received += groups.nbytes
        return self._taken(now, groups.received >= limit or groups.nbytes >= ENOUGH_NBYTES)

    cdef int _read(self, Py_ssize_t limit, double now) except -1:
        cdef Groups groups = self._groups
        cdef int error = -1
        while error == -1:
            error = groups.pull(self._handle, min(limit, groups.received + HELD_MESSAGES), now)
            if error == 0 and groups.received < limit:
                with nogil:
                    error = groups.pull(self._handle, limit, now)
            if error == -1:
                self._take_strange(now)
        if error == ENOMEM:
            raise MemoryError
        if error and error != EAGAIN:
            raise _zmq_error(error)
        return 0

    cdef object _taken(self, double now, bint more):
        cdef list bundles
        cdef list controls
        if not self._strange:
            return Drained(self._groups.take(now), [], more)
        bundles, controls = self._intake.take(now)
        self._strange = False
        bundles += self._groups.take(now)
        return Drained(bundles, controls, more)

    cdef int _take_strange(self, double now) except -1:
        """The message that was read last, which is not one of the commonest."""
        cdef Groups groups = self._groups
        cdef Record *record = groups.record(groups.used)
        cdef bytes peer = PyBytes_FromStringAndSize(
            <char *> msg_data(&record.peer), msg_size(&record.peer)
        )
        cdef list frames = self._rest() if msg_more(&record.head) else []
        self._strange = True
        if frames:
            bundle = _framed_bundle(groups, record, peer, frames, now)
            if bundle is not None:
                self._intake._bundles.append(bundle)
                groups.requests += record.count
                return 0
        return self._take_in_python(record, peer, frames, now)

    cdef int _take_in_python(self, Record *record, bytes peer, list frames, double now) except -1:
        """Whatever it is: by the code that knows every kind of message, and what can be wrong with it."""
        cdef Groups groups = self._groups
        cdef size_t size = msg_size(&record.head)
        cdef Frame whole
        if size <= COPIED_NBYTES:
            head = PyBytes_FromStringAndSize(<char *> msg_data(&record.head), size)
        else:
            whole = Frame()
            msg_copy(&whole.message, &record.head)
            head = memoryview(whole)
        groups.entered = False
        try:
            requests = self._intake.add(peer, head, [memoryview(frame) for frame in frames], now)
        except RpcError as error:
            self._malformed(peer, head, error)
            return 0
        if groups.entered:
            groups.used += 1
            return 0
        groups.requests += requests
        if requests and frames:
            signature = self._intake._bundles[-1].signature
            if signature.layout.groupable:
                groups.learn(signature)
        return 0

    cdef list _rest(self):
        """The message's further frames, however many there are: none may be left for the next message."""
        cdef list frames = []
        cdef Frame frame
        cdef int error
        cdef bint more = True
        while more:
            frame = Frame()
            error = _recv(&frame.message, self._handle)
            if error:
                raise _zmq_error(error)
            more = msg_more(&frame.message)
            self._groups.nbytes += msg_size(&frame.message)
            if len(frames) <= MAX_TENSORS:
                frames.append(frame)
        return frames

    cdef int _malformed(self, bytes peer, head, error) except -1:
        ids = answerable_ids(head)
        if ids is None:
            self.counters.malformed_dropped += 1
        else:
            self.counters.malformed_answered += 1
            self.send(peer, build_error(*ids, error.code, error.message))
        return 0

    # ---------------------------------------------------------------- out

    def reply(self, part, template, outputs, Py_ssize_t row, queue_us, compute_us):
        """See :meth:`~.interface.Pump.reply`."""
        self._check_open()
        cdef Answer answer = self._answer_of(template)
        if not answer.plain or not self._reply_rows(part, answer, outputs, row, queue_us, compute_us):
            self._python.reply(part, template, outputs, row, queue_us, compute_us)

    cdef Answer _answer_of(self, template):
        cdef Answer answer = self._answer
        if answer is not None and answer.template is template:
            return answer
        answer = self._answers.get(template)
        if answer is None:
            if len(self._answers) >= ANSWERS_KEPT:
                self._answers.clear()
            answer = self._answers[template] = Answer(template)
        self._answer = answer
        return answer

    cdef bint _reply_rows(
        self, part, Answer answer, outputs, Py_ssize_t row, queue_us, compute_us
    ) except -1:
        """Answer requests of one row each, or one whose outputs have no rows; False: nothing was sent, as
        something is unusual."""
        cdef Py_ssize_t lo, hi
        cdef Py_buffer views[OUTPUTS]
        cdef Py_ssize_t held = 0
        bundle, lo, hi = part
        if len(outputs) != answer.tensors or (
            bundle.rows if answer.rows else bundle.counts
        ) is not None:
            return False
        try:
            for output in outputs:
                _view(output, answer.dtypes[held], &views[held])
                held += 1
                if not answer.holds(held - 1, views[held - 1].len, row, hi - lo):
                    return False
            self._scratch.times(min(queue_us, U32_MAX), min(compute_us, U32_MAX))
            self._send_rows(bundle, lo, hi, answer, outputs, views, row)
        finally:
            while held:
                held -= 1
                PyBuffer_Release(&views[held])
        self.counters.replies += hi - lo
        return True

    cdef int _send_rows(
        self, bundle, Py_ssize_t lo, Py_ssize_t hi, Answer answer, outputs, Py_buffer *views, Py_ssize_t row
    ) except -1:
        cdef list peers = bundle.peers
        cdef list first_ids = bundle.first_ids
        cdef list counts = bundle.counts
        cdef Scratch scratch = self._scratch
        cdef Span span
        cdef msg_t frame
        cdef uint64_t first_id
        _begin(&span, lo, hi)
        while _advance(&span, counts):
            scratch.prepare(answer, span.requests)
            first_id = <uint64_t> first_ids[span.message] + span.skipped
            if scratch.framed:
                frames = scratch.frames(first_id, outputs, views, row + span.start - lo)
                self._outbox.send_frames(peers[span.message], frames)
                continue
            if msg_init_size(&frame, scratch.nbytes):
                raise MemoryError
            scratch.write(<char *> msg_data(&frame), first_id, views, row + span.start - lo)
            self._post(peers[span.message], &frame)
        return 0

    def fail(self, part, code, message):
        """See :meth:`~.interface.Pump.fail`."""
        cdef Py_ssize_t lo, hi
        cdef Span span
        cdef msg_t frame
        cdef char *at
        cdef uint64_t first_id
        cdef uint32_t count
        self._check_open()
        bundle, lo, hi = part
        self.counters.errors += hi - lo
        cdef list peers = bundle.peers
        cdef list first_ids = bundle.first_ids
        cdef bytes text = build_error(0, 1, code, message)
        _begin(&span, lo, hi)
        while _advance(&span, bundle.counts):
            _copy_of(&frame, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            at = <char *> msg_data(&frame)
            first_id = <uint64_t> first_ids[span.message] + span.skipped
            count = <uint32_t> span.requests
            memcpy(at + AT_ID, &first_id, 8)
            memcpy(at + AT_COUNT, &count, 4)
            self._post(peers[span.message], &frame)

    def send(self, bytes peer, frame):
        """See :meth:`~.interface.Pump.send`."""
        cdef msg_t message
        self._check_open()
        if type(frame) is not bytes:
            self._outbox.send(peer, frame)
            return
        _copy_of(&message, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
        self._post(peer, &message)

    cdef int _post(self, bytes peer, msg_t *frame) except -1:
        """Send a message of one frame, which is gone afterwards in any case."""
        cdef int error = EAGAIN
        if not self._held or peer not in self._held:
            error = self._try_post(peer, frame)
        if not error:
            return 0
        data = PyBytes_FromStringAndSize(<char *> msg_data(frame), msg_size(frame))
        msg_close(frame)
        if error != EAGAIN and error != EHOSTUNREACH:
            raise _zmq_error(error)
        # Slow or gone: the outbox tries again, and knows what is to be done.
        self._outbox.send(peer, data)
        return 0

    cdef int _try_post(self, bytes peer, msg_t *frame) except? 1:
        """0, or why it was refused. Once a peer's identity has been taken, its message is, too."""
        cdef msg_t identity
        _copy_of(&identity, PyBytes_AS_STRING(peer), PyBytes_GET_SIZE(peer))
        cdef int error = _send(&identity, self._handle, SNDMORE)
        if error:
            msg_close(&identity)
            return error
        return _send(frame, self._handle, 0)

    def allow(self, peer, max_nbytes):
        """See :meth:`~.interface.Pump.allow`."""
        self._outbox.allow(peer, max_nbytes)

    def flush(self):
        """See :meth:`~.interface.Pump.flush`."""
        self._check_open()
        _reap()
        return self._outbox.flush()

    @property
    def holding(self):
        """See :attr:`~.interface.Pump.holding`."""
        return bool(self._held)


def fast_paths():
    """Which of the short cuts around Python are in use: without one, everything works, more slowly."""
    return {"bundles": bool(PLAIN_BUNDLE), "arrays": new_array != NULL}
