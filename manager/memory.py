"""Give memory back to the operating system after a version was unloaded."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any, Final

#: glibc's ``M_ARENA_MAX``.
_ARENA_MAX: Final = -8


@cache
def _libc(name: str, *arguments: Any) -> Any | None:
    """A function of glibc that takes these and gives an int."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        # musl, macOS: the allocator returns memory by itself or not at all.
        return None
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function


def use_one_heap() -> None:
    """Have all threads share one heap; call it before threads are started, in a process that is all ours.

    glibc gives threads heaps of their own, whose ends :func:`return_memory` cannot give back: versions of up
    to 32 MiB that a load thread has read would stay resident, one for each heap. The interpreter lets few
    threads allocate at the same time anyway: CPU per request was measured to be the same with one heap.
    """
    mallopt = _libc("mallopt", ctypes.c_int, ctypes.c_int)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)


def return_memory() -> None:
    """Collect garbage and hand free heap pages back (glibc keeps them otherwise). Slow: off the hot path."""
    gc.collect()
    trim = _libc("malloc_trim", ctypes.c_size_t)
    if trim is not None:
        trim(0)
