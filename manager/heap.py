"""Gives free memory back while nobody asks for anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from .memory import allocated_bytes, trim_heap

#: Free bytes in the heap that are worth the milliseconds of a trim.
_WORTH_IT: Final = 32 << 20
#: Seconds without a message, after which nobody is likely to be held up.
_QUIET: Final = 2.0
_STATM: Final = Path("/proc/self/statm")


class Reading(NamedTuple):
    """Memory of this process in bytes: what is resident, and what of its heap is in use."""

    resident: int
    used: int


def read_memory() -> Reading | None:
    """Both now; None where the system or its allocator does not tell."""
    used = allocated_bytes()
    if used is None:
        return None
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except OSError:
        return None
    return Reading(pages * os.sysconf("SC_PAGE_SIZE"), used)


class HeapKeeper:
    """Decides when to trim the heap of a process that calls :meth:`look` about once a second.

    The heap keeps what it once had (:func:`.memory.use_one_heap`), because the next large tensors want it: it
    stays at what was in use at most. A trim locks the heap, as a rule for some 0.1 ms a mebibyte, but for
    seconds where the host keeps the machine's cores apart, so it waits until nobody calls.

    Args:
        read: the process's memory, or None where it is unknown: then nothing is ever trimmed.
        trim: gives free memory back.
    """

    def __init__(
        self,
        read: Callable[[], Reading | None] = read_memory,
        trim: Callable[[], object] = trim_heap,
    ) -> None:
        self._read = read
        self._trim = trim
        #: Resident bytes that are not in use and that a trim cannot give back: code, stacks, mappings.
        self._beside = 0
        self._seen = -1
        self._quiet_since = 0.0

    def look(self, now: float, seen: int) -> bool:
        """Trim if it is time to.

        Args:
            now: seconds of a monotonic clock.
            seen: any number that changes with every message.

        Returns:
            Whether it has trimmed.
        """
        if seen != self._seen:
            self._seen, self._quiet_since = seen, now
        if now - self._quiet_since < _QUIET:
            return False
        reading = self._read()
        if reading is None or reading.resident - reading.used < self._beside + _WORTH_IT:
            return False
        self._trim()
        # Whatever has not gone now never will: it is not the heap's.
        after = self._read()
        self._beside = 0 if after is None else after.resident - after.used
        return True
