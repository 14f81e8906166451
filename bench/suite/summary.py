"""The Markdown summary: readable in a terminal and on a Git host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from .figures import BASELINE, number, points_of
from .lead import Lead, lead
from .markdown import Side, bullets, escaped, grid
from .notes import (
    AGAIN,
    CEILING_NOTE,
    CEILINGS_NOTE,
    NOWHERE_SLOWER,
    RATIO_NOTE,
    SPLIT_NOTE,
    TAIL_NOTE,
    failure_lines,
    method_line,
    missing_line,
    setting_lines,
)
from .results import ScenarioInfo, Suite
from .tables import CEILING_HEADS, CEILING_MARK, ceiling_rows, scenario_table
from .verdict import judge

#: Alignment of columns of figures.
_FIGURES: Final[tuple[Side, ...]] = ("right",) * 6
#: Scenario -> (what it shows, address relative to the page) of its plots.
Pictures = Mapping[str, Sequence[tuple[str, str]]]


def write_summary(suite: Suite, path: Path) -> None:
    """Write what a run gave as Markdown.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(summary(suite), encoding="utf-8")


def summary(suite: Suite, *, level: int = 1, pictures: Pictures | None = None) -> str:
    """The same as text; ``level`` is that of its first heading."""
    verdict = judge(suite)
    first = lead(suite, verdict)
    parts = [f"{'#' * level} Should we replace gRPC?", *_first_lines(first)]
    sections: list[tuple[str, list[str]]] = [
        ("At a glance", _at_a_glance(first)),
        ("How it was measured", _setting(suite)),
        *(
            (f"{info.key} {info.title}", _scenario(suite, info, (pictures or {}).get(info.key, [])))
            for info in suite.scenarios
        ),
        ("Network and computing apart", _split(suite, (pictures or {}).get("split", []))),
        ("Ceilings of the load generator", _ceilings(suite)),
        ("Not run", _not_run(suite)),
        ("Failed calls and rounds", [bullets(failure_lines(verdict))] if verdict.unanswered else []),
        ("Repeat it", ["\n".join(f"    {command:<45} # {what}" for command, what in AGAIN)]),
    ]
    for title, content in sections:
        if content:
            parts += [f"{'#' * (level + 1)} {escaped(title)}", *content]
    return "\n\n".join(parts) + "\n"


def _first_lines(first: Lead) -> list[str]:
    parts = [f"**{escaped(first.headline)}** {escaped(first.counts)}"]
    if first.slower:
        parts += ["Slower than a peer, tensorwire's best system of the scenario:", bullets(first.slower)]
    if first.tails:
        parts += [TAIL_NOTE, bullets(first.tails)]
    if not (first.slower or first.tails) and any(glance.slower for glance in first.glances):
        parts.append(NOWHERE_SLOWER)
    if first.cautions:
        parts.append(bullets(first.cautions))
    if first.others:
        parts += ["Slower than a peer, among tensorwire's other systems:", bullets(first.others)]
    return parts


def _at_a_glance(first: Lead) -> list[str]:
    heads = ["scenario", "decides", "tensorwire's best", f"to {BASELINE}", "to gRPC C++", "slower than"]
    rows = [
        [f"{one.scenario} {one.title}", one.figure, one.best, one.python, one.cpp, one.slower]
        for one in first.glances
    ]
    return [grid(heads, rows), escaped(RATIO_NOTE)] if rows else []


def _setting(suite: Suite) -> list[str]:
    parts = [bullets(setting_lines(suite))]
    if suite.options:
        parts += ["Settings of the systems:", grid(["system", "settings"], list(suite.options.items()))]
    return parts


def _scenario(suite: Suite, info: ScenarioInfo, pictures: Sequence[tuple[str, str]]) -> list[str]:
    parts = [f"*{escaped(info.question)}* {escaped(method_line(info))}"]
    parts += _pictures(pictures)
    if not points_of(suite, info):
        return [*parts, "Nothing was measured."]
    table = scenario_table(suite, info).brief()
    aligns: list[Side] = [column.align for column in table.columns]
    parts.append(grid([column.title for column in table.columns], [row.cells for row in table.rows], aligns))
    if table.marked:
        parts.append(f"{CEILING_MARK} {CEILING_NOTE}")
    if missing := missing_line(suite, info):
        parts.append(escaped(missing))
    return [*parts, bullets(info.notes)] if info.notes else parts


def _pictures(pictures: Sequence[tuple[str, str]]) -> list[str]:
    return [f"![{escaped(title)}]({address})" for title, address in pictures]


def _split(suite: Suite, pictures: Sequence[tuple[str, str]]) -> list[str]:
    heads = [
        "system",
        "request",
        "callers",
        "rows a batch",
        "RPC only µs",
        "engine only µs",
        "predicted µs",
        "both µs",
    ]
    rows = [
        [
            one.system,
            one.request,
            str(one.concurrency),
            number(one.batch),
            *(number(seconds * 1e6) for seconds in (one.rpc, one.engine, one.predicted, one.both)),
        ]
        for one in suite.splits
    ]
    return [SPLIT_NOTE, *_pictures(pictures), grid(heads, rows, ("left", "left", *_FIGURES))] if rows else []


def _ceilings(suite: Suite) -> list[str]:
    rows = [list(row) for row in ceiling_rows(suite)]
    if not rows:
        return ["Not measured: no result is marked as the generator's."]
    return [CEILINGS_NOTE, grid(CEILING_HEADS, rows, ("left", "right", "right", "right", "left"))]


def _not_run(suite: Suite) -> list[str]:
    rows = [[one.system, one.scenario or "all", one.reason] for one in suite.not_run]
    return [grid(["system", "scenario", "why"], rows)] if rows else ["Every system that was wanted was run."]
