"""An engine whose models are what a test says: no files are read, nothing is computed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorwire.manager.config import ModelConfig, WorkerKind
from tensorwire.rpc.errors import RpcError
from tensorwire.rpc.types import ModelMetadata, TensorSpec

Array = np.ndarray[Any, Any]
Compute = Callable[[dict[str, Array]], list[Array]]

X = TensorSpec("x", "float32", (None, 2))
Y = TensorSpec("y", "float32", (None, 2))


def identity(inputs: dict[str, Array]) -> list[Array]:
    return [next(iter(inputs.values()))]


class FakeServable:
    """Runs ``compute``; fails the test that runs it after ``close()``."""

    def __init__(
        self,
        name: str,
        version: int,
        *,
        batched: bool = True,
        inputs: Sequence[TensorSpec] = (X,),
        outputs: Sequence[TensorSpec] = (Y,),
        compute: Compute = identity,
        releases_gil: bool = True,
        concurrent: bool = True,
        worker_kind: WorkerKind = "thread",
    ) -> None:
        self.metadata = ModelMetadata(
            name=name,
            version=version,
            platform="fake",
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            batched=batched,
        )
        self.releases_gil = releases_gil
        self.concurrent = concurrent
        self.worker_kind: WorkerKind = worker_kind
        self.closed = 0
        self.runs: list[dict[str, Array]] = []
        self._compute = compute

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        if self.closed:
            raise AssertionError("run() after close()")
        self.runs.append(inputs)
        return self._compute(inputs)

    def prepare(self, config: ModelConfig, batch_sizes: Sequence[int]) -> None:
        self.prepared = (config, tuple(batch_sizes))

    def close(self) -> None:
        self.closed += 1


class FakeEngine:
    """Finds a model in every directory.

    ``failures[(model, version)]`` are raised by the next loads, one each; ``gates[(model, version)]`` hold
    a load until they are set; ``sizes`` and ``options`` are the estimates and the servables' arguments.
    """

    name = "fake"
    file = "model.fake"
    worker_kind: WorkerKind = "thread"

    def __init__(self) -> None:
        self.failures: dict[tuple[str, int], list[BaseException]] = {}
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.sizes: dict[tuple[str, int], int] = {}
        self.options: dict[tuple[str, int], dict[str, Any]] = {}
        self.loads: list[tuple[str, int]] = []
        self.servables: list[FakeServable] = []

    def finder(self, directory: Path, config: ModelConfig) -> tuple[FakeEngine, Path]:
        return self, directory / self.file

    def find(self, directory: Path) -> Path | None:
        return directory / self.file

    def estimate_ram(self, path: Path, config: ModelConfig) -> int:
        key = (path.parent.parent.name, int(path.parent.name))
        processes = self.options.get(key, {}).get("worker_kind") == "process"
        return self.sizes.get(key, 100) * ((config.workers.count or 1) if processes else 1)

    def load(self, path: Path, config: ModelConfig, *, name: str, version: int) -> FakeServable:
        key = (name, version)
        self.loads.append(key)
        gate = self.gates.get(key)
        if gate is not None and not gate.wait(30):
            raise AssertionError(f"nobody opened the gate of {key}")
        failures = self.failures.get(key)
        if failures:
            raise failures.pop(0)
        servable = FakeServable(name, version, **self.options.get(key, {}))
        self.servables.append(servable)
        return servable

    def alive(self) -> list[tuple[str, int]]:
        """(model, version) of every servable that is not closed."""
        return [(s.metadata.name, s.metadata.version) for s in self.servables if not s.closed]


def add_version(repository: Path, model: str, version: int, content: str = "model") -> Path:
    """Write one version into a repository."""
    directory = repository / model / str(version)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FakeEngine.file).write_text(content)
    return directory


def fail_with(error: RpcError) -> Compute:
    def compute(inputs: dict[str, Array]) -> list[Array]:
        raise error

    return compute
