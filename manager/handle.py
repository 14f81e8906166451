"""ServableHandle: one served version with counted references."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..rpc.errors import UnavailableError
from ..rpc.types import ModelMetadata
from .config import ModelConfig, WorkerKind

if TYPE_CHECKING:
    from .engines.base import Servable


class ClosedServable:
    """Stands in for a servable that was unloaded, so that a stale handle holds no memory."""

    releases_gil = True
    concurrent = True
    worker_kind: WorkerKind = "thread"

    def __init__(self, metadata: ModelMetadata) -> None:
        self.metadata = metadata

    def run(
        self, inputs: dict[str, np.ndarray[Any, Any]], outputs: Sequence[str]
    ) -> list[np.ndarray[Any, Any]]:
        """Always fails.

        Raises:
            UnavailableError: the version was unloaded.
        """
        del inputs, outputs
        raise UnavailableError(
            f"version {self.metadata.version} of model {self.metadata.name!r} was unloaded; "
            "call the default version or one that `tensorwire models` lists as AVAILABLE"
        )

    def prepare(self, config: ModelConfig, batch_sizes: Sequence[int]) -> None:
        """Nothing serves any more."""

    def close(self) -> None:
        """Nothing is left to free."""


class ServableHandle:
    """One version that serves, or served until a moment ago.

    Whoever runs the servable holds a reference: ``acquire()`` before, ``release()`` after. The memory is
    given back when unloading has begun and the count is zero.

    Attributes:
        model: model name.
        version: version number.
        servable: the loaded model.
        config: the effective configuration: nothing in ``batching`` and ``workers`` is ``None``. Replaced
            as a whole when limits, workers, batch sizes, queue delay or description change on a live server.
        loaded: the effective configuration that it was loaded and warmed up with; it stays.
        metadata: what clients are told; ``batched`` and ``max_batch_size`` are the effective ones.
        costs: rows -> seconds that one run took in the warm-up (the best of a few).
        ram_bytes: memory reserved for it in the budget.
        slot: the server's own state for this version; opaque to the manager.
    """

    __slots__ = (
        "_closing",
        "_lock",
        "_on_idle",
        "_references",
        "config",
        "costs",
        "loaded",
        "metadata",
        "model",
        "ram_bytes",
        "servable",
        "slot",
        "version",
    )

    def __init__(
        self,
        model: str,
        version: int,
        servable: Servable,
        config: ModelConfig,
        *,
        metadata: ModelMetadata | None = None,
        costs: Mapping[int, float] | None = None,
        ram_bytes: int = 0,
    ) -> None:
        self.model = model
        self.version = version
        self.servable: Servable = servable
        self.config = config
        self.loaded: Final = config
        self.metadata = servable.metadata if metadata is None else metadata
        self.costs: Mapping[int, float] = MappingProxyType(dict(costs or {}))
        self.ram_bytes = ram_bytes
        self.slot: object | None = None
        self._lock = threading.Lock()
        self._references = 0
        self._closing = False
        self._on_idle: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<ServableHandle {self.model}:{self.version} references={self._references}>"

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"model {self.model!r} version {self.version}"

    @property
    def references(self) -> int:
        """References held at this moment."""
        return self._references

    @property
    def closing(self) -> bool:
        """Unloading has begun; ``acquire()`` gives ``False`` from now on."""
        return self._closing

    def acquire(self) -> bool:
        """Take a reference; ``False`` once unloading has begun: then resolve again in the newest snapshot."""
        with self._lock:
            if self._closing:
                return False
            self._references += 1
            return True

    def release(self) -> None:
        """Give a reference back.

        Raises:
            RuntimeError: more references were given back than were taken.
        """
        with self._lock:
            if self._references <= 0:
                raise RuntimeError(f"{self!r}: release() without acquire()")
            self._references -= 1
            notify = self._take_notification() if self._closing else None
        if notify is not None:
            notify()

    def begin_close(self, on_idle: Callable[[], None]) -> None:
        """Refuse new references; call ``on_idle`` once, from whichever thread brings the count to zero."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._on_idle = on_idle
            notify = self._take_notification()
        if notify is not None:
            notify()

    def close_servable(self) -> None:
        """Close the servable and let go of it. Called once, when nobody holds a reference."""
        servable = self.servable
        self.servable = ClosedServable(self.metadata)
        servable.close()

    def _take_notification(self) -> Callable[[], None] | None:
        if self._references:
            return None
        notify, self._on_idle = self._on_idle, None
        return notify
