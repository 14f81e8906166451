"""The plot of a sweep: throughput against p99. Needs matplotlib, which is imported when it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .choice import Line, Rung
from .outcome import Outcome

_SIZE: Final = (11.0, 6.2)
_DPI: Final = 130
#: An axis whose values span more than this factor is logarithmic.
_LOG_FROM: Final = 5.0
_GREY: Final = "#9aa3ad"
_COLOURS: Final = {"thread": "#2f6db5", "process": "#c8641e"}
_CHOSEN: Final = "#1b8a3a"
_OBJECTIVE: Final = "#b3261e"
_AROUND: Final = (
    (0.8, 0.8),
    (-0.8, 0.8),
    (0.8, -0.8),
    (-0.8, -0.8),
    (0, 1.1),
    (0, -1.1),
    (1.1, 0),
    (-1.1, 0),
)
#: Where a number may stand around its point, in points: (right, up).
_PLACES: Final = tuple((dx * far, dy * far) for far in (9.0, 16.0, 25.0, 36.0) for dx, dy in _AROUND)


#: Distance of a number from points, other numbers, and the chosen point, which has a ring; in points.
_ROOM: Final = 9.5
_APART: Final = 15.0
_RING: Final = 15.5
#: What a number stands on.
_BEHIND: Final = {"boxstyle": "round,pad=0.08", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
#: Lines of the key in one column, and the width of a further one in inches.
_KEY_LINES: Final = 30
_KEY_WIDTH: Final = 3.2


class NoPlotter(Exception):
    """matplotlib is not installed."""


def draw(outcome: Outcome, folder: Path) -> list[Path]:
    """Write ``tune.png`` and ``tune.svg``; gives their paths, none where nothing was measured.

    Raises:
        NoPlotter: matplotlib is not installed.
    """
    lines = [line for line in outcome.lines if line.rung is not None]
    if not lines:
        return []
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlotter("pip install 'tensorwire[tune]'") from None
    # No pyplot: it keeps figures, and looks for a display.
    further = (len(lines) - 1) // _KEY_LINES
    figure: Any = Figure(figsize=(_SIZE[0] + _KEY_WIDTH * further, _SIZE[1]), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _axes(axes, outcome, lines)
    for line in lines:
        if line.present or line is outcome.chosen:
            _ladder(axes, line, lines)
    placed = [_point(axes, line, chosen=line is outcome.chosen) for line in lines]
    _key(axes, outcome, lines)
    figure.canvas.draw()
    _number(axes, lines, placed, outcome.chosen)
    paths = [folder / "tune.png", folder / "tune.svg"]
    for path in paths:
        figure.savefig(path)
    return paths


def _axes(axes: Any, outcome: Outcome, lines: Sequence[Line]) -> None:
    objective = outcome.plan.objective * 1e3
    rungs = [line.rung for line in lines if line.rung is not None]
    rungs += [
        rung for line in lines if line.present or line is outcome.chosen for rung in _sound(line, lines)
    ]
    times = [rung.measured.p99 * 1e3 for rung in rungs]
    rates = [rung.measured.throughput for rung in rungs]
    _scale(axes, "x", [*times, objective])
    _scale(axes, "y", rates)
    axes.set_xlabel("p99 of the latency, ms (lower is better)", fontsize=11)
    axes.set_ylabel("throughput, requests/s (higher is better)", fontsize=11)
    title = f"{outcome.model} version {outcome.version}: {outcome.sample}\n{outcome.machine()}"
    axes.set_title(title, fontsize=10, loc="left", pad=20)
    axes.axvline(objective, color=_OBJECTIVE, linestyle="--", linewidth=1.2, zorder=1)
    axes.annotate(
        f"objective {objective:g} ms",
        (objective, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
        color=_OBJECTIVE,
    )
    axes.grid(True, which="major", color="#e3e6e9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _scale(axes: Any, name: str, values: Sequence[float]) -> None:
    """Logarithmic where the values span much; with room around them, and numbers that can be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(values), max(values)
    axis = axes.xaxis if name == "x" else axes.yaxis
    limits = axes.set_xlim if name == "x" else axes.set_ylim
    if low > 0 and high / low > _LOG_FROM:
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        room = (high / low) ** 0.08
        limits(low / room, high * room)
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high / low > 30 else (1, 2, 3, 5, 7)))
        axis.set_minor_formatter(NullFormatter())
    else:
        limits(0, high * 1.12)
    axis.set_major_formatter(FuncFormatter(_plainly))
    axis.set_tick_params(labelsize=10)


