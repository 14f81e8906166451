"""A worker that is a process: batches go out as calls, their answers come back to the front-end thread."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy.typing as npt

from ..manager.handle import ServableHandle
from ..rpc.errors import RpcError
from ..rpc.pump import Slice
from .batch import Batch, Call, Outcome, Result, earliest_deadline, in_time
from .execution import Steps, execute, plain_call, plain_results, recover
from .processes.parent import WorkerProcess
from .processes.port import Answer
from .processes.process import WorkerLost
from .workers import Surroundings

Array = npt.NDArray[Any]

#: Seconds after which a worker that had nothing to do counts as one that can work.
_PROVEN: Final = 10.0
_MICROSECONDS: Final = 1_000_000


class _Job:
    """A batch that the process has; one of its calls is there.

    Attributes:
        alive: the batch without what has ``expired``.
        steps: what follows; None: the call is all there is to it, if it succeeds.
        begun: when the first call came to be the process's next; 0: it has not.
        first: the call is the batch's first, and has a deadline.
    """

    __slots__ = ("alive", "batch", "begun", "call_id", "compute_seconds", "expired", "first", "steps")

    def __init__(self, batch: Batch) -> None:
        self.batch = self.alive = batch
        self.expired: list[Slice] = []
        self.steps: Steps | None = None
        self.begun = 0.0
        self.call_id = 0
        self.compute_seconds = 0.0
        self.first = True


class ProcessWorker:
    """See :class:`~.workers.Worker`. All of it happens in the front-end thread; nothing blocks.

    A batch that is handed out ahead waits in the process's socket. The process looks at its deadline when its
    turn comes; what it then did not run comes back, and what of it is still in time goes there once more.
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
        self.process = process
        self._worked = False
        self._came = clock()
        self._number = number
        self._handle = handle
        self._around = around
        self._released = released
        self._clock = clock
        #: In the order in which the process runs their calls.
        self._jobs: deque[_Job] = deque()
        self._calls = 0
        #: Since when the process is at work on the first.
        self._since = 0.0
        self._ended = False
        self._filenos = process.filenos()
        messages, gone = self._filenos
        around.watch(messages, self._read)
        around.watch(gone, self._note_gone)

    @property
    def productive(self) -> bool:
        """See :attr:`~.workers.Worker.productive`."""
        return self._worked or self._clock() >= self._came + _PROVEN

    @property
    def process_id(self) -> int:
        """See :attr:`~.workers.Worker.process_id`."""
        return self.process.pid

    def submit(self, batch: Batch) -> None:
        """See :meth:`~.workers.Worker.submit`."""
        self._begin(_Job(batch), self._clock())

    def check(self, now: float) -> float | None:
        """See :meth:`~.workers.Worker.check`: a process that hangs is killed, and is lost then."""
        limit = self._handle.config.workers.hang_timeout
        if not self._jobs or not limit:
            return None
        if now < self._since + limit:
            return self._since + limit
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

    def _begin(self, job: _Job, now: float) -> None:
        """Send the first call of a batch, or of what is left of it."""
        if self._ended:
            # Its loss was reported, and is about to be seen to; the batch is among what the worker has.
            return
        job.alive, expired = in_time(job.alive, now)
        job.expired += expired
        if not job.alive.parts:
            self._finish(job, [], now)
            return
        job.first = True
        try:
            call = plain_call(job.alive)
            if call is None:
                job.steps = execute(job.alive, self._handle.servable.metadata)
                self._go_on(job, None)
            else:
                self._send(job, call)
        except WorkerLost as lost:
            self._lose(lost.reason)
        except Exception as error:  # noqa: BLE001 - as in execution
            self._fail(job, error)

    def _fail(self, job: _Job, error: Exception) -> None:
        """A batch failed as a whole: what may be its requests' own doing is found out one by one."""
        job.first = False
        job.steps = recover(job.alive, self._handle.servable.metadata, error)
        self._go_on(job, None)

    def _go_on(self, job: _Job, outputs: Sequence[Array] | None, error: Exception | None = None) -> None:
        """Take the next step of a batch: another call, or its end."""
        steps = job.steps
        assert steps is not None
        try:
            while True:
                # The first step takes nothing.
                call = steps.send(outputs) if error is None else steps.throw(error)  # pyright: ignore[reportArgumentType]
                try:
                    self._send(job, call)
                except RpcError as refusal:
                    error = refusal
                else:
                    return
        except StopIteration as end:
            self._finish(job, end.value, self._clock())
        except WorkerLost as lost:
            self._lose(lost.reason)

    def _send(self, job: _Job, call: Call) -> None:
        deadline_us = 0
        if job.first:
            deadline = earliest_deadline(job.alive)
            deadline_us = 0 if deadline == math.inf else max(1, int(deadline * _MICROSECONDS))
            job.first = deadline_us > 0
        self._calls += 1
        job.call_id = self._calls
        # What cannot be sent, because it has no form or nobody is there, the process is never at work on.
        self.process.send_call(job.call_id, call.inputs, call.padding, call.outputs, deadline_us)
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._came_first(self._clock())

    def _came_first(self, now: float) -> None:
        self._since = now
        job = self._jobs[0]
        job.begun = job.begun or now

    def _finish(self, job: _Job, results: list[Result], now: float) -> None:
        self._worked = self._worked or bool(results)
        outcome = Outcome(results, job.compute_seconds, job.begun or now, job.expired)
        self._around.finished(self._number, job.batch, outcome)

    def _note_gone(self) -> None:
        self.process.note_gone()
        self._read()

    def _read(self) -> None:
        """The process has answered, or is gone."""
        try:
            while not self._ended and (answer := self.process.receive()) is not None:
                self._answered(answer)
        except WorkerLost as lost:
            self._lose(lost.reason)

    def _answered(self, answer: Answer) -> None:
        jobs = self._jobs
        # Nearly always the first; the process itself decides, and is not believed.
        job = next((job for job in jobs if job.call_id == answer.call_id), None)
        if job is None:
            return
        jobs.remove(job)
        if jobs:
            self._came_first(self._clock())
        job.compute_seconds += answer.compute_seconds
        if answer.expired and job.first:
            if job.steps is not None:
                job.steps.close()
                job.steps = None
            job.begun = 0.0
            self._begin(job, self._clock())
            return
        job.first = False
        if job.steps is not None:
            self._go_on(job, answer.outputs, answer.error)
            return
        try:
            if answer.error is not None:
                raise answer.error
            results = plain_results(job.alive, answer.outputs or ())
        except Exception as error:  # noqa: BLE001 - as in execution
            self._fail(job, error)
            return
        self._finish(job, results, 0.0)

    # ---------------------------------------------------------------- the end

    def _lose(self, reason: str) -> None:
        if self._ended:
            return
        self._leave()
        at_work = self._jobs[0].batch if self._jobs else None
        for job in self._jobs:
            if job.steps is not None:
                job.steps.close()
        self._jobs.clear()
        self._released(self.process)
        self._around.lost(self._number, at_work, reason)

    def _leave(self) -> None:
        self._ended = True
        for fd in self._filenos:
            self._around.unwatch(fd)
