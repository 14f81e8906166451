"""The Worker seam, and workers that are threads.

A worker runs one batch at a time. What it is, a thread or a process, is nobody else's concern: ``submit``
hands it a batch, and the outcome arrives through the callback that it was made with.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from ..manager.config import parse_cpus
from ..manager.handle import ServableHandle
from .batch import Batch, Outcome
from .execution import run_batch

#: Called from any thread: worker number, batch, outcome.
Finished = Callable[[int, Batch, Outcome], None]
#: Called in the front-end thread when a worker is gone: its number, what it was at work on, what it died of.
Lost = Callable[[int, Batch | None, str], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What workers need from whoever runs the front-end thread.

    Attributes:
        finished: a worker has finished a batch.
        enlisted: a worker has come, and may have something to do.
        lost: a worker is gone. What that means comes later, from the loop: nothing changes meanwhile.
        post: has the front-end thread call something; any thread.
        watch: has the front-end thread call something whenever a descriptor is readable; there only.
        unwatch: ends that; there only.
    """

    finished: Finished
    enlisted: Callable[[], None]
    lost: Lost
    post: Callable[[Callable[[], None]], None]
    watch: Callable[[int, Callable[[], None]], None]
    unwatch: Callable[[int], None]


class Worker(Protocol):
    """Something that runs batches, one at a time. Used by the front-end thread."""

    @property
    def productive(self) -> bool:
        """It has finished a batch, or has been ready to for long."""
        ...

    @property
    def process_id(self) -> int | None:
        """Of the process that it is, or None."""
        ...

    def submit(self, batch: Batch) -> None:
        """Take a batch; returns at once."""
        ...

    def check(self, now: float) -> float | None:
        """See whether the batch in hand takes too long; when to look again, None: no need to."""
        ...

    def stop(self) -> None:
        """Finish the batch in hand, if any, then end. Returns at once."""
        ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        ...


class ThreadWorker:
    """Runs batches in a thread of its own, which starts with the first batch."""

    process_id = None

    def __init__(self, number: int, handle: ServableHandle, finished: Finished) -> None:
        self.productive = True
        self._number = number
        self._handle = handle
        self._finished = finished
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, batch: Batch) -> None:
        """See :meth:`Worker.submit`."""
        if self._thread is None:
            name = f"{self._handle.model}:{self._handle.version}#{self._number}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        self._inbox.put(batch)

    def check(self, now: float) -> float | None:
        """A thread cannot be ended, however long it takes; see :meth:`Worker.check`."""
        del now
        return None

    def stop(self) -> None:
        """See :meth:`Worker.stop`."""
        self._inbox.put(None)

    def join(self, timeout: float | None = None) -> bool:
        """See :meth:`Worker.join`."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        cpus = self._handle.config.workers.cpus
        if cpus is not None:
            os.sched_setaffinity(0, parse_cpus(cpus))
        while (batch := self._inbox.get()) is not None:
            self._finished(self._number, batch, run_batch(self._handle.servable, batch))
            del batch


class Recruiter(Protocol):
    """Brings up the workers of one version. Used by the front-end thread.

    Attributes:
        coming: workers that are on their way.
    """

    coming: int

    def recruit(self) -> None:
        """Bring up one more worker: it is enlisted now, or when it is ready."""
        ...

    def replace(self, productive: bool) -> None:
        """Bring up one in place of a worker that died; ``productive``: as :attr:`Worker.productive`."""
        ...


class ThreadRecruiter:
    """Threads are there at once."""

    coming = 0

    def __init__(
        self, handle: ServableHandle, finished: Finished, enlist: Callable[[Callable[[int], Worker]], None]
    ) -> None:
        """``enlist``: takes a worker, made for the number that it is given."""
        self._handle = handle
        self._finished = finished
        self._enlist = enlist

    def recruit(self) -> None:
        """See :meth:`Recruiter.recruit`."""
        self._enlist(lambda number: ThreadWorker(number, self._handle, self._finished))

    def replace(self, productive: bool) -> None:
        """See :meth:`Recruiter.replace`."""
        del productive
        self.recruit()
