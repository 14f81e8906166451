"""Tuning: live values, which operators lay over model.toml while a server runs, key by key.

A key is the dotted one of model.toml (``workers.count``). File and live values together are checked as a
whole by the code that checks the file. No state: who keeps the live values is ``Intent.settings``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from ..rpc.errors import InvalidArgumentError
from .config import BatchingConfig, LimitsConfig, ModelConfig, WorkersConfig
from .decode import decode, unknown_key

#: Key -> value, as it stands in a configuration.
Values = Mapping[str, Any]

#: What can be set live: section of model.toml -> its keys. The rest of ``[engine]`` says what the model is.
SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "workers": WorkersConfig.__struct_fields__,
    "batching": BatchingConfig.__struct_fields__,
    "limits": LimitsConfig.__struct_fields__,
    "engine": ("intra_op_threads", "inter_op_threads"),
}
KEYS: Final = tuple(f"{section}.{field}" for section, fields in SECTIONS.items() for field in fields)


def flat(config: ModelConfig) -> dict[str, Any]:
    """Every key that can be set live -> its value in a configuration."""
    return {
        f"{section}.{field}": getattr(getattr(config, section), field)
        for section, fields in SECTIONS.items()
        for field in fields
    }


def written(raw: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """The keys that model.toml names (``raw``: as parsed), with their values in ``config``."""
    values = flat(config)
    return {
        f"{section}.{field}": values[f"{section}.{field}"]
        for section, fields in SECTIONS.items()
        for field in fields
        if field in raw.get(section, ())
    }


def changed(live: Values, values: Values, reset: Iterable[str]) -> dict[str, Any]:
    """Live values after a command: without those in ``reset`` (keys, or whole sections), with ``values``.

    Raises:
        InvalidArgumentError: a key is unknown, or is to be set and reset at once.
    """
    for key in values:
        _check_key(key)
    gone = {key for name in reset for key in _named(name)}
    both = sorted(gone & values.keys())
    if both:
        raise InvalidArgumentError(f"{both[0]}: found in what is to be set and in what is to be reset")
    return {**{key: value for key, value in live.items() if key not in gone}, **values}


def lay_over(config: ModelConfig, live: Values, *, source: str) -> ModelConfig:
    """A configuration with live values in place of its own; ``source`` starts the error messages.

    Raises:
        InvalidArgumentError: a value is not allowed, or they contradict each other.
    """
    raw: dict[str, dict[str, Any]] = {}
    for key, value in live.items():
        section, _, field = key.partition(".")
        raw.setdefault(section, msgspec.structs.asdict(getattr(config, section)))[field] = value
    laid = decode(raw, ModelConfig, source=source)
    return msgspec.structs.replace(config, **{section: getattr(laid, section) for section in raw})


def outlasting(live: Values, before: Values, now: Values, config: ModelConfig) -> Values:
    """The live values that stay when model.toml changes: whoever spoke last wins.

    A key goes that the file says something else about, and a section that contradicts the file.

    Args:
        live: the live values until now.
        before: what the file said (:func:`written`).
        now: what it says.
        config: all of what it says.
    """
    same = {key: value for key, value in live.items() if _said(key, before) == _said(key, now)}
    kept = {key: value for key, value in same.items() if _fits(config, same, key.partition(".")[0])}
    return live if len(kept) == len(live) else kept


def _said(key: str, file: Values) -> tuple[Any, ...]:
    """Naming a default is not the same as not naming it."""
    return (file[key],) if key in file else ()


def _fits(config: ModelConfig, live: Values, section: str) -> bool:
    part = {key: value for key, value in live.items() if key.partition(".")[0] == section}
    try:
        lay_over(config, part, source="")
    except InvalidArgumentError:
        return False
    return True


def _check_key(key: str) -> None:
    section, _, field = key.partition(".")
    if section not in SECTIONS:
        raise unknown_key(section, SECTIONS)
    if field not in SECTIONS[section]:
        raise unknown_key(key, SECTIONS[section])


def _named(name: str) -> Collection[str]:
    """The keys that a key, or a section, stands for."""
    if name in SECTIONS:
        return [f"{name}.{field}" for field in SECTIONS[name]]
    _check_key(name)
    return [name]
