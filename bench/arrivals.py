"""When the calls of an open loop are due, and which calls are slow. Seeded, so that a run repeats."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np

Arrivals = Literal["fixed", "poisson"]

#: Drawn at once: little enough that it holds nothing up.
_DRAWN: Final = 512
#: After so many the slow calls come in the same order again.
_FLAGS: Final = 1 << 16


def due_times(
    arrivals: Arrivals, rate: float, begin: float, *, phase: float = 0.0, seed: int = 0
) -> Iterator[float]:
    """When calls are due, without end, in ascending order.

    Args:
        rate: calls a second.
        begin: no call is due before, in seconds of some clock.
        phase: of fixed arrivals, which lie at ``phase``, ``phase + 1 / rate``, ... of that clock. So the
            calls of processes with different phases interleave evenly, whenever each of them began.
        seed: of Poisson arrivals, whose gaps are exponential. Streams of different seeds are independent,
            and together are Poisson arrivals again.
    """
    if rate <= 0:
        raise ValueError(f"the rate of an open loop must be more than 0; found {rate:g}")
    return _fixed(rate, begin, phase) if arrivals == "fixed" else _poisson(rate, begin, seed)


def _fixed(rate: float, begin: float, phase: float) -> Iterator[float]:
    number = math.ceil((begin - phase) * rate)
    while True:
        # From the number, not from the last one: errors do not add up.
        due = phase + number / rate
        if due >= begin:
            yield due
        number += 1


def _poisson(rate: float, begin: float, seed: int) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    due = begin
    while True:
        chunk = due + np.cumsum(generator.exponential(1 / rate, _DRAWN))
        due = float(chunk[-1])
        yield from chunk.tolist()


def slow_flags(share: float, seed: int = 0) -> Iterator[bool]:
    """For one call after the other, without end, whether it is a slow one. Threads may share it."""
    if not share:
        return itertools.repeat(False)
    # Not the stream of the gaps between calls: else what is slow would hang on when it is due.
    return itertools.cycle((np.random.default_rng((seed, 1)).random(_FLAGS) < share).tolist())


class Due:
    """The calls of one run, as they become due. Threads may share it.

    Args:
        times: see :func:`due_times`.
        counts_from: calls that are due before are the warm-up.
        end: calls that are due then, or later, are none of this run.
    """

    def __init__(self, times: Iterator[float], counts_from: float, end: float) -> None:
        self._times = times
        self._lock = threading.Lock()
        self.counts_from = counts_from
        self.end = end
        #: When the next call is due; infinite after the last one.
        self.next = 0.0
        #: Calls that were taken and count.
        self.counted = 0
        self._advance()

    def take(self) -> float:
        """When the next call is due, which is the caller's from now on; infinite after the last one."""
        with self._lock:
            taken = self.next
            if taken < math.inf:
                self.counted += taken >= self.counts_from
                self._advance()
        return taken

    def _advance(self) -> None:
        due = next(self._times)
        self.next = due if due < self.end else math.inf
