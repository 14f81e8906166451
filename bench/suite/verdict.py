"""What a run says: should gRPC be replaced, and where is tensorwire slower than a peer. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from ..recorder import Comparison
from .figures import (
    FIGURES,
    NO_DIFFERENCE,
    answered,
    enough_rounds,
    failed_share,
    gain,
    is_grpc,
    is_ours,
    is_peer,
    points_of,
    systems_of,
    too_many_failed,
    unexpected,
)
from .results import Point, ScenarioInfo, Suite

Outcome = Literal["faster", "slower", "no difference shown", "one round", "failed", "peer failed"]
Answer = Literal["yes", "mostly", "no", "open"]
#: From this share of comparisons with gRPC that are lost on, the answer is no.
_TOO_MUCH_LOST: Final = 0.5
_NOTHING: Final = Comparison(0.0, 0.0, 0.0, shown=False)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One system of tensorwire against one peer in one situation.

    Attributes:
        figure: key of :data:`~.figures.FIGURES`; what was compared.
        gain: how many times as good tensorwire is: above 1 is better; all 0 where either has no figure, and
            where failed calls decide.
        failed: share of tensorwire's calls that failed; 1 where none was answered.
        best: whether ``ours`` is the system that does best in the whole scenario.
    """

    scenario: str
    variant: str
    x: float
    label: str
    figure: str
    ours: str
    theirs: str
    gain: Comparison
    outcome: Outcome
    failed: float
    best: bool

    @property
    def lost(self) -> bool:
        """Whether the peer did better."""
        return self.outcome in ("slower", "failed")

    @property
    def doubtful(self) -> bool:
        """Whether the peer's median is better, but nothing is shown."""
        return self.outcome in (NO_DIFFERENCE, "one round") and 0 < self.gain.ratio < 1


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All that follows from a run.

    Attributes:
        answer: to "should we replace gRPC?"; ``open``: the run cannot say.
        best: scenario -> the system of tensorwire that does best over the whole scenario.
        standings: by the figure that decides in each scenario.
        tails: by p99 where throughput decides.
        unanswered: (point, failed calls by code, why rounds failed) of tensorwire and of the others; what
            an overloaded server refuses is not among them.
    """

    answer: Answer
    best: dict[str, str]
    standings: list[Standing]
    tails: list[Standing]
    unanswered: list[tuple[Point, dict[str, int], list[str]]]

    def against(self, systems: Iterable[str] | None = None, scenario: str = "") -> list[Standing]:
        """The best systems' standings, against all peers or some of them, in all scenarios or one."""
        wanted = None if systems is None else set(systems)
        return [
            one
            for one in self.standings
            if one.best
            and (wanted is None or one.theirs in wanted)
            and (not scenario or one.scenario == scenario)
        ]


def judge(suite: Suite) -> Verdict:
    """Compare every system of tensorwire with every peer wherever both were to be measured."""
    best = {info.key: name for info in suite.scenarios if (name := best_system(suite, info))}
    found = [one for info in suite.scenarios for one in standings(suite, info, info.figure, best)]
    tails = [
        one
        for info in suite.scenarios
        if info.figure == "throughput"
        for one in standings(suite, info, "p99", best)
    ]
    return Verdict(
        answer=_answer([one for one in found if one.best and is_grpc(one.theirs)]),
        best=best,
        standings=found,
        tails=tails,
        unanswered=[one for info in suite.scenarios for one in _unanswered(suite, info)],
    )


def standings(suite: Suite, info: ScenarioInfo, figure: str, best: dict[str, str]) -> list[Standing]:
    """One scenario by one figure: every system of tensorwire against every peer, situation by situation."""
    points = points_of(suite, info)
    peers = [point for point in points if is_peer(point.system)]
    return [
        _standing(ours, theirs, figure, best=best.get(info.key) == ours.system)
        for ours in points
        if is_ours(ours.system)
        for theirs in peers
        if (theirs.x, theirs.variant) == (ours.x, ours.variant) and (answered(ours) or answered(theirs))
    ]


def _standing(ours: Point, theirs: Point, figure: str, *, best: bool) -> Standing:
    found = gain(ours, theirs, FIGURES[figure])
    outcome: Outcome
    if (failing := _failing(ours, theirs, figure)) is not None:
        found, outcome = None, failing
    elif found is None:
        outcome = "peer failed" if answered(ours) else "failed"
    elif not enough_rounds(ours, theirs):
        outcome = "one round"
    elif not found.shown:
        outcome = NO_DIFFERENCE
    else:
        outcome = "faster" if found.ratio > 1 else "slower"
    return Standing(
        scenario=ours.scenario,
        variant=ours.variant,
        x=ours.x,
        label=ours.label,
        figure=figure,
        ours=ours.system,
        theirs=theirs.system,
        gain=found or _NOTHING,
        outcome=outcome,
        failed=failed_share(ours),
        best=best,
    )


def _failing(ours: Point, theirs: Point, figure: str) -> Literal["failed", "peer failed"] | None:
    """Who loses because calls failed that a latency leaves out; None where the latencies may be compared."""
    failed, theirs_failed = failed_share(ours), failed_share(theirs)
    if too_many_failed(ours, FIGURES[figure]) and theirs_failed < failed:
        return "failed"
    if too_many_failed(theirs, FIGURES[figure]) and failed < theirs_failed:
        return "peer failed"
    return None


def best_system(suite: Suite, info: ScenarioInfo) -> str:
    """The system of tensorwire that does best over a whole scenario; "" where none was measured.

    One system for all situations, as an operator would choose it: the highest geometric mean of its figure
    relative to the best of tensorwire's in each situation. One that was not measured in all of them, or
    failed there, comes after those that were; so does one whose calls failed too often for a latency.
    """
    figure = FIGURES[info.figure]
    points = [point for point in points_of(suite, info) if is_ours(point.system) and answered(point)]
    failing = [point.system for point in points if too_many_failed(point, figure)]
    values: dict[tuple[str, float], dict[str, float]] = {}
    for point in points:
        found = point.spread(figure.of)
        if found is not None and found.median > 0:
            value = found.median if figure.more_is_better else 1 / found.median
            values.setdefault((point.variant, point.x), {})[point.system] = value

    def merit(system: str) -> tuple[int, float]:
        shares = [by[system] / max(by.values()) for by in values.values() if system in by]
        sound = len(shares) - failing.count(system)
        return sound, sum(map(math.log, shares)) / len(shares) if shares else -math.inf

    ours = [system for system in systems_of(suite, info) if is_ours(system)]
    return max(ours, key=merit, default="") if values else ""


def _answer(against_grpc: Sequence[Standing]) -> Answer:
    """From the standings of the best systems against all of gRPC's."""
    decided = [one for one in against_grpc if one.outcome != "peer failed"]
    faster = sum(one.outcome == "faster" for one in decided)
    lost = sum(one.lost for one in decided)
    if not faster and not lost:
        return "open"
    if lost >= _TOO_MUCH_LOST * len(decided) or lost > faster:
        return "no"
    return "mostly" if lost or faster < _TOO_MUCH_LOST * len(decided) else "yes"


def _unanswered(suite: Suite, info: ScenarioInfo) -> list[tuple[Point, dict[str, int], list[str]]]:
    """Points with failed calls or rounds."""
    return [
        (point, errors, point.failures)
        for point in points_of(suite, info)
        if (errors := unexpected(point)) or point.failures
    ]
