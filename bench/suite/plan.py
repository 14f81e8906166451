"""What a run consists of, and how long each measurement may take so that all of it keeps to its time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from .scenario import Scenario, Situation

#: Seconds that a whole and a quick run take at most, starts included; the rest is for what comes after them.
FULL_SECONDS: Final = 1080.0
QUICK_SECONDS: Final = 104.0
ROUNDS: Final = 3
#: Lengths of one measurement, seconds: below, it is noise; above, it is patience.
_SHORTEST: Final = 0.12
_LONGEST: Final = 1.0
#: Of a measurement, before it.
_WARMUP: Final = 0.25
#: Seconds that a turn takes beside its measurement, and that starting takes: a scenario, a system, a process.
_TURN: Final = 0.12
_START: Final = 1.0
_SYSTEM: Final = 2.2
_PROCESS: Final = 0.25


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long things take: rounds of each situation; seconds of a warm-up and of a measurement.

    A scenario multiplies ``duration`` by its own length.
    """

    rounds: int
    warmup: float
    duration: float


def select(
    scenarios: Sequence[Scenario], *, systems: Collection[str] = (), quick: bool = False
) -> list[Scenario]:
    """Cut scenarios to a quick run and to some systems; those that nothing is left of are left out."""
    chosen = [_quick(scenario) for scenario in scenarios] if quick else list(scenarios)
    if systems:
        chosen = [_only(scenario, systems) for scenario in chosen]
    return [scenario for scenario in chosen if scenario.info.systems and scenario.situations]


def _quick(scenario: Scenario) -> Scenario:
    situations = tuple(situation for situation in scenario.situations if situation.quick)
    info = msgspec.structs.replace(scenario.info, systems=scenario.quick_systems)
    return replace(scenario, situations=situations, info=info)


def _only(scenario: Scenario, systems: Collection[str]) -> Scenario:
    kept = tuple(system for system in scenario.info.systems if system in systems)
    return replace(scenario, info=msgspec.structs.replace(scenario.info, systems=kept))


def fit(
    scenarios: Sequence[Scenario], budget: float, rounds: int | None = None, duration: float | None = None
) -> Timing:
    """The longest measurements that keep a run within ``budget`` seconds, or those that were asked for.

    Without ``rounds`` there are fewer rounds before measurements become too short to say anything.
    """
    if duration is not None:
        return _timing(rounds or ROUNDS, duration)
    for count in (rounds,) if rounds else range(ROUNDS, 0, -1):
        timing = _timing(count, _LONGEST)
        while timing.duration > _SHORTEST and total_seconds(scenarios, timing) > budget:
            timing = _timing(count, timing.duration * 0.97)
        if timing.duration > _SHORTEST:
            return timing
    return _timing(rounds or 1, _SHORTEST)


def _timing(rounds: int, duration: float) -> Timing:
    return Timing(rounds=rounds, warmup=_WARMUP * duration, duration=duration)


def total_seconds(scenarios: Sequence[Scenario], timing: Timing) -> float:
    """How long a run is expected to take."""
    return sum(start_seconds(each) + round_seconds(each, timing) * timing.rounds for each in scenarios)


def start_seconds(scenario: Scenario) -> float:
    """Until the first round of a scenario."""
    systems = len(scenario.info.systems)
    return _START + systems * (_SYSTEM + scenario.extra + (scenario.processes - 1) * _PROCESS)


def round_seconds(scenario: Scenario, timing: Timing) -> float:
    """One round of a scenario."""
    turns = sum(turn_seconds(scenario, situation, timing) for situation in scenario.situations)
    return len(scenario.info.systems) * turns


def turn_seconds(scenario: Scenario, situation: Situation, timing: Timing) -> float:
    """One measurement of one system, with its warm-up and the rest after it."""
    return timing.warmup + measured_seconds(scenario, situation, timing) + situation.rest + _TURN


def measured_seconds(scenario: Scenario, situation: Situation, timing: Timing) -> float:
    """One measurement."""
    return timing.duration * scenario.length * situation.length
