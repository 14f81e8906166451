"""In force: what can be set live about one model, who says what, and what its versions run with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from ..rpc.types import VersionStatus
from .handle import ServableHandle
from .intent import Intent
from .source import ModelScan
from .states import PENDING, State
from .tuning import KEYS, flat

Origin = Literal["default", "file", "live"]
#: When a changed value means that versions are loaded again. ``sizes``: if their warm-up has not covered it.
Reload = Literal["never", "sizes", "always"]

_RELOAD: Final[Mapping[str, Reload]] = {
    "workers.kind": "always",
    "workers.cpus": "always",
    "workers.device": "always",
    "batching.enabled": "always",
    "batching.max_batch_size": "sizes",
    "batching.allowed_batch_sizes": "sizes",
    "engine.intra_op_threads": "always",
    "engine.inter_op_threads": "always",
}


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a model.

    Attributes:
        value: what is wanted; ``None``: each version has it from its model.
        origin: who says so.
        file: what model.toml says; ``None``: nothing.
        reload: when a change of it means a load.
    """

    key: str
    value: Any
    origin: Origin
    file: Any = None
    reload: Reload = "never"


class VersionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one version runs with.

    Attributes:
        values: key -> value in force; empty where the version does not serve.
        warm_rows: the largest batch that its warm-up has covered.
        warm_sizes: the only sizes that it has covered; empty: all up to ``warm_rows``.
        pending: it will follow by itself: it loads, or its replacement does.
        failed: it does not follow.
        workers: how many there are at this moment; ``None``: not known, it has had no request.
        reason: why it waits or failed.
    """

    version: int
    state: str
    values: Mapping[str, Any] = {}
    warm_rows: int = 0
    warm_sizes: tuple[int, ...] = ()
    pending: bool = False
    failed: bool = False
    workers: int | None = None
    reason: str = ""


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one model.

    Attributes:
        transition: how its versions are loaded again.
        problem: why its directory or its model.toml could not be used.
    """

    model: str
    transition: str
    problem: str = ""
    settings: tuple[Setting, ...]
    versions: tuple[VersionSettings, ...] = ()


def model_settings(
    file: ModelScan,
    intent: Intent,
    serving: Mapping[int, ServableHandle],
    status: Iterable[VersionStatus],
) -> ModelSettings:
    """Put together what the parts of the manager know; all of these are immutable, so any thread may call."""
    wanted = {**flat(file.config), **intent.settings}
    return ModelSettings(
        model=file.name,
        transition=file.config.versions.transition,
        problem=file.problem,
        settings=tuple(_setting(key, wanted[key], file, intent) for key in KEYS),
        versions=tuple(
            _version(line, serving.get(line.version), wanted) for line in status if line.version >= 0
        ),
    )


def _setting(key: str, value: Any, file: ModelScan, intent: Intent) -> Setting:
    origin: Origin = "live" if key in intent.settings else "file" if key in file.written else "default"
    said = file.written.get(key)
    return Setting(key=key, value=value, origin=origin, file=said, reload=_RELOAD.get(key, "never"))


def _version(
    line: VersionStatus, handle: ServableHandle | None, wanted: Mapping[str, Any]
) -> VersionSettings:
    states = {line.state, line.replacement}
    pending = bool(PENDING & states)
    values = {} if handle is None else flat(handle.config)
    # What is not wanted explicitly is as the model has it.
    differs = any(wanted[key] not in (None, value) for key, value in values.items())
    return VersionSettings(
        version=line.version,
        state=line.state,
        values=values,
        warm_rows=0 if handle is None else handle.loaded.batching.max_batch_size or 1,
        warm_sizes=() if handle is None else handle.loaded.batching.allowed_batch_sizes,
        pending=pending,
        failed=State.FAILED in states or (differs and not pending),
        reason=line.reason,
    )
