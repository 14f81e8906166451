"""Continuous batching inside an asyncio event loop, for peers that have no scheduler of their own.

Requests of one signature that arrive in the same event-loop tick, or while a batch is running in the
executor, form the next batch: one concatenation, one run of the engine, one slice per request. Nothing ever
waits for company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np

Tensor = np.ndarray[Any, np.dtype[Any]]
#: The engine: {input name: batch} -> output arrays, in the order of the model's outputs.
Run = Callable[[dict[str, Tensor]], list[Tensor]]


#: What a batch gave, or why it gave nothing.
Outcome = tuple[list[Tensor], Exception | None]


class Request(Protocol):
    """What takes part in a batch."""

    @property
    def inputs(self) -> dict[str, Tensor]: ...


class _Pending(NamedTuple):
    inputs: dict[str, Tensor]
    rows: int
    future: asyncio.Future[list[Tensor]]


class MicroBatcher:
    """The queue of one model version and one signature.

    Args:
        run: called with one batch; on the loop's thread, or in ``executor`` where one is given.
        max_rows: rows of the largest batch (one request may be larger, and then runs alone).
        executor: None runs batches inline, which saves two thread switches a batch.
        workers: batches that may be in the executor at the same time.
    """

    def __init__(self, run: Run, max_rows: int, executor: Executor | None = None, workers: int = 1) -> None:
        self._run = run
        self._max_rows = max_rows
        self._executor = executor
        self._idle = workers
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Pending] = deque()
        self._scheduled = False

    def submit(self, inputs: dict[str, Tensor], rows: int) -> asyncio.Future[list[Tensor]]:
        """Queue one request; the future gives its rows of every output."""
        future: asyncio.Future[list[Tensor]] = self._loop.create_future()
        self._pending.append(_Pending(inputs, rows, future))
        self._schedule()
        return future

    def _schedule(self) -> None:
        """Have the next tick start what can be; not this one, so that what it brings comes too."""
        if self._pending and self._idle and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch = self._take()
        if not batch:
            return
        if self._executor is None:
            self._finish(batch, *attempt(self._run, batch))
        else:
            self._idle -= 1
            running = self._loop.run_in_executor(self._executor, attempt, self._run, batch)
            running.add_done_callback(lambda done: self._executed(batch, done))
        self._schedule()

    def _executed(self, batch: list[_Pending], done: asyncio.Future[Outcome]) -> None:
        self._idle += 1
        self._finish(batch, *done.result())
        self._schedule()

    def _take(self) -> list[_Pending]:
        """The next batch; empty where nobody waits any more."""
        batch: list[_Pending] = []
        rows = 0
        while self._pending:
            item = self._pending[0]
            if not item.future.done():  # else the caller has gone, and nobody wants its answer
                rows += item.rows
                if batch and rows > self._max_rows:
                    break
                batch.append(item)
            self._pending.popleft()
        return batch

    @staticmethod
    def _finish(batch: list[_Pending], outputs: list[Tensor], error: Exception | None) -> None:
        start = 0
        for item in batch:
            if item.future.done():  # the caller has gone
                start += item.rows
                continue
            if error is not None:
                item.future.set_exception(error)
                continue
            stop = start + item.rows
            item.future.set_result([output[start:stop] for output in outputs])
            start = stop


def attempt(run: Run, batch: Sequence[Request]) -> Outcome:
    """Run one batch; the exception is a value, because it belongs to the callers and not to who runs it."""
    try:
        if len(batch) == 1:
            return run(batch[0].inputs), None
        names = batch[0].inputs
        return run({name: np.concatenate([item.inputs[name] for item in batch]) for name in names}), None
    except Exception as error:  # noqa: BLE001 - whatever the engine raised goes to the callers
        return [], error
