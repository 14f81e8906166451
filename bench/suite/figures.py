"""What the report says of a measurement, how figures are written, and who is compared with whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

from ..recorder import REFUSALS, Comparison, Measurement, Spread
from .results import Ceiling, Point, ScenarioInfo, Suite

#: Stands for a ratio that the rounds do not bear out.
NO_DIFFERENCE: Final = "no difference shown"
#: What Python services have today; ratios in the tables are to it where it was measured.
BASELINE: Final = "grpc.aio"
#: From this share of the generator's own ceiling on, a result may be the generator's.
NEAR_CEILING: Final = 0.8
#: With fewer callers the generator waits most of the time: what it reaches then is no ceiling.
FEWEST_CALLERS: Final = 8
#: Name of the axis of a scenario that varies the processes of the generator.
CLIENT_PROCESSES: Final = "client processes"
#: Above this share of failed calls a latency says nothing: its percentiles are of the answered ones only.
MOST_FAILED: Final = 0.01
#: The scenario in which a refusal is a right answer.
_OVERLOAD: Final = "H"
#: With fewer rounds than this there is no spread, so no difference can be shown.
ENOUGH_ROUNDS: Final = 2

Family = Literal["tensorwire", "grpc", "grpc c++", "triton", "thrift", "reference", "other"]
#: Beginnings of names, the first that fits decides.
_FAMILIES: Final[tuple[tuple[str, Family], ...]] = (
    ("tensorwire", "tensorwire"),
    ("grpc c++", "grpc c++"),
    ("grpc", "grpc"),
    ("triton", "triton"),
    ("thrift", "thrift"),
    ("bare", "reference"),
    ("null", "reference"),
)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a measurement. ``factor`` makes the printed unit of the measured one."""

    title: str
    unit: str
    factor: float
    more_is_better: bool
    of: Callable[[Measurement], float]


FIGURES: Final[dict[str, Figure]] = {
    "throughput": Figure(
        title="throughput", unit="requests/s", factor=1, more_is_better=True, of=lambda m: m.throughput
    ),
    "p50": Figure(title="p50", unit="ms", factor=1e3, more_is_better=False, of=lambda m: m.p50),
    "p90": Figure(title="p90", unit="ms", factor=1e3, more_is_better=False, of=lambda m: m.p90),
    "p99": Figure(title="p99", unit="ms", factor=1e3, more_is_better=False, of=lambda m: m.p99),
    "p999": Figure(title="p99.9", unit="ms", factor=1e3, more_is_better=False, of=lambda m: m.p999),
}


def family(system: str) -> Family:
    """Which family a system belongs to, by its name."""
    name = system.lower()
    for start, found in _FAMILIES:
        if name.startswith(start):
            return found
    return "other"


def is_ours(system: str) -> bool:
    """Whether it is one of tensorwire's."""
    return family(system) == "tensorwire"


def is_peer(system: str) -> bool:
    """Whether tensorwire is held against it: not itself, and not a reference that serves nobody."""
    return family(system) not in ("tensorwire", "reference")


def is_grpc(system: str) -> bool:
    """Whether it is one of gRPC's, in any language."""
    return family(system) in ("grpc", "grpc c++")


def answered(point: Point | None) -> list[Measurement]:
    """The rounds in which calls were answered."""
    return [] if point is None else [measured for measured in point.rounds if measured.requests]


def spread(point: Point, of: Callable[[Measurement], float]) -> Spread | None:
    """Of one figure over the rounds in which calls were answered; None where there is none."""
    rounds = answered(point)
    return Spread.of([of(measured) for measured in rounds]) if rounds else None


def gain(ours: Point, theirs: Point, figure: Figure) -> Comparison | None:
    """How many times as good ``ours`` is: above 1 is better, whichever way the figure goes.

    None where either answered nothing. With a single round of either nothing is shown.
    """
    ours_rounds, theirs_rounds = answered(ours), answered(theirs)
    if not ours_rounds or not theirs_rounds:
        return None
    if not figure.more_is_better:
        ours_rounds, theirs_rounds = theirs_rounds, ours_rounds
    found = Comparison.of([figure.of(one) for one in ours_rounds], [figure.of(one) for one in theirs_rounds])
    if not enough_rounds(ours, theirs):
        return Comparison(found.ratio, found.low, found.high, shown=False)
    return found


def enough_rounds(*points: Point) -> bool:
    """Whether each has a spread, without which no difference can be shown."""
    return all(len(answered(point)) >= ENOUGH_ROUNDS for point in points)


