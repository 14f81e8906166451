"""One heap for all threads, and how its free memory goes back to the operating system."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any, Final

#: glibc's ``M_TRIM_THRESHOLD``, ``M_MMAP_THRESHOLD`` and ``M_ARENA_MAX``.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
#: Free memory at the end of the heap that is kept for the next large tensors, bytes.
_KEPT: Final = 256 << 20
#: Larger blocks come from the operating system and go back to it; glibc takes no more than this.
_LARGEST_ON_HEAP: Final = 32 << 20


class _Mallinfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@cache
def _libc(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Any | None:
    """A function of glibc that takes these and gives a ``result``."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        # musl, macOS: the allocator returns memory by itself or not at all.
        return None
    function.argtypes = arguments
    function.restype = result
    return function


def use_one_heap() -> None:
    """Have all threads share one heap that keeps what it has; call it before threads are started, in a
    process that is all ours.

    glibc gives threads heaps of their own, whose ends :func:`return_memory` cannot give back: versions of up
    to 32 MiB that a load thread has read would stay resident, one for each heap. And it gives memory back to
    the operating system after each large tensor, only to have the next one fault it in again page by page.
    """
    mallopt = _libc("mallopt", ctypes.c_int, ctypes.c_int)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)


def return_memory() -> None:
    """Collect garbage and hand free heap pages back. Slow: off the hot path."""
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Hand free heap pages back, which glibc keeps otherwise. Whoever allocates meanwhile waits."""
    trim = _libc("malloc_trim", ctypes.c_size_t)
    if trim is not None:
        trim(0)


def allocated_bytes() -> int | None:
    """Bytes that are in use of the heap and of blocks of their own; None before glibc 2.33 and elsewhere.

    glibc walks its free blocks for it, with the heap locked: a fraction of a millisecond.
    """
    mallinfo = _libc("mallinfo2", result=_Mallinfo2)
    if mallinfo is None:
        return None
    info = mallinfo()
    return info.uordblks + info.hblkhd