def _plainly(value: float, _: object) -> str:
    return f"{value:,.6g}"


def _ladder(axes: Any, line: Line, lines: Sequence[Line]) -> None:
    """What other numbers of callers gave: a thin line."""
    rungs = _sound(line, lines)
    times = [rung.measured.p99 * 1e3 for rung in rungs]
    rates = [rung.measured.throughput for rung in rungs]
    colour = _COLOURS.get(line.point.kind, _GREY)
    axes.plot(times, rates, color=colour, alpha=0.35, linewidth=1, marker=".", markersize=4, zorder=2)


def _sound(line: Line, lines: Sequence[Line]) -> list[Rung]:
    """By callers; without the lowest rungs, whose throughput would press the points together."""
    lowest = min(one.rung.measured.throughput for one in lines if one.rung is not None) / 2
    rungs = [rung for rung in line.rungs if rung.sound and rung.measured.throughput >= lowest]
    return sorted(rungs, key=lambda rung: rung.callers)


def _point(axes: Any, line: Line, *, chosen: bool) -> tuple[float, float]:
    assert line.rung is not None
    x, y = line.rung.measured.p99 * 1e3, line.rung.measured.throughput
    colour = _COLOURS.get(line.point.kind, _GREY)
    # Unfilled: it does not count, because calls failed.
    face = colour if line.eligible else "white"
    marker = "s" if line.present else "o"
    axes.plot(x, y, marker=marker, markersize=7, color=colour, markerfacecolor=face, linestyle="", zorder=4)
    if chosen:
        axes.plot(
            x,
            y,
            marker="o",
            markersize=17,
            markeredgewidth=2.4,
            color=_CHOSEN,
            markerfacecolor="none",
            zorder=5,
        )
    return x, y


def _number(
    axes: Any, lines: Sequence[Line], placed: Sequence[tuple[float, float]], chosen: Line | None
) -> None:
    """Each point's number, where it covers neither another number nor a point."""
    scale = axes.figure.dpi / 72
    points = [tuple(axes.transData.transform(place)) for place in placed]
    taken: list[tuple[float, float]] = []
    for line, place, (x, y) in zip(lines, placed, points, strict=True):
        ringed = line is chosen

        def free(offset: tuple[float, float], x: float = x, y: float = y) -> float:
            """Room to what is nearest, in points; negative: it is covered."""
            at = x + offset[0] * scale, y + offset[1] * scale
            others = [(other, _ROOM) for other in points] + [(other, _APART) for other in taken]
            others += [(other, _RING) for other, one in zip(points, lines, strict=True) if one is chosen]
            return min(math.dist(at, other) / scale - room for other, room in others)

        offset = next((offset for offset in _PLACES if free(offset) >= 0), max(_PLACES, key=free))
        taken.append((x + offset[0] * scale, y + offset[1] * scale))
        far = not ringed and abs(offset[0]) + abs(offset[1]) > 16
        axes.annotate(
            str(line.number),
            place,
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=10,
            zorder=3,
            bbox=_BEHIND,
            arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.7, "shrinkB": 4} if far else None,
        )


def _key(axes: Any, outcome: Outcome, lines: Sequence[Line]) -> None:
    """Beside the plot: which number has which settings."""
    from matplotlib.lines import Line2D

    entries: list[Any] = []
    for line in lines:
        chosen = line is outcome.chosen
        marks = [mark for mark, there in (("chosen", chosen), ("before", line.present)) if there]
        told = f"{line.number}  {line.point}" + (f"  ({', '.join(marks)})" if marks else "")
        colour = _COLOURS.get(line.point.kind, _GREY)
        entries.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="s" if line.present else "o",
                markersize=6,
                color=colour,
                markerfacecolor=colour if line.eligible else "white",
                label=told,
            )
        )
    size = 9 if len(entries) <= 24 else 7
    columns = 1 + (len(entries) - 1) // _KEY_LINES
    legend = axes.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        fontsize=size,
        frameon=False,
        ncols=columns,
        title="settings (thin lines: other numbers of callers)",
        title_fontsize=size,
        alignment="left",
        borderaxespad=0,
    )
    for text, line in zip(legend.get_texts(), lines, strict=True):
        if line is outcome.chosen:
            text.set_color(_CHOSEN)
            text.set_fontweight("bold")
