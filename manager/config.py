"""``model.toml``: how one model of the repository is run. Everything has a default.

What can be read from the model itself (names, dtypes, shapes, whether it can be batched) need not be
written. Values of ``None`` are filled in by :func:`resolve` once the model is loaded.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ..rpc.errors import InvalidArgumentError
from ..rpc.types import DTYPE_NAMES, FIXED_DTYPES, ModelMetadata, TensorSpec
from .decode import bad_value, decode, read_toml

#: Upper end of the derived ``max_batch_size``, rows.
DEFAULT_MAX_BATCH_SIZE: Final = 256
#: The derived ``max_batch_size`` keeps the input block of one batch within this many bytes.
DEFAULT_BATCH_BYTES: Final = 1 << 20
DEFAULT_WORKERS: Final = 4
#: What a ``bytes``/``string`` element is taken for where a size has to be guessed, bytes.
_OBJECT_BYTES: Final = 32
_CPU_RANGE: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
_DEVICE: Final = re.compile(r"\d{1,4}|(?:GPU|MIG)-[0-9A-Za-z/-]{1,120}")
_LABEL: Final = re.compile(r"(?=.*[^0-9])[A-Za-z0-9_.-]{1,64}")

if TYPE_CHECKING:
    _DtypeName = str
else:  # msgspec needs the names, a type checker cannot compute them
    _DtypeName = Literal[tuple(sorted(DTYPE_NAMES))]

EngineKind = Literal["onnxruntime", "python"]
WorkerKind = Literal["thread", "process"]
Positive = Annotated[int, Meta(ge=1)]
Version = Annotated[int, Meta(ge=0)]
Threads = Annotated[int, Meta(ge=1, le=1024)]


class BatchingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are put together into batches.

    ``enabled=None`` means: if the model can. ``max_batch_size`` is in rows; ``max_queue_delay`` in seconds
    is how long an idle worker waits for a fuller batch (0 = never). ``allowed_batch_sizes``: batches are
    padded up to the next of these; ascending, the last one is ``max_batch_size``.
    """

    enabled: bool | None = None
    max_batch_size: Positive | None = None
    max_queue_delay: Annotated[float, Meta(ge=0, le=10)] = 0.0
    allowed_batch_sizes: tuple[Positive, ...] = ()

    def __post_init__(self) -> None:
        sizes = self.allowed_batch_sizes
        if not math.isfinite(self.max_queue_delay):
            raise bad_value("batching.max_queue_delay", self.max_queue_delay, "a number >= 0 and <= 10")
        if not sizes:
            return
        if list(sizes) != sorted(set(sizes)):
            raise bad_value("batching.allowed_batch_sizes", list(sizes), "ascending sizes, each once")
        if self.max_batch_size not in (None, sizes[-1]):
            allowed = f"max_batch_size = {self.max_batch_size} as the last"
            raise bad_value("batching.allowed_batch_sizes", list(sizes), allowed)
        if self.enabled is False:
            raise bad_value("batching.allowed_batch_sizes", list(sizes), "none, because enabled = false")


class WorkersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs the batches.

    ``kind=None``: processes for Python models, threads for engines that compute without the interpreter's
    lock. ``count=None``: a thread per CPU core, at most 4; 1 if the model takes one call at a time, and of
    processes. ``cpus``: the cores that they may use, such as ``"0-3,6"``; None: those of the server.
    ``device``: the GPUs that processes take in turn, such as ``"0,1"``, each of them one; None: they see
    those that the server sees. ``hang_timeout``: a worker process that has been busy with one batch for so
    many seconds is replaced; 0: never.
    """

    kind: WorkerKind | None = None
    count: Threads | None = None
    cpus: str | None = None
    device: str | None = None
    hang_timeout: Annotated[float, Meta(ge=0, le=86_400)] = 60.0

    def __post_init__(self) -> None:
        if self.cpus is not None:
            parse_cpus(self.cpus)
        if self.device is not None:
            parse_devices(self.device)


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which engine runs the model, and how.

    ``kind=None``: found from the files of the version. Thread counts are per worker call (default 1).
    ``options`` belongs to the engine, which checks it; a Python model gets it in ``load()``.
    """

    kind: EngineKind | None = None
    intra_op_threads: Threads | None = None
    inter_op_threads: Threads | None = None
    options: dict[str, Any] = {}


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Admission limits of each version: rows waiting in the queue, requests accepted and not yet answered."""

    max_queued_rows: Positive = 8192
    max_in_flight: Positive = 16384


class VersionsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions are served: the ``count`` highest, all, or the ``specific`` ones.

    ``transition``: load the new before the old is unloaded (``availability``), or the other way round.
    """

    policy: Literal["latest", "all", "specific"] = "latest"
    count: Positive = 1
    specific: tuple[Version, ...] = ()
    transition: Literal["availability", "resource"] = "availability"

    def __post_init__(self) -> None:
        if self.policy == "specific":
            if not self.specific or len(set(self.specific)) != len(self.specific):
                allowed = "version numbers, each once, with policy = 'specific'"
                raise bad_value("versions.specific", list(self.specific), allowed)
        elif self.specific:
            raise bad_value("versions.specific", list(self.specific), f"none with policy = {self.policy!r}")
        if self.policy != "latest" and self.count != 1:
            raise bad_value("versions.count", self.count, f"no count with policy = {self.policy!r}")


class RouteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go that name neither version nor label.

    ``targets``: label, or version number as a string, to weight; weights need not add up to 1. ``sticky``:
    requests with the same routing key go to the same target. ``shadow`` gets a copy of ``shadow_fraction``
    (0-1] of the requests, and its answers are dropped.
    """

    targets: dict[str, float]
    sticky: bool = False
    shadow: str | None = None
    shadow_fraction: float = 1.0

    def __post_init__(self) -> None:
        if not self.targets:
            raise bad_value("route.targets", self.targets, "at least one label or version with its weight")
        for target, weight in self.targets.items():
            check_target(f"route.targets.{target}", target)
            if not (math.isfinite(weight) and weight > 0):
                raise bad_value(f"route.targets.{target}", weight, "a weight > 0")
        if self.shadow is not None:
            check_target("route.shadow", self.shadow)
            if self.shadow in self.targets:
                raise bad_value("route.shadow", self.shadow, "a label or version that is no target")
        if not 0 < self.shadow_fraction <= 1:
            raise bad_value("route.shadow_fraction", self.shadow_fraction, "a number > 0 and <= 1")


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``model.toml`` can say.

    ``inputs``/``outputs`` declare the tensors of a Python model that does not do so itself.
    """

    description: str = ""
    engine: EngineConfig = EngineConfig()
    batching: BatchingConfig = BatchingConfig()
    workers: WorkersConfig = WorkersConfig()
    limits: LimitsConfig = LimitsConfig()
    versions: VersionsConfig = VersionsConfig()
    labels: dict[str, Version] = {}
    route: RouteConfig | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __post_init__(self) -> None:
        for label in self.labels:
            check_label(f"labels.{label}", label)
        for key, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise bad_value(f"{key}.name", names, "each name once")


class _TensorTable(msgspec.Struct, frozen=True, kw_only=True):
    """One ``[[inputs]]`` table. TOML has no null, so -1 stands for a dimension of any size."""

    name: Annotated[str, Meta(min_length=1)]
    dtype: _DtypeName
    shape: tuple[Annotated[int, Meta(ge=-1)], ...]
    optional: bool = False

    def spec(self) -> TensorSpec:
        shape = tuple(None if dim < 0 else dim for dim in self.shape)
        return TensorSpec(self.name, self.dtype, shape, self.optional)


