"""Runs scenarios: starts what each needs, gives every system its turns, and keeps what comes of them.

The servers and clients of a scenario start once and stay; only one system works at a time. Rounds are
interleaved, so that a machine that slows down does so for all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from ..environment import Environment
from ..processes import ChildError
from ..systems import FUSED, GRPC, options_of, unavailable
from .extras import (
    CEILINGS,
    found_ceilings,
    found_splits,
    grpc_batches,
    tensorwire_batches,
)
from .keep import Book, systems_of
from .plan import Timing, select, total_seconds
from .progress import Clock, Progress
from .results import REST, NotRun, Settings, Suite
from .rounds import Rounds
from .scenario import Scenario
from .stage import RunningStage

#: Called with everything so far, whenever a scenario has ended.
Save = Callable[[Suite], None]
#: Called while the systems run; gives what is to be done once they have ended.
End = Callable[[RunningStage, Path], Callable[[], None]]


class Runner:
    """One run.

    Args:
        scenarios: as they are to be run, see :func:`.plan.select`.
        extras: of :func:`.extras.beside`: what is measured beside the scenarios.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        timing: Timing,
        progress: Progress,
        save: Save,
        *,
        extras: Sequence[Scenario] = (),
    ) -> None:
        self._timing = timing
        self._save = save
        self._wanted = systems_of([scenario.info for scenario in scenarios])
        away = {system: reason for system in self._wanted if (reason := unavailable(system))}
        here = [system for system in self._wanted if system not in away]
        self._scenarios = select(scenarios, systems=here) if here else []
        self._extras = list(extras)
        self.book = self._book({system: options_of(system) for system in here})
        self.book.not_run += [NotRun(system=system, reason=reason) for system, reason in away.items()]
        self._clock = Clock(progress, total_seconds([*self._scenarios, *self._extras], timing))

    def _book(self, options: dict[str, str]) -> Book:
        timing = self._timing
        settings = Settings(rounds=timing.rounds, warmup=timing.warmup, duration=timing.duration)
        return Book(Environment.read(), settings, options)

    def run(self) -> Suite:
        """Run everything; what was measured is saved after each scenario, and when it is interrupted.

        Ctrl-C (or whatever raises ``KeyboardInterrupt``) ends it early: the result says so.
        """
        try:
            for scenario in self._scenarios:
                self._attempt(scenario, partial(self._run, scenario, self.book))
                self._save(self.book.suite())
            for extra in self._extras:
                self._attempt(extra, partial(self._run_extra, extra))
        except KeyboardInterrupt:
            self.book.interrupted = True
        finally:
            suite = self.book.suite()
            self._save(suite)
        self._clock.finish("interrupted" if suite.interrupted else "done")
        return suite

    def _attempt(self, scenario: Scenario, run: Callable[[], None]) -> None:
        """Run one, and write down why it ended early."""
        try:
            run()
        except Exception as error:  # noqa: BLE001 - one must not end what the others have to show
            reason = str(error) if isinstance(error, ChildError) else f"{type(error).__name__}: {error}"
            self.book.not_run.append(NotRun(system=REST, reason=reason, scenario=scenario.key))

    def _run(self, scenario: Scenario, book: Book, *, end: End | None = None) -> None:
        """All of a scenario.

        Args:
            end: called while the systems still run.
        """
        seconds = self._timing.duration * scenario.length
        info = msgspec.structs.replace(scenario.info, seconds=seconds)
        book.scenario(info)
        with tempfile.TemporaryDirectory(prefix="tensorwire-bench-") as name:
            folder = Path(name)
            with RunningStage(scenario, folder) as stage:
                for system in info.systems:
                    self._clock.at(f"{info.key}: starting {system}")
                    stage.start(system)
                book.not_run += stage.not_run
                if stage.systems:
                    Rounds(book, self._clock, self._timing, scenario, stage).run()
                after = end(stage, folder) if end is not None else None
            # The servers have ended, and written their last words.
            if after is not None:
                after()

    def _run_extra(self, extra: Scenario) -> None:
        book = self._book({})
        if extra.key == CEILINGS:
            self._run(extra, book)
            self.book.ceilings += found_ceilings(book.suite().points, self._wanted)
        else:
            self._run(extra, book, end=partial(self._end_of_splits, book))

    def _end_of_splits(self, book: Book, stage: RunningStage, folder: Path) -> Callable[[], None]:
        if FUSED not in stage.systems:
            return lambda: None
        batches = tensorwire_batches(stage.address(FUSED))

        def after() -> None:
            both = {FUSED: batches, GRPC: grpc_batches(folder) if GRPC in stage.systems else {}}
            repository = Path(stage.repository(FUSED))
            self.book.splits += found_splits(book.suite().points, both, repository, folder)

        return after
