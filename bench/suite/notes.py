"""Sentences that stand beside the tables, in the summary and on the page."""

from __future__ import annotations

from typing import Final

from ..environment import Environment
from .figures import FEWEST_CALLERS, MOST_FAILED, NEAR_CEILING, NO_DIFFERENCE, points_of, seconds, systems_of
from .results import ScenarioInfo, Suite
from .verdict import Verdict

CEILING_NOTE: Final = (
    f"within {NEAR_CEILING:.0%} of what the load generator itself reaches: the system may do more."
)
SPLIT_NOTE: Final = (
    "Wall time per request: of the RPC layer with an echo behind it, of the engine in a loop, what the two "
    "add up to, and of the server with the engine. Where both is less than predicted, they overlap in time."
)
NOWHERE_SLOWER: Final = (
    "Nowhere is shown that tensorwire's best system of a scenario is slower than a peer, "
    "neither by what decides there nor by p99."
)
RATIO_NOTE: Final = (
    "Ratios above 1x: tensorwire is better by so much, whichever way the figure goes. "
    f'"{NO_DIFFERENCE}": the ranges over the rounds overlap. In brackets: of one round, which shows nothing. '
    f'"calls failed": more than {MOST_FAILED:.0%} of them, so they decide, not the latency of the others.'
)
TAIL_NOTE: Final = "Slower by p99 than a peer, where throughput decides:"
CEILINGS_NOTE: Final = (
    "What one process of the load generator reaches with small requests against a server that answers "
    "without looking, ± half the range over the rounds. Where a system reached more with as many callers, "
    "that is the ceiling. Large requests cost the generator more: without a mark, it may limit them "
    f"nevertheless. Below {FEWEST_CALLERS} callers nothing is marked."
)
AGAIN: Final = (
    ("make bench", "all of it, under 20 minutes"),
    ("tensorwire bench run --quick", "some of it, under two minutes"),
    ("tensorwire bench compare OLD.json NEW.json", "whether two runs agree"),
)


def setting_lines(suite: Suite) -> list[str]:
    """Where and how it was measured."""
    settings = suite.settings
    interrupted = ", interrupted" if suite.interrupted else ""
    rounds = f"{settings.rounds} interleaved rounds" if settings.rounds != 1 else "1 round"
    return [
        *suite.environment.lines(),
        *_machine(suite.environment),
        f"{rounds} of {seconds(settings.duration)}, longer in some scenarios, each after at least "
        f"{seconds(settings.warmup)} of warm-up; median over the rounds, ± half their range",
        f"started {suite.started or 'at an unknown time'}, took {suite.seconds:,.0f} s{interrupted}",
    ]


def _machine(environment: Environment) -> list[str]:
    """What its own lines leave out."""
    found = [f"{environment.memory / 2**30:.1f} GiB of memory"] if environment.memory else []
    found += [f"CPU frequency: {environment.governor}"] if environment.governor else []
    found += [f"{name}: {value}" for name, value in environment.settings.items()]
    return ["; ".join(found)] if found else []


def method_line(info: ScenarioInfo) -> str:
    """How a scenario was measured, and for how long each time."""
    return f"{info.method} Each measurement takes {seconds(info.seconds)}." if info.seconds else info.method


def missing_line(suite: Suite, info: ScenarioInfo) -> str:
    """Which systems take part in a scenario and are not in its table; "" where all are."""
    there = {point.system for point in points_of(suite, info)}
    missing = [system for system in systems_of(suite, info) if system not in there]
    return f"Not measured here: {', '.join(missing)}." if missing and there else ""


def failure_lines(verdict: Verdict) -> list[str]:
    """One for each point in which calls or rounds failed."""
    lines: list[str] = []
    for point, errors, failures in verdict.unanswered:
        told = [f"{code} {count:,}" for code, count in sorted(errors.items())]
        told += [f"{failures.count(why)} round(s): {why}" for why in dict.fromkeys(failures)]
        variant = f" {point.variant}" if point.variant else ""
        lines.append(f"{point.scenario}{variant} {point.label}, {point.system}: {'; '.join(told)}")
    return lines
