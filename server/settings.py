"""``server.toml`` and the flags of ``tensorwire serve``: read, merged, checked, compared.

Every refusal names where the value came from (file or flag), the key, what was found and what is allowed.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast, get_type_hints

import msgspec

from ..manager import ManagerConfig
from ..manager.decode import bad_value, decode, read_toml, unknown_key
from ..rpc.errors import InvalidArgumentError
from .config import ServingConfig

LogLevel = Literal["debug", "info", "warning", "error"]


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is logged: this level and above."""

    level: LogLevel = "info"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an operator can set about one server."""

    manager: ManagerConfig
    serving: ServingConfig = ServingConfig()
    log: LogConfig = LogConfig()


class Override(NamedTuple):
    """A value that goes before the file's; ``source`` is the flag that it came from."""

    key: str
    value: object
    source: str


class Change(NamedTuple):
    """One key that differs between two settings."""

    key: str
    old: object
    new: object
    #: It has no effect on a live server.
    restart: bool

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "serving": ServingConfig,
    "manager": ManagerConfig,
    "log": LogConfig,
}
#: Bound to the socket, the pump or the watcher when the server starts.
RESTART_KEYS: Final = frozenset(
    {
        "serving.bind",
        "serving.front_ends",
        "serving.max_frame_bytes",
        "serving.max_peer_bytes",
        "manager.repository",
    }
)
_SIZE_KEYS: Final = frozenset(
    {"serving.max_queued_bytes", "serving.max_frame_bytes", "serving.max_peer_bytes", "manager.ram_budget"}
)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(|[kmgt]?b|[kmgt]ib?)", re.IGNORECASE)
_SIZE_FORMS: Final = "bytes as a number, or text such as '512MiB' or '4GiB'"
_ADDRESS: Final = re.compile(r"tcp://(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5}|\*)|ipc://.+")
_ADDRESS_FORMS: Final = "tcp://HOST:PORT or ipc://PATH"
#: Stands in while the file is checked and the repository may still come from the command line.
_NO_REPOSITORY: Final = Path("\0")


def load_settings(config: Path | None, overrides: Iterable[Override] = ()) -> Settings:
    """Read the file, lay the flags over it, and check all of it.

    Raises:
        InvalidArgumentError: the file is not there or cannot be read, a key is unknown, a value is not
            allowed, or no repository was named.
    """
    settings = Settings(manager=ManagerConfig(repository=_NO_REPOSITORY))
    if config is not None:
        settings = _from_file(config)
    for override in overrides:
        settings = _override(settings, override)
    if settings.manager.repository == _NO_REPOSITORY:
        raise InvalidArgumentError(
            "no model repository was named; give it as the argument REPO"
            + (f" or as `repository` in [manager] of {config}" if config else "")
        )
    serving = settings.serving
    if serving.front_ends > 1 and not serving.bind.startswith("tcp://"):
        raise InvalidArgumentError(
            f"serving.front_ends: found {serving.front_ends}, but serving.bind is {serving.bind}, which has "
            "room for one; several front ends need tcp://HOST:PORT"
        )
    return settings


def assignment(text: str) -> Override:
    """``section.key=value``, as ``--set`` takes it; the value in TOML, quotes around strings not needed.

    Raises:
        InvalidArgumentError: no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidArgumentError(f"--set: found {text!r}; expected SECTION.KEY=VALUE")
    return Override(key.strip(), toml_value(value), "--set")


def toml_value(text: str) -> object:
    """A value as TOML has it; what is none is text, so that strings need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def changes(old: Settings, new: Settings) -> list[Change]:
    """The keys that differ, by section and name."""
    before, after = flat(old), flat(new)
    return [
        Change(key, before[key], after[key], key in RESTART_KEYS)
        for key in before
        if before[key] != after[key]
    ]


def applicable(old: Settings, new: Settings) -> Settings:
    """``new``, but with the values of ``old`` where a change needs a restart."""
    kept = [Override(change.key, change.old, "") for change in changes(old, new) if change.restart]
    for key, value, _ in kept:
        new = _replace(new, key, value)
    return new


def flat(settings: Settings) -> dict[str, object]:
    """``section.key`` -> value."""
    return {
        f"{section}.{field}": getattr(getattr(settings, section), field)
        for section, cls in SECTIONS.items()
        for field in cls.__struct_fields__
    }


def parse_size(key: str, text: str) -> int:
    """``"1.5 GiB"`` -> bytes. KiB, MiB, ... are powers of 1024, kB, MB, ... powers of 1000.

    Raises:
        InvalidArgumentError: it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise bad_value(key, text, _SIZE_FORMS)
    unit = match[2].lower()
    base = 1024 if "i" in unit else 1000
    power = "bkmgt".index(unit[0]) if unit else 0
    return int(float(match[1]) * base**power)


def _from_file(path: Path) -> Settings:
    if not path.is_file():
        raise InvalidArgumentError(f"{path}: no such configuration file; check --config")
    raw = read_toml(path)
    try:
        prepared = {
            section: {
                key: _prepare(f"{section}.{key}", value, path.parent)
                for key, value in cast("dict[str, object]", table).items()
            }
            if isinstance(table, dict)
            else table
            for section, table in raw.items()
        }
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{path}: {error.message}") from error
    manager = prepared.setdefault("manager", {})
    if isinstance(manager, dict):
        cast("dict[str, Any]", manager).setdefault("repository", _NO_REPOSITORY)
    return decode(prepared, Settings, source=path)


def _override(settings: Settings, override: Override) -> Settings:
    key, value, source = override
    section, _, field = key.partition(".")
    cls = SECTIONS.get(section)
    if cls is None:
        raise InvalidArgumentError(f"{source}: {unknown_key(section, SECTIONS).message}")
    if field not in cls.__struct_fields__:
        raise InvalidArgumentError(f"{source}: {unknown_key(key, cls.__struct_fields__).message}")
    try:
        value = _prepare(key, value, Path())
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{source}: {error.message}") from error
    hint = get_type_hints(cls, include_extras=True)[field]
    return _replace(settings, key, decode(value, hint, source=source, prefix=key))


def _replace(settings: Settings, key: str, value: object) -> Settings:
    section, _, field = key.partition(".")
    changed = msgspec.structs.replace(getattr(settings, section), **{field: value})
    return msgspec.structs.replace(settings, **{section: changed})


def _prepare(key: str, value: object, base: Path) -> object:
    """What msgspec cannot know: sizes in words, paths, addresses, and that TOML has inf and nan."""
    if key == "manager.ram_budget" and value == "none":
        return None
    if key in _SIZE_KEYS and isinstance(value, str):
        return parse_size(key, value)
    if key == "manager.repository":
        if not isinstance(value, str | Path) or not str(value):
            raise bad_value(key, value, "the path of a directory")
        return (base / value).absolute()
    if key == "serving.bind" and isinstance(value, str):
        match = _ADDRESS.fullmatch(value)
        if match is None or ((match["port"] or "*").isdigit() and int(match["port"]) > 65535):
            raise bad_value(key, value, _ADDRESS_FORMS)
    if isinstance(value, float) and not math.isfinite(value):
        raise bad_value(key, value, "a finite number")
    return value


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
