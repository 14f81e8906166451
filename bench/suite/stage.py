"""The systems of one scenario, running: servers, and clients connected to them, until the scenario ends."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

import psutil

from ..clients import Clients
from ..load import Job
from ..models import build_repository
from ..processes import ChildError, NotBuiltError
from ..recorder import Measurement
from ..servers import Server, start_server
from ..systems import SYSTEMS
from .models import add_models
from .results import NotRun

#: Turns of one system that may fail one after the other; then it is given up.
_PATIENCE: Final = 3


class Loads(Protocol):
    """Connected clients of one system."""

    def measure(self, job: Job, processes: int) -> Measurement:
        """See :meth:`tensorwire.bench.clients.Clients.measure`."""
        ...


class RunningStage:
    """See :class:`.scenario.Stage`; a context manager that leaves nothing running.

    Args:
        scenario: its key, for the systems that could not be started.
        systems: those that are wanted.
        models: beside those of every repository.
        processes: client processes of each system.
        directory: for repositories and logs.
    """

    def __init__(
        self, scenario: str, systems: Sequence[str], models: tuple[str, ...], processes: int, directory: Path
    ) -> None:
        self.not_run: list[NotRun] = []
        #: System -> why it was given up in the middle.
        self.lost: dict[str, str] = {}
        self._scenario = scenario
        self._wanted = tuple(systems)
        self._models = models
        self._processes = processes
        self._directory = directory
        self._servers: dict[str, Server] = {}
        self._failed_servers: dict[str, str] = {}
        self._loads: dict[str, Loads] = {}
        self._closers: dict[str, ExitStack] = {}
        self._failures: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> RunningStage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, system: str) -> None:
        """Start a system; what cannot be started is in :attr:`not_run` afterwards."""
        try:
            self._open(system)
        except (ChildError, NotBuiltError, OSError, TimeoutError) as error:
            self.not_run.append(NotRun(system=system, reason=str(error), scenario=self._scenario))

    @property
    def systems(self) -> tuple[str, ...]:
        """Those that run."""
        return tuple(system for system in self._wanted if system in self._loads and system not in self.lost)

    def address(self, system: str) -> str:
        """Where the server of a system listens."""
        return self._servers[SYSTEMS[system].server].address

    def repository(self, system: str) -> str:
        """Model repository of the server of a system."""
        return str(self._directory / f"models-{SYSTEMS[system].server}")

    def lose(self, system: str, reason: str) -> None:
        """Give a system up for the rest of the scenario."""
        self.lost.setdefault(system, reason)

    def measure(self, system: str, job: Job, processes: int) -> Measurement:
        """Have the clients of a system do a job.

        After a failure they are replaced, because a late answer would be taken for that to the next job; a
        system that fails again and again, or whose server has ended, is given up.

        Raises:
            ChildError: the job could not be done.
        """
        try:
            measurement = self._loads[system].measure(job, processes)
        except ChildError as error:
            self._recover(system, str(error))
            raise
        self._failures[system] = 0
        return measurement

    def _recover(self, system: str, reason: str) -> None:
        self._failures[system] = self._failures.get(system, 0) + 1
        if not _alive(self._servers[SYSTEMS[system].server].pid):
            self.lose(system, "its server has ended")
        elif self._failures[system] >= _PATIENCE:
            self.lose(system, f"failed {self._failures[system]} times in a row: {reason}")
        else:
            self._closers.pop(system).close()
            try:
                self._connect(system)
            except (ChildError, OSError) as error:
                self.lose(system, f"its clients could not be started again: {error}")

    def _open(self, system: str) -> None:
        key = SYSTEMS[system].server
        if key in self._failed_servers:
            raise ChildError(self._failed_servers[key])
        if key not in self._servers:
            try:
                self._servers[key] = self._stack.enter_context(
                    start_server(key, self._build(key), self._directory)
                )
            except Exception as error:
                self._failed_servers[key] = str(error)
                raise
        self._connect(system)

    def _connect(self, system: str) -> None:
        closer = self._stack.enter_context(ExitStack())
        self._loads[system] = closer.enter_context(self._clients(system))
        self._closers[system] = closer

    def _clients(self, system: str) -> AbstractContextManager[Loads]:
        server = self._servers[SYSTEMS[system].server]
        return Clients(system, server, self._processes, self._directory)

    def _build(self, key: str) -> Path:
        """A repository for each server: one that changes is of one server only."""
        template = self._directory / "models"
        if not template.exists():
            build_repository(template)
            add_models(template, self._models)
        repository = self._directory / f"models-{key}"
        shutil.copytree(template, repository)
        return repository


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
