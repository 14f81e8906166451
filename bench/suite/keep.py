"""What was measured so far, as a result file that is complete at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ..environment import Environment
from ..recorder import Measurement
from .results import Ceiling, NotRun, Point, ScenarioInfo, Settings, Split, Suite
from .scenario import Situation


class Book:
    """Collects; :meth:`suite` gives everything there is.

    Args:
        environment: read before anything was started.
        options: system -> its settings, for people.
    """

    def __init__(self, environment: Environment, settings: Settings, options: dict[str, str]) -> None:
        self.not_run: list[NotRun] = []
        self.ceilings: list[Ceiling] = []
        self.splits: list[Split] = []
        self.interrupted = False
        self._environment = environment
        self._settings = settings
        self._options = options
        self._scenarios: dict[str, ScenarioInfo] = {}
        self._points: dict[tuple[str, str, float, str], Point] = {}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun = time.monotonic()

    def scenario(self, info: ScenarioInfo) -> None:
        """Begin a scenario, or tell more about it."""
        self._scenarios[info.key] = info

    def note(self, key: str, *notes: str) -> None:
        """Add to the notes of a scenario that was begun."""
        info = self._scenarios[key]
        self._scenarios[key] = msgspec.structs.replace(info, notes=(*info.notes, *notes))

    def measured(self, key: str, system: str, situation: Situation, measurement: Measurement) -> None:
        """One round of one point."""
        self._point(key, system, situation).rounds.append(measurement)

    def failed(self, key: str, system: str, situation: Situation, reason: str) -> None:
        """A round of a point that gave nothing."""
        self._point(key, system, situation).failures.append(reason)

    def _point(self, key: str, system: str, situation: Situation) -> Point:
        place = (key, system, situation.x, situation.variant)
        if place not in self._points:
            self._points[place] = Point(
                scenario=key,
                system=system,
                x=situation.x,
                label=situation.label,
                variant=situation.variant,
                callers=situation.job.concurrency if situation.job.arrivals == "closed" else 0,
                rounds=[],
                failures=[],
            )
        return self._points[place]

    def suite(self) -> Suite:
        """Everything so far. Points are in the order in which they were first measured."""
        return Suite(
            environment=self._environment,
            settings=self._settings,
            scenarios=list(self._scenarios.values()),
            points=sorted(self._points.values(), key=self._order),
            not_run=list(self.not_run),
            ceilings=list(self.ceilings),
            splits=list(self.splits),
            options={name: self._options[name] for name in self._options if name in self._measured()},
            interrupted=self.interrupted,
            seconds=time.monotonic() - self._begun,
            started=self._started,
        )

    def _measured(self) -> set[str]:
        return {point.system for point in self._points.values()}

    def _order(self, point: Point) -> tuple[str, int, str, float]:
        """By scenario, then as its legend has the systems."""
        systems = self._scenarios[point.scenario].systems
        return point.scenario, systems.index(point.system), point.variant, point.x


def write_suite(suite: Suite, path: Path) -> None:
    """Write a result file; one that is there already is replaced at once, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}")
    staged.write_bytes(msgspec.json.format(msgspec.json.encode(suite)) + b"\n")
    os.replace(staged, path)


def systems_of(infos: Sequence[ScenarioInfo]) -> list[str]:
    """Every system of some scenarios, each once, in the order of the legends."""
    return list(dict.fromkeys(system for info in infos for system in info.systems))