def share_of_ceiling(suite: Suite, point: Point) -> float | None:
    """Throughput over what the generator reaches with as many callers; None where that is not known.

    The ceiling with the nearest number of callers counts; where the callers are not known, the highest.
    Ceilings are of one client process, so nothing is known of several, nor of a few callers.
    """
    if _several_processes(suite, point) or 0 < point.callers < FEWEST_CALLERS:
        return None
    rate = spread(point, FIGURES["throughput"].of)
    fitting = [one for one in suite.ceilings if point.system in one.systems and one.throughput > 0]
    if rate is None or not fitting or not is_measured_for_itself(point.system):
        return None
    return rate.median / _reached(suite, fitting, point.callers)


def highest_rate(suite: Suite, ceiling: Ceiling) -> float:
    """The most that any system reached on the same generator with as many callers, one process; 0 if none.

    The null server is not always the quickest: what a system reaches, the generator reaches.
    """
    rates = [
        found.median
        for point in suite.points
        if point.system in ceiling.systems and point.callers == ceiling.concurrency
        if not _several_processes(suite, point)
        if (found := spread(point, FIGURES["throughput"].of)) is not None
    ]
    return max(rates, default=0.0)


def is_measured_for_itself(system: str) -> bool:
    """Whether a result of the system is to be judged; the null server is the ceiling itself."""
    return not system.startswith("null")


def _several_processes(suite: Suite, point: Point) -> bool:
    return point.x > 1 and any(
        info.key == point.scenario and info.axis.name == CLIENT_PROCESSES for info in suite.scenarios
    )


def _reached(suite: Suite, fitting: Sequence[Ceiling], callers: int) -> float:
    """Calls a second of the generator, as :func:`share_of_ceiling` says."""

    def distance(one: Ceiling) -> float:
        return max(one.concurrency, callers) / max(1, min(one.concurrency, callers))

    chosen = [min(fitting, key=distance)] if callers else fitting
    return max(max(one.throughput, highest_rate(suite, one)) for one in chosen)


def near_ceiling(suite: Suite, point: Point) -> bool:
    """Whether the generator may be what limits this result."""
    share = share_of_ceiling(suite, point)
    return share is not None and share >= NEAR_CEILING


def points_of(suite: Suite, info: ScenarioInfo) -> list[Point]:
    """The points of one scenario, in the order in which they were measured."""
    return [point for point in suite.points if point.scenario == info.key]


def situations(points: Iterable[Point]) -> list[tuple[str, float]]:
    """(variant, x) of the points, each once: variants as they come, x ascending."""
    found = dict.fromkeys((point.variant, point.x) for point in points)
    order = list(dict.fromkeys(variant for variant, _ in found))
    return sorted(found, key=lambda one: (order.index(one[0]), one[1]))


def systems_of(suite: Suite, info: ScenarioInfo) -> list[str]:
    """Those that take part, in the order of the legend; measured ones that it does not name come last."""
    measured = [point.system for point in points_of(suite, info)]
    return list(dict.fromkeys([*info.systems, *measured]))


def baseline_of(suite: Suite, info: ScenarioInfo) -> str:
    """What the ratios of a scenario are to: :data:`BASELINE`, else its first measured peer, else ""."""
    measured = {point.system for point in points_of(suite, info) if answered(point)}
    if BASELINE in measured:
        return BASELINE
    return next((system for system in systems_of(suite, info) if system in measured and is_peer(system)), "")


def unexpected(point: Point) -> dict[str, int]:
    """Calls that failed, by code; where the load is meant to be too much, refusals are none."""
    expected = REFUSALS if point.scenario == _OVERLOAD else frozenset[str]()
    return {code: count for code, count in failed_calls(point).items() if code not in expected}


def failed_share(point: Point) -> float:
    """Of all calls that ended, those of :func:`unexpected`; 1 where nothing was answered."""
    requests = sum(measured.requests for measured in answered(point))
    failed = sum(unexpected(point).values())
    return failed / (failed + requests) if requests else 1.0


def too_many_failed(point: Point, figure: Figure) -> bool:
    """Whether so many calls failed that a latency of the others says nothing."""
    return not figure.more_is_better and failed_share(point) > MOST_FAILED


def failed_calls(point: Point) -> dict[str, int]:
    """Calls that failed, by code, all rounds together."""
    total: dict[str, int] = {}
    for measured in point.rounds:
        for code, count in measured.errors.items():
            total[code] = total.get(code, 0) + count
    return total


def number(value: float) -> str:
    """Three digits that count, or all before the point."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A planned length of time, such as ``0.24 s``: two digits that count, or all before the point."""
    return f"{value:,.0f} s" if value >= 10 else f"{value:.2g} s"


def times(ratio: float) -> str:
    """A ratio, such as ``1.8x``."""
    return f"{number(ratio)}x"


def with_spread(found: Spread | None, factor: float = 1.0) -> str:
    """Median, and half the range in per cent of it."""
    if found is None:
        return ""
    return f"{number(found.median * factor)} ±{found.relative:.0%}"
