"""What ``tensorwire tune`` shows while it measures, and its table at the end."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final

import typer

from ...bench.tune.durations import duration
from .common import print_table, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...bench.tune.choice import Line, Measured
    from ...bench.tune.outcome import Outcome
    from ...bench.tune.session import Plan


class Progress:
    """A bar on a terminal, a line for each point elsewhere; on stderr. A context manager.

    ``best``: the best point so far.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._bar: Any = None
        self._task: Any = None
        self._best = ""
        self._number = 0
        self.best: Callable[[], Measured | None] = lambda: None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
            console = Console(stderr=True, markup=False, highlight=False)
            # Redrawn between measurements only: a thread that draws meanwhile would be part of the load.
            self._bar = Bar(*columns, console=console, auto_refresh=False, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._plan.budget)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def starts(self, what: str, elapsed: float) -> None:
        """See :class:`tensorwire.bench.tune.session.Narrator`."""
        if self._bar is not None:
            best = f"; best so far: {self._best}" if self._best else ""
            done = min(elapsed, self._plan.budget)
            self._bar.update(self._task, completed=done, description=f"{what}{best}", refresh=True)

    def measured(self, one: Measured, what: str) -> None:
        """See :class:`tensorwire.bench.tune.session.Narrator`."""
        del what
        self._number += 1
        told = f"{self._number}  {one.point}: {self._told(one)}"
        best = self.best()
        if best is not None:
            self._best = f"{best.point}: {self._told(best)}"
        if self._bar is not None:
            self._bar.console.print(told)
        else:
            typer.echo(told, err=True)

    def _told(self, one: Measured) -> str:
        if one.refused:
            return f"refused: {one.refused}"
        rung = one.best(self._plan.objective)
        failed = f", {_errors(one.errors)}" if one.errors else ""
        if rung is None:
            return f"no call was answered{failed}"
        measured = rung.measured
        plural = "s" if rung.callers > 1 else ""
        return (
            f"{measured.throughput:,.0f}/s with {rung.callers} caller{plural}, "
            f"p99 {duration(measured.p99)}{failed}"
        )


#: Columns of the table; those that give way first on a narrow terminal.
_COLUMNS: Final = (
    "",
    "#",
    "workers",
    "batch",
    "delay",
    "callers",
    "req/s",
    "to before",
    "p50 ms",
    "p99 ms",
    "server CPU us",
    "errors",
    "objective",
)
_TEXTS: Final = ("", "workers", "errors", "objective")
_FIRST_TO_GO: Final = ("server CPU us", "p50 ms", "to before")
_NARROW: Final = 130


def print_outcome(outcome: Outcome) -> None:
    """The table, what it means, and what was recommended."""
    gone: set[str] = set()
    if not any(line.errors for line in outcome.lines):
        gone.add("errors")
    if sys.stdout.isatty() and get_terminal_size().columns < _NARROW:
        gone.update(_FIRST_TO_GO)
    columns = [column for column in _COLUMNS if column not in gone]
    shown = table(*columns, right=tuple(column for column in columns if column not in _TEXTS))
    for line in outcome.lines:
        cells = zip(_COLUMNS, _cells(line, outcome), strict=True)
        shown.add_row(*(cell for column, cell in cells if column not in gone))
    print_table(shown)
    for text in _explained(outcome):
        typer.echo(text)


def _cells(line: Line, outcome: Outcome) -> list[str]:
    mark = ("*" if line is outcome.chosen else "") + ("=" if line.present else "")
    point = line.point
    settings = [f"{point.kind} x{point.count}", str(point.batch), duration(point.delay)]
    return [mark, str(line.number), *settings, *_figures(line, outcome.same_machine)]


def _figures(line: Line, cpu: bool) -> list[str]:
    if line.rung is None:
        return ["-", "-", "-", "-", "-", "-", _errors(line.errors) or "-", line.refused or "not measured"]
    measured = line.rung.measured
    return [
        str(line.rung.callers),
        f"{measured.throughput:,.0f}",
        "-" if line.relative is None else f"{line.relative:.2f}",
        f"{measured.p50 * 1e3:.3g}",
        f"{measured.p99 * 1e3:.3g}",
        f"{measured.server_cpu_per_request * 1e6:,.0f}" if cpu else "-",
        _errors(line.errors) or "-",
        ("met" if line.meets else "missed")
        + (" twice" if line.confirmed and not line.present else "")
        + ("" if line.eligible else ", not eligible"),
    ]


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {code}" for code, count in errors.items())


def _explained(outcome: Outcome) -> list[str]:
    """What stands under the table."""
    times = "once"
    if len(outcome.baselines) > 1:
        times = f"{len(outcome.baselines)} times: throughput +-{outcome.noise:.0%}"
    processes = f"{outcome.load_processes} process{'es' if outcome.load_processes > 1 else ''}"
    lines = [
        f"objective: p99 within {duration(outcome.plan.objective)}; {outcome.sample}",
        f"{outcome.machine()}; load from {processes}; took {outcome.seconds:.0f} s",
        f"= the settings before, measured {times}; `to before` goes by the nearest of these",
        *outcome.notes,
    ]
    if outcome.ended:
        lines.append(f"ended before its time: {outcome.ended}")
    if outcome.choice is None:
        lines.append("no recommendation: nothing was measured that could be chosen")
    else:
        choice = outcome.choice
        if not choice.meets:
            lines.append(f"NO SETTINGS MEET THE OBJECTIVE of {duration(outcome.plan.objective)}")
        lines.append(
            f"* {'recommended' if choice.meets else 'nearest to it'}: {choice.point} ({choice.reason})"
        )
    if outcome.in_force:
        lines.append(f"in force now: {outcome.in_force}")
    return lines
