"""Settings of the interpreter for processes that are nothing but a server, or a worker of one."""

from __future__ import annotations

import gc
import sys
from typing import Final

#: Threads that want the interpreter get it after this many seconds, not after Python's 5 ms: the front
#: end must not wait that long for a Python servable.
_SWITCH_INTERVAL: Final = 0.0005
#: Objects allocated between two looks for cyclic garbage. The hot path makes no cycles.
_GC_THRESHOLD: Final = 100_000


def tune_interpreter() -> None:
    """Settings of the whole process that a server wants; for a process that is nothing but a server."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 50, 100)
