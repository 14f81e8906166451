"""The seam between the server and what computes: an engine loads a version, a servable runs batches of it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from ...rpc.types import ModelMetadata
from ..config import ModelConfig, WorkerKind, resolve_batching

Array = np.ndarray[Any, np.dtype[Any]]

#: Error texts from elsewhere are cut to this many characters: they travel in every failed reply.
_MAX_TEXT = 500


class Servable(Protocol):
    """One loaded version of a model. Workers call :meth:`run`."""

    @property
    def metadata(self) -> ModelMetadata:
        """Tensors, whether it can be batched, the largest batch."""
        ...

    @property
    def releases_gil(self) -> bool:
        """Computes without the GIL: thread workers, and running inside the front end, are fine."""
        ...

    @property
    def concurrent(self) -> bool:
        """:meth:`run` may be called by several threads at once."""
        ...

    @property
    def worker_kind(self) -> WorkerKind:
        """What runs its batches."""
        ...

    def prepare(self, config: ModelConfig, batch_sizes: Sequence[int]) -> None:
        """Make ready to serve; called once, after the warm-up.

        Args:
            config: the effective one; nothing in ``batching`` and ``workers`` is ``None``.
            batch_sizes: rows that the warm-up has run; empty where it does not run in batches.

        Raises:
            RpcError: it cannot serve with this configuration.
        """
        ...

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute one batch.

        Args:
            inputs: name to array; ``bytes``/``string`` tensors are object arrays of ``bytes``/``str``.
                Every non-optional input of the metadata, none that is not there. Not written to.
            outputs: names wanted, at least one.

        Returns:
            The wanted outputs in that order, C-contiguous, with the dtypes of the metadata. That a batched
            model gives a row for each row is for the caller to check: it may only have been inferred.

        Raises:
            InvalidArgumentError: these inputs can never succeed.
            RpcError: the model failed; ``InternalError`` unless the model chose another.
        """
        ...

    def close(self) -> None:
        """Give everything back. Called once, when nobody runs it any more."""
        ...


class Engine(Protocol):
    """Loads the versions of one kind of model."""

    @property
    def name(self) -> str:
        """``engine.kind`` in ``model.toml``."""
        ...

    @property
    def file(self) -> str:
        """Name of the file that this engine looks for in a version's directory."""
        ...

    @property
    def worker_kind(self) -> WorkerKind:
        """What best runs its models, where ``model.toml`` does not say."""
        ...

    def find(self, directory: Path) -> Path | None:
        """The model file in a version's directory, or ``None`` where there is nothing for this engine."""
        ...

    def estimate_ram(self, path: Path, config: ModelConfig) -> int:
        """Bytes of main memory that :meth:`load` may take at its peak, from the files alone.

        Raises:
            InvalidArgumentError: ``engine.options`` is wrong.
            OSError: the files cannot be read.
        """
        ...

    def load(self, path: Path, config: ModelConfig, *, name: str, version: int) -> Servable:
        """Load one version. ``config`` is as read; what depends on the model need not be resolved.

        Raises:
            InvalidArgumentError: the model or its configuration is wrong; one line with the remedy.
            FailedPreconditionError: something is missing on this machine.
        """
        ...


def with_batching(metadata: ModelMetadata, config: ModelConfig) -> ModelMetadata:
    """``metadata`` as clients see it once ``config`` has its say: batching off, or its largest batch.

    Raises:
        InvalidArgumentError: the configuration asks for batches and the model cannot do them.
    """
    batching = resolve_batching(config.batching, metadata)
    return msgspec.structs.replace(
        metadata,
        batched=bool(batching.enabled),
        max_batch_size=batching.max_batch_size if batching.enabled else None,
        description=config.description,
    )


def directory_bytes(directory: Path) -> int:
    """Size of all files below a version's directory, bytes: the model with its external data."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def one_line(text: object) -> str:
    """Someone else's error text as one line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 3] + "..."


def trim_heap() -> None:
    """Give freed memory back to the operating system (glibc; elsewhere nothing happens).

    Loading and unloading leave holes of the model's size in the heap that glibc would keep. Takes 0.1-10 ms.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
