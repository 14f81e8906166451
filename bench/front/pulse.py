"""The machine's own pauses: ``python -m tensorwire.bench.front.pulse CORE``.

One such process for each core, pinned to it, sleeps 0.3 ms again and again and notes when it was away for
longer than a millisecond: then whoever else had work for this core may have been kept waiting, too. It takes
some hundredths of a core; one that spins would see no more, and take the core from those it watches. It has
the same priority as they, so what it waits for is the host of a virtual machine, other programs, or one of
the measured ones that would not let go; the gaps that it finds while nothing runs are reported, for
comparison.

It answers every line on its stdin with the gaps since the last one, and stops when stdin closes.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from ..child import Ready, say
from ..processes import Child

#: From when to when, ``time.monotonic``.
Gap = tuple[float, float]
#: Seconds that are a gap.
GAP: Final = 0.001
_SLEEP: Final = 0.0003
_WAIT: Final = 20.0


class Pulses:
    """The harness's side of the processes."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    @classmethod
    @contextmanager
    def start(cls, logs: Path) -> Generator[Self]:
        """Run one on each core that this process may use, until the block ends."""
        cores = sorted(os.sched_getaffinity(0))
        with ExitStack() as stack:
            children = [
                stack.enter_context(
                    Child(
                        f"the pulse of core {core}", ["-m", __name__, str(core)], logs / f"pulse-{core}.log"
                    )
                )
                for core in cores
            ]
            for child in children:
                child.receive(Ready, _WAIT)
            yield cls(children)

    def take(self) -> list[Gap]:
        """The gaps of all cores since the last time."""
        for child in self._children:
            child.send("take")
        return sorted(gap for child in self._children for gap in child.receive(list[Gap], _WAIT))


def overlapping(gap: Gap, others: Sequence[Gap]) -> bool:
    """Whether one of the others was going on at some time in this one."""
    return any(start < gap[1] and gap[0] < end for start, end in others)


def _main(core: int) -> None:
    os.sched_setaffinity(0, {core})
    gc.freeze()
    stdin = sys.stdin.fileno()
    clock, wait = time.monotonic, select.select
    gaps: list[Gap] = []
    say(Ready())
    last = clock()
    while True:
        ready, _, _ = wait((stdin,), (), (), _SLEEP)
        now = clock()
        if now - last > GAP:
            gaps.append((last, now))
        if ready:
            if not os.read(stdin, 4096):
                return
            say(gaps)
            gaps = []
            now = clock()
        last = now


if __name__ == "__main__":
    _main(int(sys.argv[1]))
