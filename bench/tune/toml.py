"""model.toml with the recommended settings: a file of its own, or laid into one that is there."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from .outcome import Outcome
from .points import Point

KIND: Final = "workers.kind"
COUNT: Final = "workers.count"
BATCH: Final = "batching.max_batch_size"
DELAY: Final = "batching.max_queue_delay"
SIZES: Final = "batching.allowed_batch_sizes"
#: The keys that a sweep decides about.
DECIDED: Final = (KIND, COUNT, BATCH, DELAY, SIZES)
_SECTION: Final = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")


class CannotMerge(ValueError):
    """The file is written in a way that is not understood here; it was left alone."""


def recommended(chosen: Point, present: Point, sizes: Sequence[int], said: Collection[str]) -> dict[str, Any]:
    """What model.toml has to say to have a point: of :data:`DECIDED`, the keys that are not the default.

    Args:
        chosen: the point.
        present: the point in force.
        sizes: allowed batch sizes in force.
        said: the keys that are not left to the default at present, in the file or live.
    """
    values: dict[str, Any] = {}
    if KIND in said or chosen.kind != present.kind:
        values[KIND] = chosen.kind
    if COUNT in said or chosen.kind != present.kind or chosen.count != present.count:
        values[COUNT] = chosen.count
    if sizes:
        values[SIZES] = [*(size for size in sizes if size < chosen.batch), chosen.batch]
    if BATCH in said or (chosen.batch != present.batch and not sizes):
        values[BATCH] = chosen.batch
    if chosen.delay:
        values[DELAY] = chosen.delay
    return {key: values[key] for key in DECIDED if key in values}


def comment(outcome: Outcome) -> list[str]:
    """What was measured, as lines of a comment."""
    chosen = outcome.chosen
    assert chosen is not None
    assert outcome.choice is not None
    present = next((line for line in outcome.lines if line.present), None)
    target = f"p99 <= {outcome.plan.objective * 1e3:g} ms"
    met = "meets" if outcome.choice.meets else "DOES NOT MEET"
    lines = [
        f"By `tensorwire tune {outcome.model}` (version {outcome.version}); {met} {target}: {chosen.point}",
        outcome.figures(chosen),
        f"chosen: {outcome.choice.reason}",
    ]
    if present is not None and present is not chosen:
        lines.append(f"before: {present.point}: {outcome.figures(present)}")
    lines += [
        f"noise of the repeated baseline: +-{outcome.noise:.0%}; requests: {outcome.sample}",
        f"{outcome.machine()}; measured anew it may differ, on another machine it will",
    ]
    return [f"# {line}" for line in lines]


def write(outcome: Outcome, values: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
    """A complete file.

    Args:
        outcome: for the comments.
        values: as from :func:`recommended`.
        kept: what the server's model.toml says about other keys that can be set live.
    """
    lines = [
        *comment(outcome),
        "# What a running server does not tell is not here: [versions], [labels], [route], [[inputs]],",
        "# engine.kind and options. Where there is a model.toml, `tensorwire tune --write PATH` keeps them.",
    ]
    said = {**kept, **values}
    for section in dict.fromkeys(key.partition(".")[0] for key in said):
        lines += ["", f"[{section}]"]
        for key, value in said.items():
            if key.partition(".")[0] == section:
                lines.append(f"{key.partition('.')[2]} = {_value(value)}{_why(outcome, key)}")
    if not said:
        lines += ["", "# Every setting is the default: nothing needs to be said."]
    return "\n".join(lines) + "\n"


def merge(text: str, values: Mapping[str, Any], remarks: Sequence[str]) -> str:
    """A file with ``values`` in place of what it said about :data:`DECIDED`; all else, comments too, stays.

    Raises:
        CannotMerge: it is not valid TOML, or has these keys in a form that is not understood.
    """
    try:
        wanted = _laid(tomllib.loads(text), values)
        lines = _without(text.splitlines())
        for section in dict.fromkeys(key.partition(".")[0] for key in values):
            entries = [
                f"{_leaf(key)} = {_value(v)}" for key, v in values.items() if key.startswith(section + ".")
            ]
            lines = _insert(lines, section, entries)
        merged = "\n".join([*remarks, *lines]) + "\n"
        found = tomllib.loads(merged)
    except tomllib.TOMLDecodeError as error:
        raise CannotMerge(str(error)) from None
    if _filled(found) != _filled(wanted):
        raise CannotMerge("it has [workers] or [batching] in a form that is not understood here")
    return merged


def _laid(before: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What the merged file has to say."""
    after: dict[str, Any] = copy.deepcopy(before)
    for key in DECIDED:
        after.get(key.partition(".")[0], {}).pop(_leaf(key), None)
    for key, value in values.items():
        after.setdefault(key.partition(".")[0], {})[_leaf(key)] = value
    return after


def _filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """An empty section says nothing."""
    return {key: value for key, value in document.items() if value != {}}


def _without(lines: Sequence[str]) -> list[str]:
    """Lines that do not set what is decided here."""
    kept: list[str] = []
    section = ""
    for line in lines:
        header = _SECTION.fullmatch(line)
        if header:
            section = header[2].replace(" ", "") + "."
        key = None if header else _KEY.match(line)
        if key is None or (section + key[1].replace(" ", "")) not in DECIDED:
            kept.append(line)
    return kept


def _insert(lines: Sequence[str], section: str, entries: Sequence[str]) -> list[str]:
    """Behind the section's header; before the first one as dotted keys, where the file has the section so."""
    headers = [_SECTION.fullmatch(line) for line in lines]
    for index, header in enumerate(headers):
        if header and header[1] == "[" and header[2] == section:
            return [*lines[: index + 1], *entries, *lines[index + 1 :]]
    first = next((index for index, header in enumerate(headers) if header), len(lines))
    dotted = any((key := _KEY.match(line)) and key[1].startswith(section + ".") for line in lines[:first])
    if dotted:
        return [*lines[:first], *(f"{section}.{entry}" for entry in entries), *lines[first:]]
    gap = [""] if lines and lines[-1].strip() else []
    return [*lines, *gap, f"[{section}]", *entries]


def _leaf(key: str) -> str:
    return key.partition(".")[2]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"  # pyright: ignore[reportUnknownArgumentType]
    return repr(value)


def _why(outcome: Outcome, key: str) -> str:
    """What was there before, and what else was tried."""
    present = outcome.present
    before = {KIND: present.kind, COUNT: present.count, BATCH: present.batch, DELAY: present.delay}
    tried = {
        KIND: {line.point.kind for line in outcome.lines if line.rung},
        COUNT: {line.point.count for line in outcome.lines if line.rung},
        BATCH: {line.point.batch for line in outcome.lines if line.rung},
        DELAY: {line.point.delay for line in outcome.lines if line.rung},
    }
    if key not in before:
        return ""
    return f"  # before: {before[key]}; measured: {', '.join(map(str, sorted(tried[key])))}"
