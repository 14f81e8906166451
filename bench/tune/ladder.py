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
        patience: rungs that miss the objective or gain nothing, one after the other, that end the way up.
    """

    def __init__(self, fixed: Sequence[int] = (), start: int = 1, patience: int = 1) -> None:
        self._fixed = list(fixed)
        self._next = self._fixed.pop(0) if fixed else start
        self._doubling = not fixed
        self._patience = self._left = patience
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
            # A single miss may be bad luck; with some patience the ladder begins upwards all the same.
            self._factor = 2.0 if fine or self._patience > 1 else 0.5
        elif fine and self._factor < 1:
            self._next = 0
            return
        if self._factor > 1:
            self._going_up(throughput, fine)
        if failed and self._factor > 1:
            self._left = 0
        further = int(self._next * self._factor)
        self._next = further if self._left > 0 and further <= MAX_CALLERS else 0

    def _going_up(self, throughput: float, fine: bool) -> None:
        if fine and throughput >= self._best * (1 + _GROWTH):
            self._left = self._patience
        else:
            self._left -= 1
        if fine:
            self._best = max(self._best, throughput)
