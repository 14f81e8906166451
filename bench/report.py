"""Tables for people: the same content as rich output on a terminal and as plain text in a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.console import Group as Renderables
from rich.table import Table
from rich.text import Text

from .checks import Check
from .quick import Group
from .recorder import Comparison, Measurement, Spread
from .results import Cell, Results, p50, p99, throughput

_TEXT_WIDTH: Final = 170
#: Stands in the table for a ratio that the rounds do not bear out.
NO_DIFFERENCE: Final = "none shown"
#: Cores kept busy by other processes, above which a run counts as disturbed.
_DISTURBED_CORES: Final = 0.2


def render(
    results: Results, groups: Sequence[Group], checks: Sequence[Check] | None = None
) -> RenderableType:
    """Everything that a run has to say; ``checks`` are left out where None."""
    parts: list[RenderableType] = [Text(line) for line in results.environment.lines()]
    settings = results.settings
    parts.append(
        Text(
            f"{settings.rounds} interleaved rounds of {settings.duration:g} s, each after at least "
            f"{settings.warmup:g} s of warm-up; median over the rounds, ± half their range; "
            "closed loop, one client and one server process"
        )
    )
    parts += [
        _table(results, [group for group in groups if group.baseline == baseline], baseline)
        for baseline in dict.fromkeys(group.baseline for group in groups)
    ]
    parts += _notes(results)
    if checks is not None:
        parts += [Text(str(check), style="green" if check.passed else "bold red") for check in checks]
    return Renderables(*parts)


def as_text(renderable: RenderableType) -> str:
    """Plain text without colours, as wide as it needs to be."""
    buffer = io.StringIO()
    Console(file=buffer, width=_TEXT_WIDTH, color_system=None, force_terminal=False).print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def _table(results: Results, groups: Sequence[Group], baseline: str) -> Table:
    table = Table(title=f"against {baseline}", title_justify="left")
    for name in ("request", "callers", "system"):
        table.add_column(name, no_wrap=True)
    for name in ("requests/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "CPU us server", "client", "errors"):
        table.add_column(name, justify="right")
    for name in ("throughput", "p50", "p99"):
        table.add_column(f"{name} ratio", justify="right")
    for group in groups:
        for index, name in enumerate(group.systems):
            cell = results.cell(name, group.case, group.concurrency)
            if cell is not None:
                situation = (group.case, str(group.concurrency)) if index == 0 else ("", "")
                table.add_row(*situation, name, *_figures(cell), *_ratios(results, cell, baseline))
        table.add_section()
    return table


def _figures(cell: Cell) -> list[str]:
    rate = cell.spread(throughput)
    errors = sum(cell.errors.values()) + len(cell.failures)
    if rate is None:
        return ["failed", *[""] * 6, str(errors)]
    latencies: list[Callable[[Measurement], float]] = [p50, p99, lambda m: m.p999, lambda m: m.max]
    cpu: list[Callable[[Measurement], float]] = [
        lambda m: m.server_cpu_per_request,
        lambda m: m.client_cpu_per_request,
    ]
    return [
        f"{rate.median:,.0f} ±{rate.relative:.0%}",
        *(_scaled(cell.spread(figure), 1e3, 3) for figure in latencies),
        *(_scaled(cell.spread(figure), 1e6, 1) for figure in cpu),
        str(errors) if errors else "-",
    ]


def _scaled(spread: Spread | None, factor: float, decimals: int) -> str:
    if spread is None:
        return ""
    value = spread.median * factor
    return f"{value:,.{decimals}f}" if value < 10 else f"{value:,.1f}"


def _ratios(results: Results, cell: Cell, baseline: str) -> list[str]:
    if cell.system == baseline:
        return ["1x", "1x", "1x"]
    return [_ratio(results.compare(cell, baseline, figure)) for figure in (throughput, p50, p99)]


def _ratio(comparison: Comparison | None) -> str:
    if comparison is None or not comparison.ratio:
        return "-"
    return f"{comparison.ratio:.3g}x" if comparison.shown else NO_DIFFERENCE


def _notes(results: Results) -> list[Text]:
    notes = [Text(f"{NO_DIFFERENCE}: no difference shown, the ranges over the rounds overlap")]
    notes += [
        Text(f"{cell.system}, {cell.case} at {cell.concurrency}: {cell.errors} {'; '.join(cell.failures)}")
        for cell in results.cells
        if cell.errors or cell.failures
    ]
    busy = [measured.other_cores for cell in results.cells for measured in cell.rounds]
    if busy and Spread.of(busy).median > _DISTURBED_CORES:
        notes.append(
            Text(
                f"other processes kept {Spread.of(busy).median:.1f} cores busy (at most {max(busy):.1f}): "
                "repeat on a quiet machine before you quote these figures",
                style="yellow",
            )
        )
    notes.append(Text(f"took {results.seconds:.0f} s"))
    return notes
