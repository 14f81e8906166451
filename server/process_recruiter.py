"""Supervision: brings up worker processes, again those that died, and gives up what dies again and again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ..manager.handle import ServableHandle
from ..rpc.errors import RpcError
from .process_worker import ProcessWorker
from .processes.parent import WorkerProcess
from .processes.servable import ProcessServable
from .workers import Surroundings, Worker

_log = logging.getLogger("tensorwire.server")

#: Workers that died in a row without having finished a batch, or could not be started, before the version is
#: given up, if none is left that works. The death of one that has worked starts the count afresh.
FRUITLESS: Final = 5
#: Seconds before the second fruitless restart in a row; doubles with each further one.
_FIRST_DELAY: Final = 0.1
#: And grows up to this, where others go on working.
_LONGEST_DELAY: Final = 30.0


class ProcessRecruiter:
    """See :class:`~.workers.Recruiter`.

    Args:
        enlist: takes a worker, made for the number that it is given.
        broken: called when the version is given up, with the reason.
        wanted: whether one more worker is wanted still.
        working: whether a productive worker is left.
    """

    def __init__(
        self,
        handle: ServableHandle,
        servable: ProcessServable,
        around: Surroundings,
        enlist: Callable[[Callable[[int], Worker]], None],
        *,
        broken: Callable[[str], None],
        wanted: Callable[[], bool],
        working: Callable[[], bool],
    ) -> None:
        self.coming = 0
        self._handle = handle
        self._servable = servable
        self._around = around
        self._enlist_worker = enlist
        self._broken = broken
        self._wanted = wanted
        self._working = working
        self._fruitless = 0

    def recruit(self) -> None:
        """See :meth:`~.workers.Recruiter.recruit`."""
        ready = self._servable.take()
        if ready is not None:
            self._enlist(ready)
        else:
            self._start(0.0)

    def replace(self, productive: bool) -> None:
        """See :meth:`~.workers.Recruiter.replace`."""
        self._fruitless = 0 if productive else self._fruitless + 1
        self._start_again("its workers die before they have finished a batch")

    def _start_again(self, trouble: str) -> None:
        fruitless = self._fruitless
        if fruitless >= FRUITLESS and not self._working():
            self._broken(f"{trouble}: {fruitless} times in a row")
            return
        self._start(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(fruitless - 2, 30)) if fruitless > 1 else 0.0)

    def _start(self, delay: float) -> None:
        self.coming += 1
        self._servable.start_another(delay, lambda error: self._around.post(lambda: self._arrived(error)))

    def _arrived(self, error: RpcError | None) -> None:
        """In the front-end thread again."""
        self.coming -= 1
        process = self._servable.take()
        if process is not None and self._wanted():
            self._enlist(process)
            self._around.enlisted()
        elif process is not None:
            process.stop()
            self._servable.release(process)
        elif error is not None and self._wanted():
            handle = self._handle
            _log.error("%s:%d: a worker could not be started: %s", handle.model, handle.version, error)
            self._fruitless += 1
            self._start_again(f"its workers cannot be started ({error})")

    def _enlist(self, process: WorkerProcess) -> None:
        self._enlist_worker(
            lambda number: ProcessWorker(number, self._handle, process, self._around, self._servable.release)
        )
