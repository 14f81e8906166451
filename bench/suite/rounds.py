"""The rounds of one scenario: every system has its turn in every situation, again and again."""

from __future__ import annotations

from typing import Final

import msgspec

from ..processes import ChildError
from ..quick import rotated
from .keep import Book
from .plan import Timing, measured_seconds, round_seconds, start_seconds, turn_seconds
from .progress import Clock
from .scenario import Course, Scenario, Situation
from .stage import RunningStage

#: A scenario that takes longer than planned by this factor loses the rounds that are left then.
_PATIENCE: Final = 1.3


class Rounds:
    """Measures one scenario on running systems, and writes it into the book."""

    def __init__(
        self, book: Book, clock: Clock, timing: Timing, scenario: Scenario, stage: RunningStage
    ) -> None:
        self._book = book
        self._clock = clock
        self._timing = timing
        self._scenario = scenario
        self._stage = stage
        self._course: Course = scenario.course()
        self._told: set[str] = set()

    def run(self) -> None:
        """Everything from what has to be known before to the last round.

        Raises:
            KeyboardInterrupt: it was interrupted; what was measured is in the book.
        """
        scenario, stage = self._scenario, self._stage
        self._clock.at(f"{scenario.key}: before the first round")
        beginning = self._course.begin(stage, scenario.situations)
        self._book.note(scenario.key, *beginning.notes)
        for situation in beginning.situations:
            self._tell_lost(situation)
        self._clock.did(start_seconds(scenario))
        planned = round_seconds(scenario, self._timing)
        until = self._clock.elapsed + _PATIENCE * planned * self._timing.rounds
        for number in range(self._timing.rounds):
            if number and self._clock.elapsed + planned / 2 > until:
                self._give_up(number, planned)
                return
            self._round(number, beginning.situations)

    def _give_up(self, number: int, planned: float) -> None:
        left = self._timing.rounds - number
        self._book.note(
            self._scenario.key, f"Only {number} of {self._timing.rounds} rounds: they took too long."
        )
        self._clock.did(planned * left)

    def _round(self, number: int, situations: tuple[Situation, ...]) -> None:
        for place, situation in enumerate(situations):
            seconds = turn_seconds(self._scenario, situation, self._timing)
            for system in rotated(self._scenario.info.systems, number + place):
                if system in self._stage.systems:
                    self._clock.at(f"{self._scenario.key}: {situation.label}: {system}")
                    self._turn(system, situation, number)
                self._clock.did(seconds)

    def _turn(self, system: str, situation: Situation, number: int) -> None:
        job = msgspec.structs.replace(
            situation.job,
            # Rounds differ in when calls come and which of them are slow; the systems of one do not.
            seed=number,
            warmup=self._timing.warmup,
            duration=measured_seconds(self._scenario, situation, self._timing),
        )
        key = self._scenario.key
        try:
            measurement = self._course.measure(self._stage, system, situation, job)
        except ChildError as error:
            self._book.failed(key, system, situation, str(error))
        except Exception as error:  # noqa: BLE001 - one system must not end what the others have to show
            self._book.failed(key, system, situation, f"{type(error).__name__}: {error}")
        else:
            self._book.measured(key, system, situation, measurement)
        self._tell_lost(situation)

    def _tell_lost(self, situation: Situation) -> None:
        """Say once, where it happened, that a system takes no further part."""
        for system, reason in self._stage.lost.items():
            if system not in self._told:
                self._told.add(system)
                self._book.failed(self._scenario.key, system, situation, f"given up: {reason}")
