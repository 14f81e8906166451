"""One sweep: points from the search, each measured over a ladder of callers, baselines in between.

Everything that touches a server or a clock is passed in. What was measured is kept here as it comes, so that
it is there however the sweep ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from ..recorder import Measurement
from .choice import Measured, Rung, choose, lines, noise, reference
from .ladder import MAX_CALLERS, Ladder
from .points import Point, Score
from .search import Search

#: Warm-up of each measurement, as a part of it; at least so many seconds.
_WARMUP_PART: Final = 0.15
_WARMUP_SECONDS: Final = 0.2
#: Rungs without growth that end the first ladder, and the others, which begin near the right place.
_FIRST_PATIENCE: Final = 2
_PATIENCE: Final = 1
#: Recommendations that are measured once more before one of them stands.
_CONFIRMATIONS: Final = 6
#: Measurements that are still to come when the search is over: a baseline, a confirmation, and some of the
#: settings before.
_AFTERWARDS: Final = 4


class Refused(Exception):
    """The server does not take these settings; the text says why. Those before are in force again."""


class Site(Protocol):
    """A model on a server."""

    def apply(self, point: Point) -> None:
        """Run the model with these settings from now on; returns when they are in force and warm.

        Raises:
            Refused: they cannot be had.
        """
        ...

    def measure(self, callers: int, warmup: float, seconds: float) -> Measurement:
        """Drive so many callers."""
        ...


class Narrator(Protocol):
    """Whoever watches."""

    def starts(self, what: str, elapsed: float) -> None:
        """This is measured now."""
        ...

    def measured(self, one: Measured, what: str) -> None:
        """A point is done."""
        ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a sweep is made. Durations are seconds.

    Attributes:
        objective: what p99 is to be within.
        callers: numbers of callers; empty: a doubling ladder.
        seconds: one measurement, after its warm-up.
        budget: the whole sweep.
        every: points between two baselines.
    """

    objective: float
    callers: tuple[int, ...] = ()
    seconds: float = 2.0
    budget: float = 180.0
    full_grid: bool = False
    every: int = 3


