"""The systems of one scenario, running: servers, and clients connected to them, until the scenario ends."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec
import psutil

from ..load import Job
from ..load_clients import open_clients
from ..models import build_repository
from ..processes import ChildError, NotBuiltError
from ..recorder import Measurement
from ..servers import Server, start_server
from ..systems import SYSTEMS, LoadClients
from .models import add_models, set_workers
from .results import NotRun
from .scenario import Scenario

#: Turns of one system that may fail one after the other; then it is given up.
_PATIENCE: Final = 3

#: Calls in flight of one client process that needs a thread for each, in an open loop.
_THREADS: Final = 128
_DEAD: Final = "its server has ended"
#: Servers that can be told how many batches run at the same time, outside of their event loop.
_WITH_EXECUTOR: Final = ("grpc", "grpc processes", "grpc threads", "triton")
#: Servers that can be told how many calls they have at the same time.
_WITH_LIMIT: Final = ("grpc", "grpc processes")


class RunningStage:
    """See :class:`.scenario.Stage`; a context manager that leaves nothing running.

    Args:
        scenario: says which systems are wanted, with which models, and with how many client processes.
        directory: for repositories and logs.
    """

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.not_run: list[NotRun] = []
        #: System -> why it was given up in the middle.
        self.lost: dict[str, str] = {}
        self._scenario = scenario
        self._directory = directory
        self._servers: dict[str, Server] = {}
        self._failed_servers: dict[str, str] = {}
        self._loads: dict[str, LoadClients] = {}
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
            self.not_run.append(NotRun(system=system, reason=str(error), scenario=self._scenario.key))

    @property
    def systems(self) -> tuple[str, ...]:
        """Those that run."""
        wanted = self._scenario.info.systems
        return tuple(system for system in wanted if system in self._loads and system not in self.lost)

    def server(self, system: str) -> Server:
        """The server of a system."""
        return self._servers[SYSTEMS[system].server]

    def address(self, system: str) -> str:
        """Where it listens."""
        return self.server(system).address

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
        if job.arrivals != "closed" and not SYSTEMS[system].asynchronous:
            job = msgspec.structs.replace(job, concurrency=min(job.concurrency, _THREADS * processes))
        try:
            measurement = self._loads[system].measure(job, processes)
        except ChildError as error:
            self._recover(system, str(error))
            raise
        if not _alive(self.server(system).pid):
            # Its clients went on and counted errors; that is no measurement of the system.
            self.lose(system, _DEAD)
            raise ChildError(f"{_DEAD} while it was measured")
        self._failures[system] = 0
        return measurement

    def _recover(self, system: str, reason: str) -> None:
        self._failures[system] = self._failures.get(system, 0) + 1
        if not _alive(self.server(system).pid):
            self.lose(system, _DEAD)
        elif self._failures[system] >= _PATIENCE:
            self.lose(system, f"failed {self._failures[system]} times in a row: {reason}")
        else:
            try:
                # None are left where they could not be started again before.
                self._closers.pop(system, ExitStack()).close()
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
                    start_server(key, self._build(key), self._directory, self._flags(key))
                )
            except Exception as error:
                self._failed_servers[key] = str(error)
                raise
        self._connect(system)

    def _connect(self, system: str) -> None:
        closer = self._stack.enter_context(ExitStack())
        self._loads[system] = closer.enter_context(self._clients(system))
        self._closers[system] = closer

    def _clients(self, system: str) -> AbstractContextManager[LoadClients]:
        return open_clients(system, self.server(system), self._scenario.processes, self._directory)

    def _flags(self, key: str) -> tuple[str, ...]:
        threads, limit = self._scenario.executor, self._scenario.grpc_limit
        flags: list[str] = []
        if threads and key in _WITH_EXECUTOR:
            flags += ["--executor", str(threads)]
        if limit and key in _WITH_LIMIT:
            flags += ["--max-concurrent-rpcs", str(limit)]
        return tuple(flags)

    def _build(self, key: str) -> Path:
        """A repository for each server: one that changes is of one server only."""
        template = self._directory / "models"
        if not template.exists():
            build_repository(template)
            add_models(template, self._scenario.models)
            set_workers(template, self._scenario.workers)
        repository = self._directory / f"models-{key}"
        shutil.copytree(template, repository)
        return repository


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
