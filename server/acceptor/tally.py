"""A pump's counters in memory that two processes share: written without asking, read without waiting."""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final

import msgspec

from ...rpc.pump import Counters

_FORMAT: Final = struct.Struct(f"<{len(Counters.__struct_fields__)}Q")


def new_memory() -> int:
    """A descriptor for :class:`Tally`; it passes to other processes by inheritance only."""
    fd = os.memfd_create("tensorwire-tally", os.MFD_CLOEXEC)
    os.ftruncate(fd, mmap.PAGESIZE)
    return fd


class Tally:
    """The counters of another process, or for one."""

    def __init__(self, fd: int) -> None:
        """``fd``: from :func:`new_memory`; it is not needed afterwards."""
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)

    def write(self, counters: Counters) -> None:
        """Make them known."""
        _FORMAT.pack_into(self._memory, 0, *msgspec.structs.astuple(counters))

    def read(self) -> Counters:
        """What was written last."""
        return Counters(*_FORMAT.unpack_from(self._memory))
