# cython: language_level=3, embedsignature=False, binding=True
"""Calls and their answers, compiled: the plain ones, from arrays to the socket and from there to arrays.

Plain is what nearly all are: a form that was seen before, elements of fixed size, rows that all tensors share,
in the message or in the arena. For everything else this does nothing, or gives back the message as it came, and
:mod:`.cargo` and :mod:`.framing` do the work. What they refuse is never accepted here.
"""

import sys

from numpy import dtype as numpy_dtype
from numpy import ndarray

try:
    from numpy._core import _multiarray_umath
except ImportError:  # NumPy 1
    from numpy.core import _multiarray_umath

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cpython.ref cimport Py_INCREF
from libc.errno cimport EAGAIN, ECONNRESET, EINTR
from libc.errno cimport errno as c_errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.stdlib cimport posix_memalign
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close

from ...rpc.errors import ProtocolError, RpcError
from ...rpc.types import dtype_of, name_of_dtype
from ...rpc.wire.header import MAX_TENSOR_NBYTES
from ...rpc.wire.prefix import MAGIC, MAX_EXTRA, MAX_HEADER, PREFIX_SIZE, U32_MAX, VERSION, Kind
from .arena import ALIGNMENT
from .cargo import INLINE_LIMIT, INLINE_TOTAL
from .framing import MAX_MESSAGE, MAX_RETURNED
from .link import UNFIT, Closed, Received
from .port import Answer

include "../../rpc/pump/_wire.pxi"
include "../../rpc/pump/_tensors.pxi"
include "_sending.pxi"
include "_receiving.pxi"

if sys.byteorder != "little":
    raise ImportError("compiled calls read the wire's integers as they are: little-endian only")
if new_array == NULL:
    raise ImportError("this NumPy's functions are not known")
_check_arrays()


cdef class CompiledPort:
    """See :class:`~.port.Port`."""

    cdef Sending _sending
    cdef Receiving _receiving

    def __init__(self, link, inbound, outbound, signatures, *, blocking):
        self._sending = Sending(link.fileno(), blocking, inbound, outbound)
        self._receiving = Receiving(link.fileno(), blocking, inbound, outbound, signatures)

    # ---------------------------------------------------------------- the parent

    def send_call(self, call_id, dict inputs, Py_ssize_t padding, tuple outputs, deadline_us):
        """See :meth:`~.port.Port.send_call`."""
        cdef Sending sending = self._sending
        if not sending.gather_inputs(inputs):
            return False
        if not sending.pack(padding, outputs):
            return False
        return sending.post(KIND_REQUEST, call_id, deadline_us, 0)

    def receive_answer(self, dict wanted):
        """See :meth:`~.port.Port.receive_answer`."""
        cdef Receiving receiving = self._receiving
        if not receiving.receive():
            return None
        if not receiving.measure(KIND_REPLY):
            return receiving.strange()
        cdef uint64_t call_id = _u64(receiving.data + AT_ID)
        asked = wanted.get(call_id)
        if asked is None or receiving.reading.names != asked:
            return receiving.strange()
        cdef list outputs = receiving.arrays()
        del wanted[call_id]
        receiving.take_back()
        return Answer(call_id, outputs, None, _u32(receiving.data + AT_COMPUTE_US) / 1e6)

    # ---------------------------------------------------------------- the child

    def receive_call(self):
        """See :meth:`~.port.Port.receive_call`."""
        cdef Receiving receiving = self._receiving
        cdef uint64_t deadline_us
        while not receiving.receive():  # only where it does not block
            pass
        if not receiving.measure(KIND_REQUEST) or receiving.reading.wanted is None:
            return receiving.strange()
        deadline_us = _u64(receiving.data + AT_TIMEOUT)
        if deadline_us and _now_us() >= deadline_us:
            return receiving.strange()
        receiving.take_back()
        receiving.inputs = dict(zip(receiving.reading.names, receiving.arrays()))
        receiving.call_id = _u64(receiving.data + AT_ID)
        return None

    @property
    def call_id(self):
        """See :attr:`~.port.Port.call_id`."""
        return self._receiving.call_id

    @property
    def wanted(self):
        """See :attr:`~.port.Port.wanted`."""
        return self._receiving.reading.wanted

    def take_inputs(self):
        """See :meth:`~.port.Port.take_inputs`."""
        inputs, self._receiving.inputs = self._receiving.inputs, None
        return inputs

    def pack(self, tuple names, outputs):
        """See :meth:`~.port.Port.pack`."""
        cdef Sending sending = self._sending
        return sending.gather_outputs(names, outputs) and sending.pack(0, ())

    def post(self, call_id, double seconds):
        """See :meth:`~.port.Port.post`."""
        # As Python rounds.
        cdef uint64_t microseconds = min(round(seconds * 1_000_000), U32_MAX)
        self._sending.post(KIND_REPLY, call_id, 0, <uint32_t> microseconds)


cdef uint64_t _now_us() noexcept nogil:
    """The clock of ``time.monotonic``, which all processes of a machine share."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1_000_000 + <uint64_t> now.tv_nsec // 1000
