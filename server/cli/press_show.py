"""What ``tensorwire press`` prints: a line a second, and a table at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import typer

from ...bench.tune.durations import duration
from .common import print_table, table

if TYPE_CHECKING:
    from ...bench.press.crew import Second
    from ...bench.recorder import Measurement

#: Cores that a load process uses, from which on it may be what limits.
_BUSY: Final = 0.9
#: Less than this part of the offered calls was answered: worth saying.
_BEHIND: Final = 0.98
#: Shorter than this, the last line says nothing of a rate.
_SHORT: Final = 0.2


class Live:
    """A line a second, on stderr. ``rate``: calls a second that are offered; 0 in a closed loop."""

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def show(self, second: Second) -> None:
        """What happened in it."""
        count = len(second.latencies)
        if second.span < _SHORT and not second.errors:
            return
        offered = f" of {self._rate:,.6g}" if self._rate else ""
        parts = [f"{second.number:5.0f} s", f"{count / second.span:,.0f}/s{offered}"]
        if count:
            levels = np.percentile(second.latencies, (50, 99, 99.9, 100), method="higher").tolist()
            names = ("p50", "p99", "p99.9", "max")
            parts += [f"{name} {duration(level)}" for name, level in zip(names, levels, strict=True)]
        parts.append(f"{second.in_flight} in flight")
        if second.errors:
            parts.append(errors(second.errors))
        if second.busiest > _BUSY:
            parts.append(f"a load process uses {second.busiest:.0%} of a core")
        typer.echo("  ".join(parts), err=True)


def print_summary(measured: Measurement, rate: float) -> None:
    """The table, and what it means."""
    columns = (
        "answered",
        "seconds",
        "answered/s",
        "offered/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "failed",
    )
    shown = table(*columns, right=columns)
    levels = (measured.p50, measured.p90, measured.p99, measured.p999, measured.max)
    shown.add_row(
        f"{measured.requests:,}",
        f"{measured.seconds:.1f}",
        f"{measured.throughput:,.1f}",
        f"{measured.offered:,.1f}" if rate else "-",
        *map(duration, levels),
        f"{sum(measured.errors.values()):,}",
    )
    print_table(shown)
    for line in _explained(measured, rate):
        typer.echo(line)


def _explained(measured: Measurement, rate: float) -> list[str]:
    lines = ["latency counts from when a call was due"] if rate else []
    if measured.unsent:
        lines.append(
            f"{measured.unsent:,} calls were due and not sent before the end: all --callers were waiting; "
            "what they had waited until then is in the latencies"
        )
    elif rate and measured.throughput < _BEHIND * measured.offered:
        lines.append("fewer calls were answered than offered")
    if measured.refused:
        took = f"p50 {duration(measured.refused_p50)}, p99 {duration(measured.refused_p99)}"
        lines.append(f"refused: {measured.refused:,}, which took {took}")
    if measured.errors:
        lines.append(f"FAILED: {errors(measured.errors)}")
    if not measured.requests:
        lines.append("NO CALL WAS ANSWERED")
    return lines


def errors(counts: dict[str, int]) -> str:
    """``12 RESOURCE_EXHAUSTED, 3 UNAVAILABLE``."""
    return ", ".join(f"{count:,} {code}" for code, count in sorted(counts.items()))
