"""One served model version as the front end sees it: bindings, scheduler, workers, cost, counters."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy.typing as npt

from ..manager.config import ModelConfig
from ..manager.handle import ServableHandle
from ..rpc.pump import ReplyTemplate, Slice
from ..rpc.types import OBJECT_DTYPE, name_of_dtype
from ..rpc.wire.header import Layout, ReplyHeader, TensorHeader, encode_header
from .admission import Load
from .batch import Batch, Outcome
from .binding import Binding, Bindings
from .cost import CostModel
from .execution import run_batch
from .scheduler import BatchPolicy, Run, Scheduler
from .workers import Recruiter, Surroundings, ThreadRecruiter, Worker

Array = npt.NDArray[Any]

#: When batches that run inline take this many times the budget on average, none do for a while.
_TOLERANCE: Final = 2
_SMOOTHING: Final = 0.1
_PENALTY_SECONDS: Final = 1.0
_TEMPLATES_KEPT: Final = 1024
#: Longer batches are not handed out ahead: what comes in meanwhile with a higher priority waits for them.
_AHEAD_SECONDS: Final = 0.01


class Again(NamedTuple):
    """Batch key of requests that were run when a worker died, and are run once more."""

    key: Hashable


class VersionCounters(msgspec.Struct):
    """What a version has done since it was loaded."""

    requests: int = 0
    rows: int = 0
    batches: int = 0
    inline_batches: int = 0
    #: Dropped when they were dequeued because their deadline had passed; never computed.
    expired: int = 0
    rejected: int = 0
    cancelled: int = 0
    failed: int = 0
    #: Worker processes that died or were killed.
    workers_lost: int = 0
    compute_seconds: float = 0.0
    queue_seconds: float = 0.0


class VersionRuntime:
    """The server's state for one :class:`ServableHandle`; lives in its ``slot``. Used by the front end only.

    It holds one reference of the handle while it has requests in flight.
    """

    def __init__(
        self,
        handle: ServableHandle,
        around: Surroundings,
        inline_budget: float,
        broken: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``broken``: called when the version is given up, with the reason."""
        self.handle = handle
        self.bindings = Bindings(handle.metadata)
        self.scheduler = Scheduler(BatchPolicy(1))
        self.load = Load(f"model {handle.model!r}")
        self.counters = VersionCounters()
        self.wake_at: float | None = None
        #: When its last request came.
        self.active_at = -math.inf
        #: Not published any more.
        self.retired = False
        #: Why it was given up; empty while it serves.
        self.broken = ""
        #: Batch keys of the scheduler -> how such batches are run.
        self._binding_of_key: dict[Hashable, Binding] = {}
        self._templates: dict[Hashable, ReplyTemplate] = {}
        #: Its workers can hang and be ended.
        self.supervised = handle.servable.worker_kind == "process"
        self._recruiter = self._make_recruiter(around, broken)
        self._workers: dict[int, Worker] = {}
        self._next_worker = 0
        self._stopped = False
        #: What each worker has in hand, in this order.
        self._running: dict[int, deque[Batch]] = {}
        #: When a worker last finished a batch.
        self._finished_at: dict[int, float] = {}
        self._cost = CostModel(handle.costs)
        self.load.row_seconds = self._cost.row_seconds
        self._inline_seconds = inline_budget
        self._inline_rows = self._cost.rows_within(inline_budget) if handle.servable.releases_gil else 0
        #: No batch runs inline before this time.
        self.inline_from = 0.0
        self._inline_mean = 0.0
        self._config: ModelConfig | None = None
        self.reconfigure()

    def reconfigure(self) -> bool:
        """Take over the handle's settings; whether they have changed."""
        config = self.handle.config
        if config is self._config:
            return False
        self._config = config
        batching, limits = config.batching, config.limits
        self.max_batch_size = batching.max_batch_size or 1
        self.scheduler.policy = BatchPolicy(self.max_batch_size, batching.max_queue_delay)
        self._cost.limit(self.max_batch_size)
        self.load.row_seconds = self._cost.row_seconds
        self.load.max_queued_rows = limits.max_queued_rows
        self.load.max_in_flight = limits.max_in_flight
        #: Largest bundle, in rows, that may run the moment it arrives; 0: all wait for company.
        self.express_rows = 0 if batching.max_queue_delay else min(self._inline_rows, self.max_batch_size)
        #: The only numbers of rows that need no padding; empty: all.
        self.padded = frozenset(batching.allowed_batch_sizes)
        self._allowed = batching.allowed_batch_sizes
        self._resize(config.workers.count or 1)
        return True

    def _make_recruiter(self, around: Surroundings, broken: Callable[[str], None]) -> Recruiter:
        servable = self.handle.servable
        if not self.supervised:
            return ThreadRecruiter(self.handle, around.finished, self._enlist)
        # Here, and not above: most servers have no need of it.
        from .process_recruiter import ProcessRecruiter
        from .processes.servable import ProcessServable

        assert isinstance(servable, ProcessServable)
        return ProcessRecruiter(
            self.handle,
            servable,
            around,
            self._enlist,
            broken=broken,
            wanted=self._wants_another,
            working=self._works,
        )

    def _wants_another(self) -> bool:
        return not self._stopped and len(self._workers) < self.load.workers

    def _works(self) -> bool:
        """Whether a worker is left that has shown that it can work."""
        return any(worker.productive for worker in self._workers.values())

    def _enlist(self, make: Callable[[int], Worker]) -> None:
        number = self._next_worker
        self._next_worker += 1
        self._workers[number] = make(number)
        self.scheduler.worker_idle(number)

    def _resize(self, count: int) -> None:
        self.load.workers = count
        for _ in range(count - len(self._workers) - self._recruiter.coming):
            self._recruiter.recruit()
        # Those that are busy leave when they have nothing in hand.
        for number in list(self._workers)[count:]:
            if self.scheduler.is_idle(number):
                self._dismiss(number)

    def _dismiss(self, worker: int) -> None:
        self._remove(worker).stop()

    def _remove(self, worker: int) -> Worker:
        self.scheduler.worker_lost(worker)
        self._running.pop(worker, None)
        self._finished_at.pop(worker, None)
        return self._workers.pop(worker)

    def worker_lost(self, worker: int) -> list[Batch]:
        """A worker is gone; another takes its place as soon as there is one.

        Returns:
            What it had in hand, in this order.
        """
        in_hand = list(self._running.get(worker, ()))
        gone = self._remove(worker)
        self.counters.workers_lost += 1
        if self._wants_another():
            self._recruiter.replace(gone.productive)
        return in_hand

    def check_workers(self, now: float) -> float | None:
        """Have those end that hang; when to look again, None: no need to."""
        # A copy: who hangs may be lost while it is looked at.
        times = [at for worker in list(self._workers.values()) if (at := worker.check(now)) is not None]
        return min(times, default=None)

    def worker_done(self, worker: int, batch: Batch) -> float:
        """A worker has finished a batch: it goes on with the next, is idle, or leaves if there are too many.

        Returns:
            When it finished the one before, on the server's clock; 0 if there was none.
        """
        before = self._finished_at.get(worker, 0.0)
        self._finished_at[worker] = time.monotonic()
        in_hand = self._running.get(worker)
        if in_hand and in_hand[0] is batch:
            in_hand.popleft()
        elif in_hand:
            # One that is run again in parts is overtaken.
            self._running[worker] = deque(each for each in in_hand if each is not batch)
        self.scheduler.worker_idle(worker)
        if len(self._workers) > self.load.workers and self.scheduler.is_idle(worker):
            self._dismiss(worker)
        return before

    @property
    def worker_count(self) -> int:
        """Workers of this version."""
        return len(self._workers)

    def worker_processes(self) -> list[int]:
        """Process ids of the workers that are processes."""
        return [pid for worker in self._workers.values() if (pid := worker.process_id) is not None]

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return self.load.in_flight == 0

    def remember(self, binding: Binding) -> None:
        """Make sure that the batches of a binding's key can be run."""
        if binding.key not in self._binding_of_key:
            if len(self._binding_of_key) >= _TEMPLATES_KEPT:
                waiting = self.scheduler.keys
                self._binding_of_key = {k: b for k, b in self._binding_of_key.items() if k in waiting}
            self._binding_of_key[binding.key] = binding

    def binding_of(self, run: Run) -> Binding:
        """How the requests of a scheduled batch are run."""
        return self._binding_of_key[run.key]

    def batch(
        self, binding: Binding, parts: list[Slice], rows: int, now: float, key: Hashable = None
    ) -> Batch:
        """Something to execute; ``key``: the scheduler's."""
        again = isinstance(key, Again)
        return Batch(binding, parts, rows, self.max_batch_size, self._allowed, now, again)

    def queue_again(self, binding: Binding, part: Slice, *, alone: bool) -> None:
        """Queue requests that a worker had in hand when it died, before those that came later; ``alone``:
        one by one, as they may have killed it."""
        key: Hashable = binding.key
        if alone:
            key = Again(binding.key)
            self._binding_of_key[key] = binding
        else:
            self.remember(binding)
        self.scheduler.add(part, key, part.bundle.received, together=binding.batched and not alone)

    def runs_inline(self, run: Run, now: float) -> bool:
        """Whether a batch is so short that handing it to a thread would cost more than running it."""
        return 0 < run.rows <= self._inline_rows and now >= self.inline_from

    def run_inline(self, batch: Batch) -> Outcome:
        """Run a batch in the calling thread."""
        outcome = run_batch(self.handle.servable, batch)
        self._ran_inline(outcome.compute_seconds)
        return outcome

    def _ran_inline(self, seconds: float) -> None:
        self.counters.inline_batches += 1
        # Bounded: a single slow one is more often the machine's doing than the model's.
        seconds = min(seconds, 2 * _TOLERANCE * self._inline_seconds)
        self._inline_mean += _SMOOTHING * (seconds - self._inline_mean)
        if self._inline_mean > _TOLERANCE * self._inline_seconds:
            self.inline_from = time.monotonic() + _PENALTY_SECONDS
            self._inline_mean = 0.0

    def submit(self, worker: int, batch: Batch) -> None:
        """Hand a batch to a worker."""
        self._running.setdefault(worker, deque()).append(batch)
        self._workers[worker].submit(batch)

    def running(self) -> list[Batch]:
        """What workers have in hand."""
        return [batch for in_hand in self._running.values() for batch in in_hand]

    def account(self, batch: Batch, outcome: Outcome, free_since: float = 0.0) -> None:
        """Learn from a finished batch, before which its worker has been free since then."""
        seconds = outcome.compute_seconds
        if self.scheduler.queued_requests:
            # For those who wait, the ways to the worker and back count too, and its waiting for the
            # interpreter.
            seconds = max(seconds, time.monotonic() - max(batch.started, free_since))
        self.counters.expired += sum(part.requests for part in outcome.expired)
        rows = batch.rows - sum(part.rows for part in outcome.expired)
        if rows or not outcome.expired:
            self._account(rows, outcome.compute_seconds, seconds)

    def account_inline(self, rows: int, seconds: float) -> None:
        """Learn from a batch that ran in the calling thread, without :meth:`run_inline`."""
        self._ran_inline(seconds)
        self._account(rows, seconds, seconds)

    def _account(self, rows: int, compute_seconds: float, cost: float) -> None:
        counters = self.counters
        counters.batches += 1
        counters.rows += rows
        counters.compute_seconds += compute_seconds
        self._cost.learn(rows, cost)
        self.load.row_seconds = self._cost.row_seconds
        # A batch that runs inline needs no way to a worker; one that takes long does not feel it.
        self.scheduler.ahead = (
            self._inline_rows < self.max_batch_size
            and self.load.row_seconds * self.max_batch_size < _AHEAD_SECONDS
        )

    def template(self, binding: Binding, outputs: Sequence[Array]) -> ReplyTemplate:
        """The reply header for these outputs, made when such outputs are seen for the first time."""
        rows = binding.batched
        key: Hashable = (
            binding.outputs,
            rows,
            *[(output.dtype, output.shape[1:] if rows else output.shape) for output in outputs],
        )
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= _TEMPLATES_KEPT:
                self._templates.clear()
            template = self._templates[key] = self._make_template(binding, outputs)
        return template

    def _make_template(self, binding: Binding, outputs: Sequence[Array]) -> ReplyTemplate:
        declared = {spec.name: spec.dtype for spec in self.handle.metadata.outputs}
        rows = binding.batched
        tensors = tuple(
            TensorHeader(
                name,
                declared[name] if output.dtype == OBJECT_DTYPE else name_of_dtype(output.dtype),
                output.shape[1:] if rows else output.shape,
            )
            for name, output in zip(binding.outputs, outputs, strict=True)
        )
        header = ReplyHeader(self.handle.model, self.handle.version, tensors, rows)
        return ReplyTemplate(encode_header(header), Layout(tensors, rows))

    def stop(self) -> None:
        """End the workers; returns at once."""
        self._stopped = True
        for worker in self._workers.values():
            worker.stop()

    def join(self, timeout: float) -> bool:
        """Wait for the workers' end; whether all have ended."""
        until = time.monotonic() + timeout
        return all(worker.join(max(0.0, until - time.monotonic())) for worker in self._workers.values())
