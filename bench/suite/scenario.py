"""What a scenario is: situations that every system is measured in, and what is special about doing so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..load import Job
from ..recorder import Measurement
from .results import Axis, ScenarioInfo


@dataclass(frozen=True)
class Situation:
    """One place on the axis of a scenario.

    Attributes:
        x, label, variant: as in :class:`.results.Point`.
        job: what is measured; its times are the runner's.
        processes: client processes that share the job's callers.
        quick: whether a quick run has it as well.
        length: of one measurement, over that of the other situations: what takes long is measured longer.
        rest: seconds after a measurement in which nothing is measured, so that what it set off is over.
    """

    x: float
    label: str
    job: Job
    variant: str = ""
    processes: int = 1
    quick: bool = False
    length: float = 1.0
    rest: float = 0.0


class Stage(Protocol):
    """The running systems of a scenario, as what is special about it needs them; see :mod:`.stage`."""

    @property
    def systems(self) -> tuple[str, ...]:
        """Those that run."""
        ...

    def address(self, system: str) -> str:
        """Where the server of a system listens."""
        ...

    def repository(self, system: str) -> str:
        """Model repository of the server of a system."""
        ...

    def measure(self, system: str, job: Job, processes: int) -> Measurement:
        """Have the clients of a system do a job; see :meth:`tensorwire.bench.clients.Clients.measure`."""
        ...

    def lose(self, system: str, reason: str) -> None:
        """Give a system up for the rest of the scenario."""
        ...


class Course:
    """How a scenario is run; this one measures each situation as it stands."""

    def begin(self, stage: Stage, situations: tuple[Situation, ...]) -> Beginning:
        """What has to be known before the first round. Systems that fail here are given up."""
        del stage
        return Beginning(situations)

    def measure(self, stage: Stage, system: str, situation: Situation, job: Job) -> Measurement:
        """One turn of one system.

        Args:
            job: of the situation, with its times.

        Raises:
            ChildError: the system could not be measured.
        """
        return stage.measure(system, job, situation.processes)


@dataclass(frozen=True)
class Beginning:
    """What was found out: the situations to measure, and notes for the report."""

    situations: tuple[Situation, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Attributes:
        info: as the report names it.
        situations: in the order of the axis.
        models: of :data:`.models.MODELS`, beside those that every repository has.
        length: of one measurement, in the plan's durations.
        extra: seconds that :meth:`Course.begin` takes for each system.
        executor: threads that run the batches of servers which would else run them in their event loop:
            right where models compute or wait; 0 where they are so quick that a thread costs more.
        workers: of each model of tensorwire that does not say it itself; 0: its default.
        grpc_limit: calls that a grpc.aio server has at the same time (``maximum_concurrent_rpcs``); it
            refuses others. 0: it takes all.
        quick_systems: those of a quick run; empty where it does not have the scenario.
    """

    info: ScenarioInfo
    situations: tuple[Situation, ...]
    course: type[Course] = Course
    models: tuple[str, ...] = ()
    length: float = 1.0
    extra: float = 0.0
    executor: int = 0
    workers: int = 0
    grpc_limit: int = 0
    quick_systems: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``A`` to ``I``."""
        return self.info.key

    @property
    def processes(self) -> int:
        """Client processes of each system."""
        return max(situation.processes for situation in self.situations)


def category(name: str) -> Axis:
    """An axis without numbers."""
    return Axis(name=name, scale="category")
