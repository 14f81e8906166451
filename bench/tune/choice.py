"""From measurements to a recommendation. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..recorder import Measurement, Spread
from .points import KINDS, Point, Score

#: Fewer baselines than this say nothing about noise.
_ENOUGH: Final = 2
#: What is taken for noise then, and at least, as a fraction.
_ASSUMED_NOISE: Final = 0.05
_LEAST_NOISE: Final = 0.01
#: With more noise than this, a fraction, not even something simpler is recommended where it may be noise.
_TOO_NOISY: Final = 0.25
#: By so much, as a fraction, something simpler may have been seen to do less than what is in force.
_NO_LOSS: Final = 0.05
#: Codes that say that so many callers are too many, and nothing about the settings.
_OVERLOAD: Final = frozenset({"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})


class Rung(msgspec.Struct, frozen=True):
    """One measurement: so many callers, each with one call in flight. ``at``: seconds since the start."""

    callers: int
    measured: Measurement
    at: float = 0.0

    @property
    def sound(self) -> bool:
        """Calls were answered, and none failed."""
        return self.measured.requests > 0 and not self.measured.errors

    def score(self, objective: float) -> Score:
        """For comparing."""
        return Score(self.measured.p99 <= objective, self.measured.throughput, self.measured.p99)


class Measured(msgspec.Struct, kw_only=True):
    """What came of one point.

    Attributes:
        again: second measurements, because the point was to be recommended; they count instead of the first.
        refused: why the server did not take it.
    """

    point: Point
    rungs: list[Rung] = []
    again: list[Rung] = []
    refused: str = ""

    @property
    def errors(self) -> dict[str, int]:
        """Failed calls by code, of all measurements."""
        total: dict[str, int] = {}
        for rung in (*self.rungs, *self.again):
            for code, count in rung.measured.errors.items():
                total[code] = total.get(code, 0) + count
        return total

    @property
    def eligible(self) -> bool:
        """It may be chosen: calls failed at most where there were too many callers."""
        return not self.errors.keys() - _OVERLOAD and any(rung.sound for rung in self.rungs)

    def best(self, objective: float) -> Rung | None:
        """The rung that counts: the highest throughput within the objective, else the lowest latency."""
        later = {rung.callers: rung for rung in self.again}
        sound = [rung for rung in (later.get(rung.callers, rung) for rung in self.rungs) if rung.sound]
        meeting = [rung for rung in sound if rung.score(objective).meets]
        if meeting:
            return max(meeting, key=lambda rung: rung.measured.throughput)
        return min(sound, key=lambda rung: rung.measured.p99, default=None)

    def score(self, objective: float) -> Score | None:
        """``None``: not to be chosen."""
        best = self.best(objective) if self.eligible else None
        return None if best is None else best.score(objective)


def noise(baselines: Sequence[Rung]) -> float:
    """Half the range of the baselines' throughput, as a fraction of their median."""
    values = [rung.measured.throughput for rung in baselines if rung.sound]
    if len(values) < _ENOUGH:
        return _ASSUMED_NOISE
    return max(_LEAST_NOISE, Spread.of(values).relative)


def reference(baselines: Sequence[Rung], at: float) -> float:
    """Throughput of the nearest baselines, before and after; 0: there is none."""
    sound = [rung for rung in baselines if rung.sound]
    before = [rung for rung in sound if rung.at <= at][-1:]
    after = [rung for rung in sound if rung.at > at][:1]
    near = [rung.measured.throughput for rung in (*before, *after)]
    return sum(near) / len(near) if near else 0.0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One point in the report.

    Attributes:
        number: in the table and in the plot, from 1.
        present: the settings that were in force before.
        relative: throughput relative to that of the present settings, by way of the nearest baselines;
            ``None``: not known.
        confirmed: the figures are of a second measurement.
    """

    number: int
    point: Point
    present: bool
    rung: Rung | None
    meets: bool
    eligible: bool
    relative: float | None
    errors: dict[str, int]
    refused: str = ""
    confirmed: bool = False
    rungs: tuple[Rung, ...] = ()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The recommendation. ``reason``: why this one."""

    number: int
    point: Point
    meets: bool
    reason: str


