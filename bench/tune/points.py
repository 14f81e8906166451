"""Points: settings that can be measured, and the space that they are taken from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from .durations import duration

Axis = Literal["kind", "count", "batch", "delay"]

#: What is simpler comes first: threads need no second copy of the model.
KINDS: Final = ("thread", "process")


class Point(msgspec.Struct, frozen=True, order=True):
    """Settings of one model: ``workers.kind`` and ``count``, ``batching.max_batch_size`` (rows) and
    ``max_queue_delay`` (seconds)."""

    kind: str
    count: int
    batch: int
    delay: float

    def __str__(self) -> str:
        return f"{self.kind} x{self.count}, batch {self.batch}, delay {duration(self.delay)}"


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """The values that are tried; each axis ascending."""

    kinds: tuple[str, ...]
    counts: tuple[int, ...]
    batches: tuple[int, ...]
    delays: tuple[float, ...]

    @classmethod
    def of(
        cls, kinds: Iterable[str], counts: Iterable[int], batches: Iterable[int], delays: Iterable[float]
    ) -> Space:
        """Sorted, each value once."""
        return cls(
            kinds=tuple(sorted(set(kinds), key=KINDS.index)),
            counts=tuple(sorted(set(counts))),
            batches=tuple(sorted(set(batches))),
            delays=tuple(sorted(set(delays))),
        )

    def values(self, axis: Axis) -> Sequence[Any]:
        """The values of one axis."""
        by_axis: dict[Axis, Sequence[Any]] = {
            "kind": self.kinds,
            "count": self.counts,
            "batch": self.batches,
            "delay": self.delays,
        }
        return by_axis[axis]

    def nearest(self, point: Point) -> Point:
        """The point of this space that is most like another one."""
        return Point(
            point.kind if point.kind in self.kinds else self.kinds[0],
            min(self.counts, key=lambda count: (abs(count - point.count), count)),
            min(self.batches, key=lambda batch: (abs(batch - point.batch), batch)),
            min(self.delays, key=lambda delay: (abs(delay - point.delay), delay)),
        )

    def all(self) -> list[Point]:
        """Every point."""
        axes = (self.kinds, self.counts, self.batches, self.delays)
        return [Point(*values) for values in itertools.product(*axes)]

    def __len__(self) -> int:
        return len(self.kinds) * len(self.counts) * len(self.batches) * len(self.delays)


class Score(NamedTuple):
    """What a point gave, for comparing it with others."""

    #: The 99th percentile is within the objective.
    meets: bool
    throughput: float
    #: Seconds.
    p99: float

    def gain(self, other: Score | None) -> float:
        """By which part this is better than another; negative: worse. Above everything is who meets the
        objective; then throughput counts, or, where neither does, latency."""
        if other is None or self.meets > other.meets:
            return float("inf")
        if self.meets < other.meets:
            return float("-inf")
        better, worse = (self.throughput, other.throughput) if self.meets else (other.p99, self.p99)
        return better / worse - 1 if worse else float(better > 0)