class Session:
    """Runs one sweep.

    Args:
        site: what is measured.
        search: which points.
        present: the settings in force, measured first and as the baseline.
        clock: seconds.
    """

    def __init__(
        self,
        site: Site,
        search: Search,
        present: Point,
        plan: Plan,
        narrator: Narrator,
        clock: Callable[[], float],
    ) -> None:
        self.measured: list[Measured] = []
        self.baselines: list[Rung] = []
        #: The budget ended it, not the search.
        self.cut = False
        self._site = site
        self._search = search
        self._present = present
        self._plan = plan
        self._narrator = narrator
        self._clock = clock
        self._began = clock()
        self._since_baseline = 0
        self._costs: list[float] = []
        self._best: tuple[Measured, Score] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    @property
    def best(self) -> Measured | None:
        """The best point so far."""
        return self._best[0] if self._best else None

    def run(self) -> None:
        """Measure until the search or the budget is over."""
        first = self._point(self._present, Ladder(self._plan.callers, patience=_FIRST_PATIENCE))
        rung = first.best(self._plan.objective)
        if rung is None:
            return
        self.baselines.append(rung)
        while (point := self._search.next) is not None:
            if point == self._present:
                self._search.tell(self._score(first))
                continue
            if self._time_left() < self._typical() and self._costs:
                self.cut = True
                break
            if self._since_baseline >= self._plan.every:
                self._baseline(rung.callers)
            self._search.tell(self._score(self._point(point, self._ladder())))
            self._since_baseline += 1
        if self._since_baseline:
            self._baseline(rung.callers)
            self._confirm(first)

    def _confirm(self, first: Measured) -> None:
        """Measure the recommendation once more: it was the best of many, so it was lucky too."""
        again = False
        for _ in range(_CONFIRMATIONS):
            found = lines(self.measured, self.baselines, self._present, self._plan.objective)
            choice = choose(found, noise(self.baselines))
            if choice is None or not choice.meets or choice.point == self._present:
                return
            one = self.measured[choice.number - 1]
            best = one.best(self._plan.objective)
            if best is None or best in one.again or self.elapsed >= self._plan.budget:
                return
            if not again and not self._plan.callers and best.callers > self.baselines[0].callers:
                again = True
                self._climb_again(first)
                continue
            self._site.apply(one.point)
            one.again.append(self._rung(one.point, best.callers))

    def _climb_again(self, first: Measured) -> None:
        """The settings before, with more callers than their first ladder ended at.

        That one began with one caller and may have been unlucky on its way; those of the others began where
        the best had come to.
        """
        self._site.apply(self._present)
        reached = self.baselines[0].callers
        ladder = Ladder(start=2 * reached)
        while (callers := ladder.next) is not None and reached < callers <= MAX_CALLERS:
            rung = self._rung(self._present, callers)
            known = any(other.callers == callers for other in first.rungs)
            (first.again if known else first.rungs).append(rung)
            meets = rung.score(self._plan.objective).meets
            ladder.tell(rung.measured.throughput, meets=meets, failed=not rung.sound)

    def _ladder(self) -> Ladder:
        """It begins where the best point so far was at its best."""
        best = self._best[0].best(self._plan.objective) if self._best else None
        return Ladder(self._plan.callers, start=best.callers if best else 1, patience=_PATIENCE)

    def _point(self, point: Point, ladder: Ladder) -> Measured:
        one = Measured(point=point)
        self.measured.append(one)
        try:
            self._narrator.starts(f"{point}: setting it", self.elapsed)
            self._site.apply(point)
        except Refused as error:
            one.refused = str(error)
            self._narrator.measured(one, "refused")
            return one
        begun = self._clock()
        while (callers := ladder.next) is not None:
            if one.rungs and self._time_left() < self._plan.seconds:
                self.cut = True
                break
            rung = self._rung(point, callers)
            one.rungs.append(rung)
            meets = rung.score(self._plan.objective).meets
            ladder.tell(rung.measured.throughput, meets=meets, failed=not rung.sound)
        self._costs.append(self._clock() - begun)
        score = self._score(one)
        if score is not None and score.gain(self._best[1] if self._best else None) > 0:
            self._best = one, score
        self._narrator.measured(one, "measured")
        return one

    def _rung(self, point: Point, callers: int) -> Rung:
        plan = self._plan
        self._narrator.starts(f"{point}: {callers} caller{'s' if callers > 1 else ''}", self.elapsed)
        warmup = max(_WARMUP_SECONDS, _WARMUP_PART * plan.seconds)
        begun = self.elapsed
        measured = self._site.measure(callers, warmup, plan.seconds)
        return Rung(callers, measured, at=(begun + self.elapsed) / 2)

    def _baseline(self, callers: int) -> None:
        self._narrator.starts("the settings before, once more", self.elapsed)
        self._site.apply(self._present)
        self.baselines.append(self._rung(self._present, callers))
        self._since_baseline = 0

    def _score(self, one: Measured) -> Score | None:
        """As if the machine had stayed as it was at the start."""
        score, best = one.score(self._plan.objective), one.best(self._plan.objective)
        if score is None or best is None or not self.baselines:
            return score
        drift = reference(self.baselines, best.at) / self.baselines[0].measured.throughput
        return score._replace(throughput=score.throughput / drift) if drift else score

    def _time_left(self) -> float:
        """Until what comes after the search must begin."""
        afterwards = _AFTERWARDS * self._plan.seconds * (1 + _WARMUP_PART)
        return self._plan.budget - self.elapsed - afterwards

    def _typical(self) -> float:
        """What the next point is likely to take: the first ladder is longer than the others."""
        others = self._costs[1:] or [self._costs[0] / 2]
        return sum(others) / len(others)
