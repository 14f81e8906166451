"""Give memory back to the operating system after a version was unloaded."""

from __future__ import annotations

import ctypes
import gc
from functools import cache
from typing import Any


@cache
def _malloc_trim() -> Any | None:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        # musl, macOS: the allocator returns memory by itself or not at all.
        return None
    function.argtypes = [ctypes.c_size_t]
    function.restype = ctypes.c_int
    return function


def return_memory() -> None:
    """Collect garbage and hand free heap pages back (glibc keeps them otherwise). Slow: off the hot path."""
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)
