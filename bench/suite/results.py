"""What the side-by-side benchmark measured, as data: written as JSON, the source of everything printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from ..environment import Environment
from ..recorder import Measurement, Spread

#: Of the result file; a reader refuses what it does not know.
FORMAT = 1
#: Stands for the systems where a scenario, or what is measured beside them, ended before its end.
REST = "(the rest of it)"


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario varies: name and unit as they are printed, and how a plot shows it."""

    name: str
    unit: str = ""
    scale: Literal["log", "linear", "category"] = "log"


class ScenarioInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario, as the report names it.

    Attributes:
        key: ``A`` to ``I``.
        title: such as "throughput against request size".
        question: what a reader wants to know from it, one sentence.
        method: how it was measured: load, callers, sizes; one or two sentences.
        axis: what :attr:`Point.x` is.
        figure: what decides here: more of ``throughput`` is better, less of the others.
        systems: those that take part, in the order of the legend.
        notes: what a reader must know to judge the figures.
        seconds: that one measurement takes; 0 where the scenario was not begun.
    """

    key: str
    title: str
    question: str
    method: str
    axis: Axis
    figure: Literal["throughput", "p50", "p99", "p999"]
    systems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One system in one situation of one scenario, over all rounds.

    Attributes:
        x: where on the axis.
        label: the same for people, such as "64 B".
        variant: what else was varied: "control", "before", ...; empty where nothing was.
        callers: of all client processes together; 0 in an open loop, or where it is not known.
        failures: rounds that gave no measurement, and why.
    """

    scenario: str
    system: str
    x: float
    label: str
    variant: str = ""
    callers: int = 0
    rounds: list[Measurement] = []
    failures: list[str] = []

    def spread(self, figure: Callable[[Measurement], float]) -> Spread | None:
        """Median and extremes of one figure over the rounds; None where no round succeeded."""
        return Spread.of([figure(measurement) for measurement in self.rounds]) if self.rounds else None


class NotRun(msgspec.Struct, frozen=True, kw_only=True):
    """A system that was wanted and not measured, or :data:`REST`.

    ``scenario`` is empty where it holds for all of them.
    """

    system: str
    reason: str
    scenario: str = ""


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator itself reaches against a server that does nothing.

    Attributes:
        client: the generator's kind: which systems it stands for.
        systems: those whose results are held against it.
        concurrency: callers.
        throughput: calls a second, median of the rounds.
        low, high: over the rounds; 0 in results that do not have them.
    """

    client: str
    systems: tuple[str, ...]
    concurrency: int
    throughput: float
    low: float = 0.0
    high: float = 0.0


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Network and computing apart: seconds per request of each alone and of both, and what the sum predicts.

    Attributes:
        rpc: the RPC layer with an echo behind it.
        engine: the engine called in a loop, with batches of the size that the server made.
        both: the server with the engine.
        predicted: what ``rpc`` and ``engine`` add up to.
        request: what was asked, for people.
        batch: rows of the batches that the server made, on average.
    """

    system: str
    concurrency: int
    rpc: float
    engine: float
    both: float
    predicted: float
    request: str = ""
    batch: float = 0.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How it was measured. Times are in seconds."""

    rounds: int
    warmup: float
    duration: float


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        options: system -> the settings of its server and client that matter, for people.
        interrupted: whether it was stopped before its end; what was measured is kept.
        seconds: wall time.
        started: when, ISO 8601 with the zone.
    """

    format: int = FORMAT
    environment: Environment
    settings: Settings
    scenarios: list[ScenarioInfo]
    points: list[Point]
    not_run: list[NotRun] = []
    ceilings: list[Ceiling] = []
    splits: list[Split] = []
    options: dict[str, str] = {}
    interrupted: bool = False
    seconds: float = 0.0
    started: str = ""
