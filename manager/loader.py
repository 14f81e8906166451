"""Loader: knows how to bring one version into memory, and what that takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..rpc.errors import InvalidArgumentError
from ..rpc.types import ModelMetadata
from .config import ModelConfig, resolve, resolve_batching
from .handle import ServableHandle
from .warmup import NotBatchable, WarmUp, batch_sizes, load_samples

if TYPE_CHECKING:
    from .engines.base import Engine, Servable

_log = logging.getLogger("tensorwire.manager")

EngineFinder = Callable[[Path, ModelConfig], "tuple[Engine, Path]"]


def find_engine(directory: Path, config: ModelConfig) -> tuple[Engine, Path]:
    """The registry's ``engine_for``, imported when the first model loads."""
    from .engines import engine_for

    return engine_for(directory, config)


class Loader:
    """Estimates, loads and warms up one version. Its methods block; call them on a load thread.

    Args:
        model: model name.
        version: version number.
        directory: the version directory.
        config: the model's model.toml.
        finder: finds the engine for a directory.
        timer: seconds, for measuring the warm-up.
    """

    def __init__(
        self,
        model: str,
        version: int,
        directory: Path,
        config: ModelConfig,
        *,
        finder: EngineFinder = find_engine,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.model = model
        self.version = version
        self.directory = directory
        self.config = config
        self._finder = finder
        self._timer = timer

    def estimate(self, config: ModelConfig | None = None) -> int:
        """Bytes of memory that the version will take; with ``config``, that it would take with that.

        Raises:
            RpcError: the directory holds no model that an engine knows.
        """
        config = config or self.config
        engine, path = self._finder(self.directory, config)
        return engine.estimate_ram(path, config)

    def load(self) -> Servable:
        """Read the model.

        Raises:
            RpcError: the engine cannot load it; the message says why.
        """
        engine, path = self._finder(self.directory, self.config)
        return engine.load(path, self.config, name=self.model, version=self.version)

    def warm_up(
        self, servable: Servable, *, ram_bytes: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> ServableHandle:
        """Run the servable at every batch size; gives the handle that serves it.

        Where batching was only inferred from the model and does not work, it is switched off.

        Raises:
            RpcError: the model failed, or cannot be batched although ``[batching]`` asks for it.
            AbortedError: ``stop`` said so.
        """
        metadata = servable.metadata
        effective = self._resolved(servable, metadata)
        samples = load_samples(self.directory, metadata)
        warm_up = WarmUp(servable, samples, stop=stop, timer=self._timer)
        batching = effective.batching
        if not batching.enabled:
            return self._handle(servable, effective, warm_up.run_single(), (), ram_bytes)
        sizes = batch_sizes(batching.max_batch_size or 1, batching.allowed_batch_sizes)
        try:
            if not self.config.batching.enabled and sizes[-1] > 1:
                warm_up.check_independence()
            costs = warm_up.run_batches(sizes)
        except NotBatchable as error:
            effective, sizes = self._unbatched(servable, error), ()
            costs = warm_up.run_single()
        return self._handle(servable, effective, costs, sizes, ram_bytes)

    def _resolved(self, servable: Servable, metadata: ModelMetadata) -> ModelConfig:
        return resolve(self.config, metadata, concurrent=servable.concurrent, kind=servable.worker_kind)

    def _unbatched(self, servable: Servable, error: NotBatchable) -> ModelConfig:
        wanted = self.config.batching
        if wanted.enabled or wanted.max_batch_size is not None or wanted.allowed_batch_sizes:
            raise InvalidArgumentError(
                f"cannot be batched: {error.message}; set `[batching] enabled = false` in model.toml"
            ) from error
        _log.warning(
            "%s:%d: serving without batches: %s; `[batching] enabled = false` in model.toml silences this",
            self.model,
            self.version,
            error.message,
        )
        single = msgspec.structs.replace(servable.metadata, batched=False)
        return self._resolved(servable, single)

    def _handle(
        self,
        servable: Servable,
        effective: ModelConfig,
        costs: Mapping[int, float],
        sizes: Sequence[int],
        ram_bytes: int,
    ) -> ServableHandle:
        servable.prepare(effective, sizes)
        metadata = effective_metadata(servable.metadata, effective)
        return ServableHandle(
            self.model,
            self.version,
            servable,
            effective,
            metadata=metadata,
            costs=costs,
            ram_bytes=ram_bytes,
        )


def effective_metadata(metadata: ModelMetadata, effective: ModelConfig) -> ModelMetadata:
    """What clients are told: the model's own description with what model.toml decides."""
    batched = bool(effective.batching.enabled)
    return msgspec.structs.replace(
        metadata,
        batched=batched,
        max_batch_size=effective.batching.max_batch_size if batched else None,
        description=effective.description or metadata.description,
    )


def needs_reload(old: ModelConfig, new: ModelConfig, handle: ServableHandle | None = None) -> bool:
    """Whether a change of settings means loading again, rather than going on with new numbers.

    ``handle``: of a version that serves under ``old``. Other batch sizes are numbers to it if its warm-up has
    covered them. Those beyond go through a load, which warms up before anything serves: a size that does not
    work, or takes too much memory, fails there, while the version goes on with the sizes that it has.
    """
    if _load_part(old) != _load_part(new):
        return True
    if _sizes(old) == _sizes(new):
        return False
    return handle is None or not _covered(handle, new)


def _load_part(config: ModelConfig) -> tuple[object, ...]:
    workers = config.workers
    return (
        config.engine,
        config.batching.enabled,
        (workers.kind, workers.cpus, workers.device),
        config.inputs,
        config.outputs,
    )


def _sizes(config: ModelConfig) -> tuple[object, ...]:
    return config.batching.max_batch_size, config.batching.allowed_batch_sizes


def _covered(handle: ServableHandle, config: ModelConfig) -> bool:
    """Whether a version can go on with these batch sizes: those it was loaded with allow each of them."""
    warm = handle.loaded.batching
    if not warm.enabled:
        return False
    wanted = resolve_batching(config.batching, handle.servable.metadata)
    if not warm.allowed_batch_sizes:
        return (wanted.max_batch_size or 1) <= (warm.max_batch_size or 1)
    return bool(wanted.allowed_batch_sizes) and {*wanted.allowed_batch_sizes} <= {*warm.allowed_batch_sizes}


def refusal(handle: ServableHandle, old: ModelConfig, new: ModelConfig) -> str:
    """Why a version that serves under ``old`` cannot take ``new``, at once or after a load; empty if it can,
    as far as that is known beforehand."""
    servable = handle.servable
    metadata = msgspec.structs.replace(servable.metadata, batched=_batchable(handle, old, new))
    kind = new.workers.kind or servable.worker_kind
    # Of a model in processes it is not known here whether its threads could share it: the load will tell.
    concurrent = servable.concurrent or kind == "process"
    try:
        resolve(new, metadata, concurrent=concurrent, kind=kind)
    except InvalidArgumentError as error:
        return error.message
    return ""


def _batchable(handle: ServableHandle, old: ModelConfig, new: ModelConfig) -> bool:
    if old.batching.enabled is False:
        return True  # it was not asked: the load will tell
    if new.batching.enabled:
        return handle.servable.metadata.batched
    return bool(handle.config.batching.enabled)


def apply_live(handle: ServableHandle, config: ModelConfig) -> bool:
    """Give a serving version what changed settings can change without a load; false if nothing did.

    Raises:
        InvalidArgumentError: the new values do not suit the model.
    """
    old = handle.config
    metadata = handle.servable.metadata
    servable = handle.servable
    resolved = resolve(
        config, _matching(metadata, old), concurrent=servable.concurrent, kind=servable.worker_kind
    )
    new = msgspec.structs.replace(resolved, engine=old.engine)
    if new == old:
        return False
    handle.config = new
    handle.metadata = effective_metadata(metadata, new)
    return True


def _matching(metadata: ModelMetadata, effective: ModelConfig) -> ModelMetadata:
    return msgspec.structs.replace(metadata, batched=bool(effective.batching.enabled))
