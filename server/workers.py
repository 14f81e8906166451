"""The Worker seam, and workers that are threads.

A worker runs one batch at a time. What it is (a thread here, later a process) is nobody else's concern:
``submit`` hands it a batch, and the outcome arrives through the callback that it was made with.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from ..manager.handle import ServableHandle
from .batch import Batch, Outcome
from .execution import run_batch

#: Called from the worker's thread: worker number, batch, outcome.
Finished = Callable[[int, Batch, Outcome], None]


class Worker(Protocol):
    """Something that runs batches, one at a time."""

    def submit(self, batch: Batch) -> None:
        """Take a batch; returns at once."""
        ...

    def stop(self) -> None:
        """Finish the batch in hand, if any, then end. Returns at once."""
        ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        ...


class ThreadWorker:
    """Runs batches in a thread of its own, which starts with the first batch."""

    def __init__(self, number: int, name: str, handle: ServableHandle, finished: Finished) -> None:
        self._number = number
        self._name = name
        self._handle = handle
        self._finished = finished
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, batch: Batch) -> None:
        """See :meth:`Worker.submit`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._inbox.put(batch)

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
        while (batch := self._inbox.get()) is not None:
            self._finished(self._number, batch, run_batch(self._handle.servable, batch))
            del batch
