"""A worker that is a process: batches go out as calls, their answers come back to the front-end thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from ..manager.handle import ServableHandle
from ..rpc.errors import RpcError
from ..rpc.pump import Slice
from .batch import Batch, Outcome, Result, in_time
from .execution import Steps, execute
from .processes.parent import WorkerProcess
from .processes.process import WorkerLost
from .workers import Surroundings

Array = npt.NDArray[Any]


class _Running(NamedTuple):
    """A batch that the process is at work on."""

    batch: Batch
    expired: Sequence[Slice]
    begun: float
    steps: Steps


class ProcessWorker:
    """See :class:`~.workers.Worker`. All of it happens in the front-end thread; nothing blocks.

    Attributes:
        productive: it has finished a batch.
    """

    def __init__(
        self,
        number: int,
        handle: ServableHandle,
        process: WorkerProcess,
        around: Surroundings,
        released: Callable[[WorkerProcess], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``released``: called when the front-end thread will not touch the process any more."""
        self.productive = False
        self.process = process
        self._number = number
        self._handle = handle
        self._around = around
        self._released = released
        self._clock = clock
        self._waiting: deque[Batch] = deque()
        self._running: _Running | None = None
        self._call = 0
        self._called_at = 0.0
        self._compute_seconds = 0.0
        self._ended = False
        around.watch(process.fileno(), self._read)

    @property
    def process_id(self) -> int:
        """See :attr:`~.workers.Worker.process_id`."""
        return self.process.pid

    def submit(self, batch: Batch) -> None:
        """See :meth:`~.workers.Worker.submit`."""
        self._waiting.append(batch)
        if self._running is None:
            self._begin_next()

    def check(self, now: float) -> float | None:
        """See :meth:`~.workers.Worker.check`: a process that hangs is killed, and is lost then."""
        limit = self._handle.config.workers.hang_timeout
        if self._running is None or not limit:
            return None
        if now < self._called_at + limit:
            return self._called_at + limit
        self.process.kill(f"was killed because one call took more than {limit:g} s")
        return None

    def stop(self) -> None:
        """See :meth:`~.workers.Worker.stop`."""
        if not self._ended:
            self._leave()
            self.process.stop()
            self._released(self.process)

    def join(self, timeout: float | None = None) -> bool:
        """See :meth:`~.workers.Worker.join`; it is the servable that waits for its processes."""
        del timeout
        return self._ended

    # ---------------------------------------------------------------- batches

    def _begin_next(self) -> None:
        while self._waiting and self._running is None and not self._ended:
            batch = self._waiting.popleft()
            begun = self._clock()
            alive, expired = in_time(batch, begun)
            if not alive.parts:
                self._around.finished(self._number, batch, Outcome([], 0.0, begun, expired))
                continue
            self._compute_seconds = 0.0
            steps = execute(alive, self._handle.servable.metadata)
            self._running = _Running(batch, expired, begun, steps)
            self._go_on(steps, None)

    def _go_on(self, steps: Steps, outputs: Any, error: Exception | None = None) -> None:
        """Take the next step of the running batch: another call, or its end."""
        try:
            while True:
                call = steps.send(outputs) if error is None else steps.throw(error)
                self._call += 1
                self._called_at = self._clock()
                try:
                    self.process.send_call(self._call, call.inputs, call.padding, call.outputs)
                except RpcError as refusal:
                    error = refusal
                else:
                    return
        except StopIteration as end:
            self._finish(end.value)
        except WorkerLost as lost:
            self._lose(lost.reason)

    def _finish(self, results: list[Result]) -> None:
        running, self._running = self._running, None
        assert running is not None
        self.productive = True
        # The process first: it shall not wait until the answers are written.
        self._begin_next()
        outcome = Outcome(results, self._compute_seconds, running.begun, running.expired)
        self._around.finished(self._number, running.batch, outcome)

    def _read(self) -> None:
        """The process has answered, or is gone."""
        try:
            while not self._ended and (answer := self.process.receive()) is not None:
                if self._running is not None and answer.call_id == self._call:
                    self._compute_seconds += answer.compute_seconds
                    self._go_on(self._running.steps, answer.outputs, answer.error)
        except WorkerLost as lost:
            self._lose(lost.reason)

    # ---------------------------------------------------------------- the end

    def _lose(self, reason: str) -> None:
        if self._ended:
            return
        self._leave()
        running, self._running = self._running, None
        if running is not None:
            running.steps.close()
        self._waiting.clear()
        self._released(self.process)
        self._around.lost(self._number, running is not None, reason)

    def _leave(self) -> None:
        self._ended = True
        self._around.unwatch(self.process.fileno())
