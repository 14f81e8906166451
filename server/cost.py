"""What a batch of so many rows costs: measured in the warm-up, corrected by what is seen since."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

#: Weight of the newest batch in the running correction.
_SMOOTHING: Final = 0.1


class CostModel:
    """Seconds per batch, piecewise linear in rows between the sizes that the warm-up has measured.

    Attributes:
        row_seconds: seconds that a row takes one worker under load, that is, in the best measured batch
            size; 0 while nothing is known.
    """

    def __init__(self, costs: Mapping[int, float]) -> None:
        """``costs``: rows -> seconds."""
        self._rows = sorted(rows for rows in costs if rows > 0)
        self._seconds = [costs[rows] for rows in self._rows]
        self._best = min((costs[rows] / rows for rows in self._rows), default=0.0)
        #: How much longer batches take than in the warm-up, where the machine was idle.
        self._slowdown = 1.0
        self.row_seconds = self._best

    def limit(self, rows: int) -> None:
        """No batch is larger than so many rows from now on."""
        sizes = {*self._rows, rows} if self._rows else ()
        self._best = min((self.expected(size) / size for size in sizes if size <= rows), default=0.0)
        if self._rows:
            self.row_seconds = self._best * self._slowdown

    def expected(self, rows: int) -> float:
        """Seconds for a batch, as of the warm-up."""
        sizes, seconds = self._rows, self._seconds
        if not sizes:
            return 0.0
        if rows <= sizes[0]:
            return seconds[0]
        if rows >= sizes[-1]:
            return seconds[-1] * rows / sizes[-1]
        above = bisect_left(sizes, rows)
        share = (rows - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
        return seconds[above - 1] + share * (seconds[above] - seconds[above - 1])

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of ``rows`` rows took ``seconds``."""
        if rows <= 0:
            return
        expected = self.expected(rows)
        if expected > 0:
            self._slowdown += _SMOOTHING * (seconds / expected - self._slowdown)
            self.row_seconds = self._best * self._slowdown
        else:
            self.row_seconds += _SMOOTHING * (seconds / rows - self.row_seconds)

    def rows_within(self, budget: float) -> int:
        """The largest measured batch, in rows, that runs within ``budget`` seconds; 0 if none does."""
        return max(
            (rows for rows, cost in zip(self._rows, self._seconds, strict=True) if cost <= budget), default=0
        )
