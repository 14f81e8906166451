"""The kinds of plots: a figure against what was varied, distributions, CPU time, RPC and engine apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..histogram import merge, quantiles
from ..recorder import Measurement, Spread
from .drawing import FAINT, GROUND, INK, plainly, scale_up
from .figures import answered, number, spread
from .results import Axis, Point, Split
from .styles import Style

#: Steps for each nine of a distribution, which goes from half of the requests to four nines of them.
_STEPS: Final = 25
_LEVELS: Final = (0.5, *(1 - 10 ** (-step / _STEPS) for step in range(8, 4 * _STEPS + 1)))
_NINES: Final = (
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
)
#: More labels than this on an axis are thinned.
_LABELS: Final = 8
_BySystem = Mapping[str, Sequence[Point]]


def by_system(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points of each system, x ascending."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.x):
        found.setdefault(point.system, []).append(point)
    return found


def lines(
    axes: Any,
    points: _BySystem,
    looks: Mapping[str, Style],
    axis: Axis,
    figure: Callable[[Measurement], float],
    hollow: Callable[[Point], bool],
    *,
    dodge: bool = False,
) -> list[float]:
    """One line a system with the range over the rounds; points the generator may limit are hollow.

    ``dodge``: side by side without a line, where what was varied has no order. Gives all values drawn.
    """
    drawn: list[float] = []
    places = _situations(axes, [point for some in points.values() for point in some], axis)
    for index, (system, style) in enumerate(looks.items()):
        found = [
            (point, one) for point in points.get(system, ()) if (one := spread(point, figure)) is not None
        ]
        if not found:
            continue
        shift = (index / max(1, len(looks) - 1) - 0.5) * 0.6 if dodge else 0.0
        xs = [places[point.x] + shift for point, _ in found]
        _line(axes, xs, [one for _, one in found], style, joined=not dodge)
        _marks(axes, xs, found, style, hollow)
        drawn += [value for _, one in found for value in (one.low, one.high)]
    return drawn


def _line(axes: Any, xs: Sequence[float], found: Sequence[Spread], style: Style, *, joined: bool) -> None:
    medians = [one.median for one in found]
    errors = [[one.median - one.low for one in found], [one.high - one.median for one in found]]
    axes.errorbar(
        xs,
        medians,
        yerr=errors,
        color=style.colour,
        linestyle=(0, style.dash) if style.dash and joined else "-" if joined else "none",
        linewidth=1.5,
        elinewidth=2.2,
        zorder=3,
    )


def _marks(
    axes: Any,
    xs: Sequence[float],
    found: Sequence[tuple[Point, Spread]],
    style: Style,
    hollow: Callable[[Point], bool],
) -> None:
    for limited, face in ((False, style.colour), (True, GROUND)):
        marked = [
            (x, one.median) for x, (point, one) in zip(xs, found, strict=True) if hollow(point) == limited
        ]
        if marked:
            axes.plot(
                *zip(*marked, strict=True),
                linestyle="none",
                marker=style.marker,
                markersize=7 if style.marker == "*" else 5,
                markeredgewidth=1.1,
                color=style.colour,
                markerfacecolor=face,
                zorder=4,
            )


def _situations(axes: Any, points: Sequence[Point], axis: Axis) -> dict[float, float]:
    """Labels where was measured; gives where on the axis each x is: categories stand evenly."""
    labels = {point.x: point.label for point in sorted(points, key=lambda point: point.x)}
    places = {x: float(index) if axis.scale == "category" else x for index, x in enumerate(labels)}
    if axis.scale == "log" and labels and min(labels) > 0:
        axes.set_xscale("log")
    elif axis.scale == "category":
        axes.set_xlim(-0.5, len(labels) - 0.5)
    step = 1 + (len(labels) - 1) // _LABELS if axis.scale != "category" else 1
    shown = list(labels.items())[::step]
    axes.set_xticks([places[x] for x, _ in shown], [label for _, label in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(axis.name)
    return places


def distributions(axes: Any, points: Sequence[Point], looks: Mapping[str, Style]) -> list[float]:
    """Latency in ms against the share of requests that took no longer, in "nines"; all rounds together.

    A line ends where the samples do: a share that stands for less than one request is not drawn.
    """
    drawn: list[float] = []
    for point in points:
        encoded = merge(measured.histogram for measured in answered(point))
        count = sum(measured.requests for measured in answered(point))
        if not encoded or point.system not in looks:
            continue
        levels = [level for level in _LEVELS if (1 - level) * count >= 1]
        values = [seconds * 1e3 for seconds in quantiles(encoded, levels)]
        style = looks[point.system]
        axes.plot(
            [_nines(level) for level in levels],
            values,
            color=style.colour,
            linestyle=(0, style.dash) if style.dash else "-",
            linewidth=1.5,
            marker=style.marker,
            markersize=4.5,
            markevery=[0, *range(_STEPS - 7, len(levels), _STEPS)],
            zorder=3,
        )
        drawn += values
    axes.set_xticks([_nines(level) for level, _ in _NINES], [label for _, label in _NINES])
    axes.set_xlim(0.2, 4.1)
    axes.set_xlabel("share of the requests that took no longer")
    return drawn


def _nines(level: float) -> float:
    return -math.log10(1 - level)


def cpu_bars(axes: Any, points: Sequence[Point], looks: Mapping[str, Style]) -> None:
    """Server's (full) and clients' (pale) CPU time of a request, one bar a system, in microseconds."""
    found = {point.system: point for point in points if answered(point)}
    systems = [system for system in looks if system in found]
    largest = 0.0
    for place, system in enumerate(systems):
        server = _median(found[system], lambda m: m.server_cpu_per_request) * 1e6
        client = _median(found[system], lambda m: m.client_cpu_per_request) * 1e6
        colour = looks[system].colour
        axes.barh(place, server, 0.66, color=colour, zorder=3)
        axes.barh(place, client, 0.66, left=server, color=colour, alpha=0.4, zorder=3)
        axes.annotate(
            f"{number(server)} + {number(client)}",
            (server + client, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
        largest = max(largest, server + client)
    _bar_axes(axes, systems, largest)
    axes.set_xlabel("CPU µs per request: server (full) + clients (pale)")


def _median(point: Point, of: Callable[[Measurement], float]) -> float:
    found = spread(point, of)
    return 0.0 if found is None else found.median


def _bar_axes(axes: Any, names: Sequence[str], largest: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, (largest or 1) * 1.25)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(plainly))


def split_bars(axes: Any, splits: Sequence[Split], looks: Mapping[str, Style]) -> None:
    """For each system what network (full) and engine (pale) add up to, and a mark at what both took."""
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    names = [", ".join(filter(None, (one.system, one.request))) for one in splits]
    for place, one in enumerate(splits):
        whole = one.predicted or 1.0
        colour = looks[one.system].colour
        axes.barh(place, one.rpc / whole, 0.5, color=colour, zorder=3)
        axes.barh(place, one.engine / whole, 0.5, left=one.rpc / whole, color=colour, alpha=0.4, zorder=3)
        axes.plot([one.both / whole] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=2, zorder=4)
        rpc, engine, both = (number(seconds * 1e6) for seconds in (one.rpc, one.engine, one.both))
        axes.annotate(
            f"{rpc} + {engine} µs, both {both} µs",
            (max(1.0, one.both / whole), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    _bar_axes(axes, names, max(1.0, *(one.both / (one.predicted or 1.0) for one in splits)) * 1.3)
    axes.xaxis.set_major_locator(MultipleLocator(0.25))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.axvline(1.0, color=FAINT, zorder=1)
    axes.set_xlabel("share of predicted: RPC (full) + engine (pale); line: both together, as measured")


def rescale(panels: Sequence[Any], drawn: Sequence[float], *, log: bool) -> None:
    """One upward scale for panels that share it; a single value too."""
    if drawn:
        scale_up(panels[0], drawn, log=log)
