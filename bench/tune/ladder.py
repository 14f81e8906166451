"""How many callers to drive next: doubled until the objective is missed or nothing is gained. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_CALLERS: Final = 1024
#: Throughput that grows by less than this fraction does not grow.
_GROWTH: Final = 0.05


class Ladder:
    """Numbers of callers for one point.

    Args:
        fixed: exactly these; empty: a doubling ladder.
        start: its first rung. If that meets the objective it goes up from there, else down.
        patience: rungs without growth that end it.
    """

    def __init__(self, fixed: Sequence[int] = (), start: int = 1, patience: int = 1) -> None:
        self._fixed = list(fixed)
        self._next = self._fixed.pop(0) if fixed else start
        self._doubling = not fixed
        self._patience = patience
        self._best = 0.0
        self._factor = 0.0

    @property
    def next(self) -> int | None:
        """Callers to drive; ``None``: that was the last rung."""
        return self._next or None

    def tell(self, throughput: float, *, meets: bool, failed: bool = False) -> None:
        """What the last rung gave. ``failed``: calls failed."""
        if not self._doubling:
            self._next = self._fixed.pop(0) if self._fixed else 0
            return
        fine = meets and not failed
        if not self._factor:
            self._factor = 2.0 if fine else 0.5
        elif fine == (self._factor < 1):
            # Going up: the first that misses it ends it; going down: the first that meets it does.
            self._next = 0
            return
        if self._factor > 1 and throughput < self._best * (1 + _GROWTH):
            self._patience -= 1
        self._best = max(self._best, throughput)
        further = int(self._next * self._factor)
        self._next = further if self._patience > 0 and further <= MAX_CALLERS else 0