def lines(
    measured: Sequence[Measured], baselines: Sequence[Rung], present: Point, objective: float
) -> list[Line]:
    """All points, in the order in which they were measured."""
    found = [_line(number, one, baselines, present, objective) for number, one in enumerate(measured, 1)]
    # The baselines are repeated with one number of callers; with another one the same settings may do more.
    unit = next((line.relative for line in found if line.present), None) or 1.0
    return [
        msgspec.structs.replace(line, relative=None if line.relative is None else line.relative / unit)
        for line in found
    ]


def _line(number: int, one: Measured, baselines: Sequence[Rung], present: Point, objective: float) -> Line:
    middle = None
    if one.point == present and any(rung.sound for rung in baselines):
        middle = _middle(baselines)
        one = msgspec.structs.replace(one, again=[*one.again, middle])
    rung = one.best(objective)
    near = 0.0 if rung is None else reference(baselines, rung.at)
    if rung is not None and rung is middle:
        near = rung.measured.throughput
    return Line(
        number=number,
        point=one.point,
        present=one.point == present,
        rung=rung,
        meets=rung is not None and rung.score(objective).meets,
        eligible=one.eligible,
        relative=rung.measured.throughput / near if rung and near else None,
        errors=one.errors,
        refused=one.refused,
        confirmed=rung in one.again,
        rungs=tuple(one.rungs),
    )


def _middle(baselines: Sequence[Rung]) -> Rung:
    """The present settings with the baselines' number of callers: what these gave in the middle."""
    sound = [rung for rung in baselines if rung.sound]
    throughput, p50, p99 = (
        Spread.of([getattr(rung.measured, name) for rung in sound]).median
        for name in ("throughput", "p50", "p99")
    )
    measured = msgspec.structs.replace(sound[0].measured, throughput=throughput, p50=p50, p99=p99)
    return msgspec.structs.replace(sound[len(sound) // 2], measured=measured)


def choose(found: Sequence[Line], noise: float) -> Choice | None:
    """The highest throughput within the objective; what is simpler where noise leaves the difference open.

    Where no point meets the objective: the lowest latency. ``None``: nothing was measured that may be chosen.
    """
    able = [line for line in found if line.eligible and line.rung is not None]
    meeting = [line for line in able if line.meets]
    if not able:
        return None
    if not meeting:
        best = min(able, key=lambda line: line.rung.measured.p99 if line.rung else 0.0)
        return _choice(best, "no point meets the objective; this one has the lowest p99")
    top = max(meeting, key=_worth)
    # As in the other benchmarks: where the ranges overlap, the measurements show no difference.
    near = [line for line in meeting if _worth(line) * (1 + noise) >= _worth(top) * (1 - noise)]
    present = next((line for line in found if line.present), None)
    if noise > _TOO_NOISY and present in near and present is not top:
        return _choice(
            present, f"with noise of +-{noise:.0%} nothing was shown to be better than what is in force"
        )
    # But what is in force is not given up for what was seen to do less.
    floor = min((_worth(line) * (1 - _NO_LOSS) for line in meeting if line.present), default=0.0)
    near = [line for line in near if line is top or _worth(line) >= floor]
    here = present.point if present else top.point
    best = min(near, key=lambda line: (*_complexity(line.point, here), -_worth(line)))
    if best is top:
        return _choice(best, "the highest throughput within the objective")
    told = f"simpler than {top.number}, and the noise of +-{noise:.0%} leaves the difference open"
    return _choice(best, told)


def _choice(line: Line, reason: str) -> Choice:
    return Choice(number=line.number, point=line.point, meets=line.meets, reason=reason)


def _worth(line: Line) -> float:
    """Relative to the baselines, so that a machine that became slower meanwhile does not decide."""
    if line.relative is not None:
        return line.relative
    return 0.0 if line.rung is None else line.rung.measured.throughput


def _complexity(point: Point, present: Point) -> tuple[int, int, int]:
    """The simpler kind, the lower count, the fewer changes."""
    changes = (point.batch != present.batch) + (point.delay != present.delay)
    return KINDS.index(point.kind), point.count, changes
