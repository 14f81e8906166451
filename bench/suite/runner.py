"""Runs scenarios: starts what each needs, gives every system its turns, and keeps what comes of them.

The servers and clients of a scenario start once and stay; only one system works at a time. Rounds are
interleaved, so that a machine that slows down does so for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..environment import Environment
from .available import options_of, unavailable
from .keep import Book, systems_of
from .plan import Timing, select, total_seconds
from .progress import Clock, Progress
from .results import NotRun, Settings, Suite
from .rounds import Rounds
from .scenario import Scenario
from .stage import RunningStage

#: Called with everything so far, whenever a scenario has ended.
Save = Callable[[Suite], None]


class Runner:
    """One run.

    Args:
        scenarios: as they are to be run, see :func:`.plan.select`.
    """

    def __init__(
        self, scenarios: Sequence[Scenario], timing: Timing, progress: Progress, save: Save
    ) -> None:
        self._timing = timing
        self._save = save
        wanted = systems_of([scenario.info for scenario in scenarios])
        away = {system: reason for system in wanted if (reason := unavailable(system))}
        here = [system for system in wanted if system not in away]
        self._scenarios = select(scenarios, systems=here) if here else []
        self.book = Book(
            Environment.read(),
            Settings(rounds=timing.rounds, warmup=timing.warmup, duration=timing.duration),
            {system: options_of(system) for system in here},
        )
        self.book.not_run += [NotRun(system=system, reason=reason) for system, reason in away.items()]
        self._clock = Clock(progress, total_seconds(self._scenarios, timing))

    def run(self) -> Suite:
        """Run everything; what was measured is saved after each scenario, and when it is interrupted.

        Ctrl-C (or whatever raises ``KeyboardInterrupt``) ends it early: the result says so.
        """
        try:
            for scenario in self._scenarios:
                self._run(scenario)
                self._save(self.book.suite())
        except KeyboardInterrupt:
            self.book.interrupted = True
        suite = self.book.suite()
        self._save(suite)
        self._clock.finish("interrupted" if suite.interrupted else "done")
        return suite

    def _run(self, scenario: Scenario) -> None:
        seconds = self._timing.duration * scenario.length
        info = msgspec.structs.replace(scenario.info, seconds=seconds)
        self.book.scenario(info)
        with (
            tempfile.TemporaryDirectory(prefix="tensorwire-bench-") as folder,
            RunningStage(info.key, info.systems, scenario.models, scenario.processes, Path(folder)) as stage,
        ):
            for system in info.systems:
                self._clock.at(f"{info.key}: starting {system}")
                stage.start(system)
            self.book.not_run += stage.not_run
            if stage.systems:
                Rounds(self.book, self._clock, self._timing, scenario, stage).run()
