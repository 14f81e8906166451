"""Strict reading of configuration: raw values in, validated frozen structs out.

Every refusal names the source (a file), the key, what was found and what is allowed, on one line.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect

from ..rpc.errors import InvalidArgumentError

T = TypeVar("T")

_PATH_SUFFIX: Final = re.compile(r" - at `(?:key` in `)?\$([^`]*)`$")
_SEGMENT: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_SCALARS: Final[dict[type[inspect.Type], str]] = {
    inspect.BoolType: "true or false",
    inspect.NoneType: "nothing",
    inspect.AnyType: "any value",
}


def bad_value(key: str, found: object, allowed: str) -> InvalidArgumentError:
    """The error for one bad configuration value; ``key`` is its full dotted path."""
    return InvalidArgumentError(f"{key}: found {found!r}; expected {allowed}")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; a missing file is an empty table.

    Raises:
        InvalidArgumentError: not readable, not UTF-8 or not TOML; names the file and the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidArgumentError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgumentError(f"{path}: not valid TOML: {error}") from error


def decode(raw: object, cls: type[T], *, source: str | Path, prefix: str = "") -> T:
    """Convert plain values (of TOML or msgpack) to ``cls``, strictly.

    Args:
        raw: what the parser gave.
        cls: a ``msgspec.Struct`` class, or any type that msgspec takes.
        source: file (or other origin) that starts the error message.
        prefix: dotted key of ``raw`` itself, where it is a part of something larger.

    Raises:
        InvalidArgumentError: an unknown key (the known ones are listed), a wrong type, a value out of
            bounds, or values that contradict each other.
    """
    schema = _schema_of(cls)
    try:
        _refuse_unknown(raw, schema, prefix)
        return msgspec.convert(raw, cls)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{source}: {error.message}") from error
    except msgspec.ValidationError as error:
        raise InvalidArgumentError(f"{source}: {_explain(error, raw, schema, prefix)}") from error


@functools.cache
def _schema_of(cls: type[Any]) -> inspect.Type:
    """What msgspec knows of a type. To find out takes some milliseconds, and the poller asks every second."""
    return inspect.type_info(cls)


def unknown_key(key: str, known: Iterable[str]) -> InvalidArgumentError:
    """The error for a key that does not exist; lists the known ones and guesses which was meant."""
    names = sorted(known)
    close = difflib.get_close_matches(key.rpartition(".")[2], names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return InvalidArgumentError(f"{key}: unknown key{hint}; known keys are {', '.join(names)}")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _struct_of(schema: inspect.Type) -> inspect.StructType | None:
    """The struct behind ``Struct`` or ``Struct | None``; ``None`` for anything else."""
    options = schema.types if isinstance(schema, inspect.UnionType) else (schema,)
    return next((option for option in options if isinstance(option, inspect.StructType)), None)


def _refuse_unknown(raw: object, schema: inspect.Type, prefix: str) -> None:
    if isinstance(schema, inspect.VarTupleType | inspect.ListType) and isinstance(raw, list | tuple):
        for index, item in enumerate(cast("list[object]", raw)):
            _refuse_unknown(item, schema.item_type, f"{prefix}[{index}]")
        return
    struct = _struct_of(schema)
    if struct is None or not isinstance(raw, dict):
        return
    fields = {field.encode_name: field.type for field in struct.fields}
    for key, value in cast("dict[str, object]", raw).items():
        if key not in fields:
            raise unknown_key(_join(prefix, key), fields)
        _refuse_unknown(value, fields[key], _join(prefix, key))


def _explain(error: msgspec.ValidationError, raw: object, schema: inspect.Type, prefix: str) -> str:
    """Say the same as msgspec, with the value that was found and everything that is allowed there."""
    text = str(error)
    match = _PATH_SUFFIX.search(text)
    path = match[1] if match else ""
    key = (prefix + path if prefix else path.lstrip(".")).replace("[...]", "") or "the whole"
    if text.startswith("Object missing required field"):
        return f"{key}: {text[: match.start() if match else None].replace('Object missing', 'missing')}"
    found = raw
    for name, index in _SEGMENT.findall(path):
        if index == "...":  # msgspec does not say which value of a mapping it was: show them all
            break
        found = cast("Any", found)[name if name else int(index)]
        schema = _step(schema, name)
    return bad_value(key, found, describe(schema)).message


def _step(schema: inspect.Type, name: str) -> inspect.Type:
    struct = _struct_of(schema)
    if struct is not None and name:
        return next(field.type for field in struct.fields if field.encode_name == name)
    if isinstance(schema, inspect.VarTupleType | inspect.ListType):
        return schema.item_type
    return inspect.AnyType()


def describe(schema: inspect.Type) -> str:
    """What a type allows, in words: ``"an integer >= 1"``."""
    match schema:
        case inspect.IntType():
            return "an integer" + _bounds(schema)
        case inspect.FloatType():
            return "a number" + _bounds(schema)
        case inspect.StrType():
            return "a string" + (f" that matches {schema.pattern}" if schema.pattern else "")
        case inspect.LiteralType():
            return "one of " + ", ".join(repr(value) for value in schema.values)
        case inspect.UnionType():
            rest = [option for option in schema.types if not isinstance(option, inspect.NoneType)]
            return " or ".join(describe(option) for option in rest)
        case inspect.VarTupleType() | inspect.ListType():
            return f"a list, each {describe(schema.item_type)}"
        case inspect.DictType():
            return f"a table, each key {describe(schema.key_type)}, each value {describe(schema.value_type)}"
        case inspect.StructType():
            return "a table with the keys " + ", ".join(field.encode_name for field in schema.fields)
        case _:
            return _SCALARS.get(type(schema), type(schema).__name__)


def _bounds(schema: inspect.IntType | inspect.FloatType) -> str:
    signs = {">": schema.gt, ">=": schema.ge, "<": schema.lt, "<=": schema.le}
    parts = [f"{sign} {bound}" for sign, bound in signs.items() if bound is not None]
    return " " + " and ".join(parts) if parts else ""
