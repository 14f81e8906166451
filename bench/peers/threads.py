"""Inference for servers with a thread for each request: continuous batching among the threads.

The thread that finds no batch running takes its request, and those that wait, and runs them; the others
sleep. When it is done it hands over to one of those that came meanwhile. So there is no thread that only
batches, and nobody waits for company.
"""

from __future__ import annotations

import threading
from collections import deque

from ...rpc.errors import InvalidArgumentError
from . import kserve
from .backend import Backend, Tensor
from .batcher import Run, attempt
from .codec import Responder, Signature, batch_rows, decode, signature_of


class _Waiting:
    """One request. Its thread sleeps on ``wake``, which is released when it is answered or is to lead."""

    __slots__ = ("answered", "error", "inputs", "outputs", "rows", "wake")

    def __init__(self, inputs: dict[str, Tensor], rows: int) -> None:
        self.inputs = inputs
        self.rows = rows
        self.wake = threading.Lock()
        self.wake.acquire()
        self.answered = False
        self.outputs: list[Tensor] = []
        self.error: Exception | None = None


class ThreadBatcher:
    """The queue of one model version and one signature; any thread.

    Args:
        run: called with one batch, in the thread of one of its requests.
        max_rows: rows of the largest batch (one request may be larger, and then runs alone).
        workers: batches that may run at the same time.
    """

    def __init__(self, run: Run, max_rows: int, workers: int = 1) -> None:
        self._run = run
        self._max_rows = max_rows
        self._idle = workers
        self._lock = threading.Lock()
        self._pending: deque[_Waiting] = deque()

    def submit(self, inputs: dict[str, Tensor], rows: int) -> list[Tensor]:
        """Run one request, with others or alone; its rows of every output. Raises what the engine raised."""
        own = _Waiting(inputs, rows)
        with self._lock:
            leads = self._idle > 0
            if leads:
                self._idle -= 1
            else:
                self._pending.append(own)
        if not leads:
            own.wake.acquire()
        if not own.answered:
            self._lead(own)
        if own.error is not None:
            raise own.error
        return own.outputs

    def _lead(self, own: _Waiting) -> None:
        with self._lock:
            batch = self._take(own)
        outputs, error = attempt(self._run, batch)
        _answer(batch, outputs, error)
        with self._lock:
            successor = self._pending.popleft() if self._pending else None
            if successor is None:
                self._idle += 1
        if successor is not None:
            successor.wake.release()

    def _take(self, own: _Waiting) -> list[_Waiting]:
        batch, rows = [own], own.rows
        while self._pending and rows + self._pending[0].rows <= self._max_rows:
            batch.append(self._pending.popleft())
            rows += batch[-1].rows
        return batch


def _answer(batch: list[_Waiting], outputs: list[Tensor], error: Exception | None) -> None:
    start = 0
    for item in batch:
        stop = start + item.rows
        item.error = error
        item.outputs = [output[start:stop] for output in outputs]
        item.answered = True
        start = stop
    for item in batch[1:]:  # the first is the leader, who is awake
        item.wake.release()


class ThreadService:
    """``ModelInfer`` over a backend, with one batcher per model and signature; any thread."""

    def __init__(self, backend: Backend, max_batch_bytes: int, workers: int = 1) -> None:
        self._backend = backend
        self._workers = workers
        self._max_batch_bytes = max_batch_bytes
        self._batchers: dict[Signature, ThreadBatcher] = {}
        self._responder = Responder(backend)

    def infer(self, request: kserve.ModelInferRequest) -> kserve.ModelInferResponse:
        """Answer one request of KServe v2.

        Raises:
            InvalidArgumentError: a datatype or a byte count that cannot be right.
            RpcError: what the manager and the engine raise (NOT_FOUND, ...).
        """
        model = request.model_name
        try:
            inputs = decode(request)
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidArgumentError(f"bad input for model {model!r}: {error}") from None
        return self._responder.respond(model, self.run(model, inputs))

    def run(self, model: str, inputs: dict[str, Tensor]) -> list[Tensor]:
        """The outputs of one request, in the order of the model's; raises as :meth:`infer`."""
        signature = signature_of(model, inputs)
        batcher = self._batchers.get(signature)
        if batcher is None:
            limit = batch_rows(self._backend, model, inputs, self._max_batch_bytes)
            fresh = ThreadBatcher(self._backend.runner(model), limit, self._workers)
            batcher = self._batchers.setdefault(signature, fresh)  # another thread may have been faster
        return batcher.submit(inputs, len(next(iter(inputs.values()))))
