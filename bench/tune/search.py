"""Which point to measure next: coordinate descent from the present settings, or the whole grid. No I/O.

For each kind of worker: along the count, the batch size and the delay in turn, from the best point so far to
its neighbours and on while they are better, until none is. What a kind cannot do is not asked for again.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import msgspec

from .points import Axis, Point, Score, Space

#: Given a point, wants its score; ``None``: refused, or not to be chosen.
_Asking = Generator[Point, Score | None, tuple[Point, Score | None]]
_AXES: Final[tuple[Axis, ...]] = ("count", "batch", "delay")
#: Steps over which a line is followed although nothing changes there.
_FLAT_STEPS: Final = 1


class Search:
    """Asks for points, one at a time, none twice.

    Args:
        space: the values that may be tried.
        start: where to begin; the nearest point of the space is taken.
        full_grid: all points, those near the start first.
        tolerance: a smaller gain, as a fraction, is none.
    """

    def __init__(
        self, space: Space, start: Point, *, full_grid: bool = False, tolerance: float = 0.02
    ) -> None:
        self.space = space
        self._scores: dict[Point, Score | None] = {}
        begin = space.nearest(start)
        self._asking = _grid(space, begin) if full_grid else _by_kind(space, begin, tolerance)
        self._next: Point | None = begin
        self._advance()

    @property
    def next(self) -> Point | None:
        """The point to measure; ``None``: the search is over."""
        return self._next

    @property
    def told(self) -> int:
        """Points that were measured or refused."""
        return len(self._scores)

    def tell(self, score: Score | None) -> None:
        """What :attr:`next` gave; ``None``: the server refused it, or it must not be chosen."""
        if self._next is None:
            raise ValueError("the search is over")
        self._scores[self._next] = score
        self._advance()

    def _advance(self) -> None:
        """On to the next point that is not known yet."""
        try:
            if not self._scores:
                self._next = next(self._asking)
            while self._next in self._scores:
                self._next = self._asking.send(self._scores[self._next])
        except StopIteration:
            self._next = None


def _grid(space: Space, start: Point) -> _Asking:
    def far(point: Point) -> tuple[Any, ...]:
        steps = [
            abs(
                space.values(axis).index(getattr(point, axis))
                - space.values(axis).index(getattr(start, axis))
            )
            for axis in _AXES
        ]
        # A change of kind is a load: one kind after the other.
        return point.kind != start.kind, sum(steps), point

    for point in sorted(space.all(), key=far):
        _ = yield point
    return start, None


def _by_kind(space: Space, start: Point, tolerance: float) -> _Asking:
    best, score = yield from _descend(space, start, tolerance)
    for kind in space.kinds:
        if kind == start.kind:
            continue
        entry = msgspec.structs.replace(best, kind=kind)
        told = yield entry
        if told is None and entry.count != space.counts[0]:
            # The threads of a model that takes one call at a time, say.
            entry = msgspec.structs.replace(entry, count=space.counts[0])
            told = yield entry
        if told is None:
            continue
        found, found_score = yield from _descend(space, entry, tolerance)
        if found_score is not None and found_score.gain(score) > 0:
            best, score = found, found_score
    return best, score


def _descend(space: Space, start: Point, tolerance: float) -> _Asking:
    best = start
    score = yield start
    moved = True
    while moved:
        moved = False
        for axis in _AXES:
            found, score = yield from _line(space, best, score, axis, tolerance)
            moved = moved or found != best
            best = found
    return best, score


def _line(space: Space, best: Point, score: Score | None, axis: Axis, tolerance: float) -> _Asking:
    """Up along one axis while it helps; if it did not, down."""
    values = space.values(axis)
    begun = values.index(getattr(best, axis))
    for step in (1, -1):
        flat, index = _FLAT_STEPS, begun + step
        while 0 <= index < len(values):
            point = msgspec.structs.replace(best, **{axis: values[index]})
            told = yield point
            gain = float("-inf") if told is None else told.gain(score)
            if gain > tolerance:
                best, score, flat = point, told, _FLAT_STEPS
            elif gain >= -tolerance and flat:
                flat -= 1
            else:
                break
            index += step
        if getattr(best, axis) != values[begun]:
            break
    return best, score
