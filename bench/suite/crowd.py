"""How many client processes the machine carries."""

from __future__ import annotations

from typing import Final

import psutil

#: Client processes that are tried, as far as the memory goes.
_SIZES: Final = (2, 4, 8, 16, 32)
#: Of one Python client process, without what it shares; systems whose clients run at one time.
_BYTES: Final = 60 << 20
_SYSTEMS: Final = 5


def crowd_sizes(available: int | None = None) -> list[int]:
    """Numbers of client processes, ascending; at least the first.

    Args:
        available: bytes of memory; None: what is available here and now.
    """
    free = psutil.virtual_memory().available if available is None else available
    # Half of it: the servers and everything else are there as well.
    most = free // 2 // (_BYTES * _SYSTEMS)
    return [size for size in _SIZES if size <= max(most, _SIZES[0])]