class _TensorTables(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[_TensorTable, ...] = ()
    outputs: tuple[_TensorTable, ...] = ()


def load_model_config(path: Path) -> ModelConfig:
    """Read and check one ``model.toml``; a missing file gives the defaults.

    Raises:
        InvalidArgumentError: names the file, the key, what was found and what is allowed.
    """
    return parse_model_config(read_toml(path), source=path)


def parse_model_config(raw: dict[str, Any], *, source: str | Path) -> ModelConfig:
    """The same for values that are parsed already; ``source`` starts the error messages."""
    rest = {**raw}
    declared = {key: rest.pop(key) for key in ("inputs", "outputs") if key in rest}
    tables = decode(declared, _TensorTables, source=source)
    try:
        return msgspec.structs.replace(
            decode(rest, ModelConfig, source=source),
            inputs=tuple(table.spec() for table in tables.inputs),
            outputs=tuple(table.spec() for table in tables.outputs),
        )
    except InvalidArgumentError as error:
        if error.message.startswith(f"{source}: "):
            raise
        raise InvalidArgumentError(f"{source}: {error.message}") from error


def parse_cpus(text: str) -> frozenset[int]:
    """``"0-2,5"`` -> ``{0, 1, 2, 5}``.

    Raises:
        InvalidArgumentError: it is not such a list, or names no core.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _CPU_RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise bad_value("workers.cpus", text, "core numbers and ranges, such as '0-3,6'")
        found.update(range(first, last + 1))
    return frozenset(found)


def parse_devices(text: str) -> tuple[str, ...]:
    """``"0, 1"`` -> ``("0", "1")``; GPUs by number, or by the identifier that ``nvidia-smi -L`` shows.

    Raises:
        InvalidArgumentError: it is not such a list, or names one twice.
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(map(_DEVICE.fullmatch, found)) or len(set(found)) < len(found):
        raise bad_value("workers.device", text, "GPUs by number or identifier, each once, such as '0,1'")
    return found


def check_label(key: str, label: str) -> None:
    """Refuse a label that could be taken for a version number or does not fit into a URL or a metric."""
    if not _LABEL.fullmatch(label):
        raise bad_value(key, label, "a label of 1-64 letters, digits, '_', '.', '-', not digits only")


def check_target(key: str, target: str) -> None:
    """Refuse what is neither a version number nor a label."""
    if not (target.isascii() and target.isdigit()):
        check_label(key, target)


def resolve(
    config: ModelConfig, metadata: ModelMetadata, *, concurrent: bool, kind: WorkerKind = "thread"
) -> ModelConfig:
    """Fill in what depends on the loaded model; afterwards these are concrete, never ``None``:

    ``batching.enabled``; ``batching.max_batch_size`` (1 where batching is off: every request then runs
    alone, whatever its rows); ``workers.kind`` and ``count``; ``engine.intra_op_threads`` and
    ``inter_op_threads``.

    Args:
        config: as read from ``model.toml``.
        metadata: of the loaded model.
        concurrent: whether the servable takes several calls at once.
        kind: what runs its batches.

    Raises:
        InvalidArgumentError: the configuration asks for something that this model cannot do.
    """
    engine = msgspec.structs.replace(
        config.engine,
        intra_op_threads=config.engine.intra_op_threads or 1,
        inter_op_threads=config.engine.inter_op_threads or 1,
    )
    return msgspec.structs.replace(
        config,
        engine=engine,
        batching=resolve_batching(config.batching, metadata),
        workers=_resolve_workers(config.workers, metadata, concurrent, kind),
    )


def resolve_batching(batching: BatchingConfig, metadata: ModelMetadata) -> BatchingConfig:
    """The batching part of :func:`resolve`."""
    if batching.enabled and not metadata.batched:
        raise bad_value(
            f"model {metadata.name!r}: batching.enabled",
            True,
            "false, because not every input and output has a first dimension of any size",
        )
    if batching.enabled is False or not metadata.batched:
        if batching.allowed_batch_sizes or (batching.max_batch_size or 1) > 1:
            raise bad_value(
                f"model {metadata.name!r}: batching.max_batch_size",
                batching.max_batch_size or batching.allowed_batch_sizes[-1],
                "none, because this model is not batched",
            )
        return msgspec.structs.replace(batching, enabled=False, max_batch_size=1)
    sizes = batching.allowed_batch_sizes
    limit = batching.max_batch_size or (sizes[-1] if sizes else derive_max_batch_size(metadata.inputs))
    return msgspec.structs.replace(batching, enabled=True, max_batch_size=limit)


def derive_max_batch_size(inputs: tuple[TensorSpec, ...]) -> int:
    """Rows of input that fit into :data:`DEFAULT_BATCH_BYTES`, as a power of two, 1-256.

    Small rows gain from large batches (the cost per batch is shared), large rows only wait for each other.
    Dimensions of any size count as 1.
    """
    row = 0
    for spec in inputs:
        dtype = FIXED_DTYPES.get(spec.dtype)
        row += math.prod(dim or 1 for dim in spec.shape[1:]) * (dtype.itemsize if dtype else _OBJECT_BYTES)
    rows = min(DEFAULT_MAX_BATCH_SIZE, DEFAULT_BATCH_BYTES // max(1, row))
    return 1 << max(0, rows.bit_length() - 1)


def _resolve_workers(
    workers: WorkersConfig, metadata: ModelMetadata, concurrent: bool, kind: WorkerKind
) -> WorkersConfig:
    workers = msgspec.structs.replace(workers, kind=kind)
    if workers.device is not None and kind != "process":
        raise bad_value(
            f"model {metadata.name!r}: workers.device",
            workers.device,
            "none, because its workers are threads, which share what the server sees: give it workers.kind = "
            "'process', or name the device in engine.options",
        )
    if workers.count is not None:
        if workers.count > 1 and not concurrent:
            raise bad_value(
                f"model {metadata.name!r}: workers.count",
                workers.count,
                "1, because this model takes one call at a time: give it workers.kind = 'process', "
                "or let a Python model set concurrent = True",
            )
        return workers
    # Each process has the whole model in memory: more than one is the operator's choice.
    several = concurrent and kind == "thread"
    count = min(DEFAULT_WORKERS, len(os.sched_getaffinity(0))) if several else 1
    return msgspec.structs.replace(workers, count=count)
