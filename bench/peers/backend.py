"""Models for peers that are only an RPC layer: tensorwire's own manager, handles and engines behind them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from ...manager import Manager, ManagerConfig, ServableHandle
from ...rpc.errors import UnavailableError

Tensor = np.ndarray[Any, np.dtype[Any]]
_NO_TURN: Final = nullcontext()
#: A version may be retired between being looked up and being taken; its successor is there by then.
_TRIES: Final = 3


class Backend(Protocol):
    """What an RPC layer needs to know about models. Unknown models raise ``NotFoundError``."""

    def max_batch_size(self, model: str) -> int:
        """Rows of the largest batch that the model takes."""
        ...

    def output_names(self, model: str) -> tuple[str, ...]:
        """Names of the outputs, in the order in which the runner gives them."""
        ...

    def version(self, model: str) -> int:
        """The version that is served."""
        ...

    def runner(self, model: str) -> Callable[[dict[str, Tensor]], list[Tensor]]:
        """A function that runs one batch."""
        ...


class ManagerBackend:
    """A repository served by :class:`tensorwire.manager.Manager`; a context manager."""

    def __init__(self, repository: Path, *, ready_timeout: float = 30.0) -> None:
        self._manager = Manager(ManagerConfig(repository=repository))
        self._ready_timeout = ready_timeout
        self._turns: dict[tuple[str, int], threading.Lock] = {}
        #: Model -> rows and batches that were run; not exact where several threads run them.
        self.counted: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> ManagerBackend:
        self._manager.start()
        if not self._manager.wait_ready(self._ready_timeout):
            self._manager.close()
            raise TimeoutError(f"the models were not ready within {self._ready_timeout:g} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def max_batch_size(self, model: str) -> int:
        return self._handle(model).config.batching.max_batch_size or 1

    def output_names(self, model: str) -> tuple[str, ...]:
        return tuple(spec.name for spec in self._handle(model).servable.metadata.outputs)

    def version(self, model: str) -> int:
        return self._handle(model).version

    def runner(self, model: str) -> Callable[[dict[str, Tensor]], list[Tensor]]:
        names = self.output_names(model)

        def run(inputs: dict[str, Tensor]) -> list[Tensor]:
            handle = self._acquired(model)
            rows, batches = self.counted.get(model, (0, 0))
            self.counted[model] = rows + len(next(iter(inputs.values()))), batches + 1
            try:
                with self._turn(handle):
                    return handle.servable.run(inputs, names)
            finally:
                handle.release()

        return run

    def _acquired(self, model: str) -> ServableHandle:
        """Looked up per batch, as tensorwire does, so that a version swap is followed."""
        for _ in range(_TRIES):
            handle = self._handle(model)
            if handle.acquire():
                return handle
        raise UnavailableError(f"model {model!r} is being unloaded")

    def _turn(self, handle: ServableHandle) -> AbstractContextManager[object]:
        """Models that take one call at a time get them so."""
        if handle.servable.concurrent:
            return _NO_TURN
        return self._turns.setdefault((handle.model, handle.version), threading.Lock())

    def _handle(self, model: str) -> ServableHandle:
        return self._manager.snapshot.resolve(model, None, None, None, 0.0)
