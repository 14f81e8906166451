"""Memory that a worker process and its parent share: where a block lies, and who has it at the moment.

Each direction has an arena of its own, into which only its sender writes. The sender allocates, the receiver
gives back. What does not fit travels in a piece of memory of its own, which lives as long as it is mapped.
None of it has a name: when both sides are gone, however they went, the kernel has it back.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from bisect import bisect_left
from collections import deque
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...rpc.errors import ProtocolError, ResourceExhaustedError

Array = npt.NDArray[Any]

#: Blocks begin at multiples of this: a cache line, and more than any dtype or vector unit asks for.
ALIGNMENT: Final = 64
#: Sparse: only what was ever in use takes memory. Fresh memory costs ten times what the copy into it does,
#: so all but the largest batches should find room; docs/decisions/0009 has the figures.
ARENA_NBYTES: Final = 64 << 20

_MEMINFO: Final = Path("/proc/meminfo")
#: Nobody may shrink it: who reads memory that is not there any more dies of SIGBUS.
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Allocator:
    """Offsets of blocks in a range of bytes: first fit, with neighbours that are free joined.

    First fit keeps to the low end, so the same pages are used again and again, and the others never.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Free ranges, ascending; two never touch.
        self._starts = [0]
        self._ends = [size]
        self._taken: dict[int, int] = {}

    @property
    def blocks(self) -> int:
        """How many blocks are in use."""
        return len(self._taken)

    @property
    def used(self) -> int:
        """Bytes in use, with what alignment adds."""
        return sum(self._taken.values())

    def take(self, nbytes: int) -> int | None:
        """Offset of a new block of at least one byte; None if no gap is large enough."""
        need = (max(1, nbytes) + ALIGNMENT - 1) & -ALIGNMENT
        for index, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            if end - start >= need:
                if end - start == need:
                    del self._starts[index], self._ends[index]
                else:
                    self._starts[index] = start + need
                self._taken[start] = need
                return start
        return None

    def give_back(self, offset: int) -> None:
        """Free a block.

        Raises:
            ProtocolError: no block in use begins there.
        """
        size = self._taken.pop(offset, None)
        if size is None:
            raise ProtocolError(f"no block in use begins at {offset}")
        starts, ends = self._starts, self._ends
        end = offset + size
        index = bisect_left(starts, offset)
        touches_left = index > 0 and ends[index - 1] == offset
        touches_right = index < len(starts) and starts[index] == end
        if touches_left and touches_right:
            ends[index - 1] = ends[index]
            del starts[index], ends[index]
        elif touches_left:
            ends[index - 1] = end
        elif touches_right:
            starts[index] = offset
        else:
            starts.insert(index, offset)
            ends.insert(index, end)


def new_memory(nbytes: int, *, reserve: bool) -> int:
    """Descriptor of nameless memory of a fixed size.

    Args:
        reserve: have the kernel find all pages now. That takes less time than one by one.

    Raises:
        ResourceExhaustedError: no memory, or no descriptor, is left.
    """
    # The kernel does not say no: it begins, and kills a process when nothing is left.
    if reserve and nbytes > (there := _available_bytes()):
        raise ResourceExhaustedError(f"{nbytes} bytes of shared memory do not fit into the {there} available")
    try:
        fd = os.memfd_create("tensorwire", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            if reserve:
                os.posix_fallocate(fd, 0, nbytes)
            else:
                os.ftruncate(fd, nbytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise ResourceExhaustedError(f"no {nbytes} bytes of shared memory: {error.strerror}") from error
    return fd


def _available_bytes() -> int:
    """Memory that can be had without swapping; a great deal, where that is not known."""
    try:
        with _MEMINFO.open() as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return sys.maxsize


class Mapping:
    """Shared memory as bytes. It stays mapped for as long as an array made of it is in use.

    Attributes:
        nbytes, bytes, address: its size, it, and where it begins.
    """

    def __init__(self, fd: int, *, writable: bool) -> None:
        """``fd`` remains the caller's.

        Raises:
            ProtocolError: somebody could shrink it, or it is empty.
            ResourceExhaustedError: it cannot be mapped.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            self.nbytes = os.fstat(fd).st_size
        except OSError as error:
            raise ProtocolError(f"not a piece of shared memory: {error.strerror}") from error
        if not seals & fcntl.F_SEAL_SHRINK or not self.nbytes:
            raise ProtocolError("shared memory is empty or not sealed")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            mapped = mmap.mmap(fd, self.nbytes, access=access)
        except (OSError, ValueError) as error:
            raise ResourceExhaustedError(f"{self.nbytes} bytes cannot be mapped: {error}") from error
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(mapped, np.uint8)
        self.address: int = self.bytes.ctypes.data

    def lend(self, offset: int, nbytes: int, returned: deque[int] | None = None) -> Array:
        """The bytes there, read-only. When nothing uses them any more, ``offset`` is put into ``returned``.

        Raises:
            ProtocolError: they do not lie within the memory, or not where a block can begin.
        """
        if offset < 0 or offset % ALIGNMENT or nbytes < 1 or offset + nbytes > self.nbytes:
            raise ProtocolError(f"a block of {nbytes} bytes at {offset} does not lie in {self.nbytes} bytes")
        return np.asarray(_Lease(self.bytes, self.address + offset, nbytes, offset, returned))


class _Lease:
    """What an array and all views of it have as their base: its end is theirs.

    Not a finalizer of the array itself, because views of a view refer to the base only.
    """

    __slots__ = ("__array_interface__", "_memory", "_offset", "_returned")

    def __init__(
        self, memory: Array, address: int, nbytes: int, offset: int, returned: deque[int] | None
    ) -> None:
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            "data": (address, True),
        }
        self._memory = memory
        self._offset = offset
        self._returned = returned

    def __del__(self) -> None:
        # In whatever thread, and possibly in the middle of anything: one append, which is atomic.
        if self._returned is not None:
            self._returned.append(self._offset)
