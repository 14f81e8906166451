"""Which plots a scenario has. Needs matplotlib, which is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from ..recorder import Measurement
from .curves import by_system, cpu_bars, distributions, lines, rescale, split_bars
from .drawing import PANEL, canvas
from .figures import FIGURES, answered, near_ceiling, points_of, situations, systems_of
from .results import Point, ScenarioInfo, Suite
from .styles import Style, styles

#: Categories in these scenarios have an order: a line may join them.
_ORDERED: Final = frozenset("GH")
#: Values that span more than this factor need a logarithmic scale.
_LOG_FROM: Final = 10.0
#: Distributions side by side.
_MOST_PANELS: Final = 3
#: Inches that each bar of a bar plot takes, and what its axis takes.
_BAR: Final = 0.27
_BAR_AXIS: Final = 0.75


class Plot(NamedTuple):
    """Something to draw: ``draw()`` is a context manager that gives the matplotlib figure.

    ``panels``: side by side; ``hollow``: points are hollow where the generator may limit them.
    """

    key: str
    title: str
    alt: str
    panels: int
    hollow: bool
    draw: Callable[[], Any]


class Scene(NamedTuple):
    """One scenario, ready to be drawn."""

    suite: Suite
    info: ScenarioInfo
    points: list[Point]
    looks: dict[str, Style]

    @classmethod
    def of(cls, suite: Suite, info: ScenarioInfo) -> Scene:
        """With the points at which calls were answered."""
        points = [point for point in points_of(suite, info) if answered(point)]
        there = {point.system for point in points}
        looks = styles([system for system in systems_of(suite, info) if system in there])
        return cls(suite, info, points, looks)

    @property
    def variants(self) -> list[str]:
        """As they came."""
        return list(dict.fromkeys(point.variant for point in self.points))

    @property
    def situations(self) -> list[list[Point]]:
        """The points of each (variant, x)."""
        return [
            [one for one in self.points if (one.variant, one.x) == key] for key in situations(self.points)
        ]

    @property
    def xs(self) -> list[float]:
        """Ascending."""
        return sorted({point.x for point in self.points})

    def some(self, variant: str) -> list[Point]:
        """Points of one variant."""
        return [one for one in self.points if one.variant == variant]

    def heading(self, variant: str) -> str:
        """Over a panel; empty where there is one only."""
        return (variant or self.info.title) if len(self.variants) > 1 else ""

    def any(self, of: Callable[[Measurement], float | str]) -> bool:
        """Whether some round has that."""
        return any(of(measured) for point in self.points for measured in answered(point))

    def hollow(self, point: Point) -> bool:
        """Whether the generator may be what limits it."""
        return near_ceiling(self.suite, point)


def scenario_plots(suite: Suite, info: ScenarioInfo) -> list[Plot]:
    """All plots of a scenario; none where nothing was answered."""
    scene = Scene.of(suite, info)
    if not scene.points:
        return []
    varied = len(scene.xs) > 1 or info.axis.scale == "category"
    found: list[Plot] = []
    if varied:
        found.append(_figure(scene, info.figure))
        if info.figure == "throughput":
            found.append(_figure(scene, "p99"))
    if info.figure != "throughput" and scene.any(lambda m: m.histogram):
        found.append(_distributions(scene))
    if scene.any(lambda m: m.refused):
        found.append(_refusals(scene))
    if varied and info.axis.scale != "category":
        found.append(_cpu_lines(scene))
    else:
        found.append(_cpu_bars(scene))
    return found


def split_plot(suite: Suite) -> Plot | None:
    """Network and computing apart; None where it was not measured."""
    if not suite.splits:
        return None
    looks = styles([one.system for one in suite.splits])

    @contextmanager
    def draw() -> Generator[Any]:
        with canvas(1, _BAR_AXIS + 1.6 * _BAR * len(suite.splits), width=PANEL[0] * 1.6) as (figure, (axes,)):
            split_bars(axes, suite.splits, looks)
            yield figure

    alt = "Bars: RPC only and engine only as shares of their sum, and what both took together"
    return Plot("split", "RPC only + engine only, against both", alt, 2, False, draw)


def _figure(scene: Scene, key: str) -> Plot:
    figure = FIGURES[key]
    direction = "higher" if figure.more_is_better else "lower"
    label = f"{figure.title}, {figure.unit} ({direction} is better)"
    panels: list[_Panel] = [
        (heading, points, lambda m: figure.of(m) * figure.factor) for heading, points in _panels(scene)
    ]
    return _line_plot(scene, key, f"{figure.title} against {scene.info.axis.name}", label, panels)


def _panels(scene: Scene) -> list[tuple[str, list[Point]]]:
    """One for each variant; one for all where they do not share a place on the axis."""
    if len(scene.situations) == len(scene.xs):
        return [("", scene.points)]
    return [(scene.heading(variant), scene.some(variant)) for variant in scene.variants]


#: One set of axes: what stands over it, the points, the figure.
_Panel = tuple[str, Sequence[Point], Callable[[Measurement], float]]


def _line_plot(scene: Scene, key: str, title: str, label: str, panels: Sequence[_Panel]) -> Plot:
    axis = scene.info.axis
    dodge = axis.scale == "category" and scene.info.key not in _ORDERED

    @contextmanager
    def draw() -> Generator[Any]:
        with canvas(len(panels)) as (figure, axes):
            drawn: list[float] = []
            for panel, (heading, points, of) in zip(axes, panels, strict=True):
                drawn += lines(panel, by_system(points), scene.looks, axis, of, scene.hollow, dodge=dodge)
                panel.set_title(heading, loc="left")
            axes[0].set_ylabel(label)
            rescale(axes, drawn, log=_wide(drawn))
            yield figure

    hollow = any(scene.hollow(point) for _, points, _ in panels for point in points)
    return Plot(f"{scene.info.key}-{key}", title, _alt(scene, title), len(panels), hollow, draw)


def _wide(values: Sequence[float]) -> bool:
    """Whether values span so much that only a logarithmic scale shows all of them.

    A zero is CPU time that was too short to be counted; it does not make the others unreadable.
    """
    above = [value for value in values if value > 0]
    return bool(above) and max(above) / min(above) > _LOG_FROM


def _refusals(scene: Scene) -> Plot:
    points = [point for point in scene.points if any(m.refused for m in answered(point))]
    panels: list[_Panel] = [
        ("p50", points, lambda m: m.refused_p50 * 1e3),
        ("p99", points, lambda m: m.refused_p99 * 1e3),
    ]
    title = "how long a refusal takes"
    return _line_plot(scene, "refusal", title, "time to refusal, ms (lower is better)", panels)


def _cpu_lines(scene: Scene) -> Plot:
    points = scene.some(scene.variants[0])
    panels: list[_Panel] = [
        ("server", points, lambda m: m.server_cpu_per_request * 1e6),
        ("clients", points, lambda m: m.client_cpu_per_request * 1e6),
    ]
    variant = f", {scene.variants[0]}" if scene.variants[0] else ""
    label = "CPU µs per request (lower is better)"
    return _line_plot(scene, "cpu", f"CPU time per request{variant}", label, panels)


def _cpu_bars(scene: Scene) -> Plot:
    """Of the first situation and the last."""
    found = scene.situations
    panels = found if len(found) <= 2 else [found[0], found[-1]]

    @contextmanager
    def draw() -> Generator[Any]:
        height = _BAR_AXIS + 0.25 + _BAR * len(scene.looks)
        with canvas(len(panels), max(height, 1.6), share=False) as (figure, axes):
            for panel, points in zip(axes, panels, strict=True):
                cpu_bars(panel, points, scene.looks)
                panel.set_title(_told(scene, points[0]), loc="left")
            yield figure

    title = "CPU time per request"
    return Plot(f"{scene.info.key}-cpu", title, _alt(scene, title), len(panels), False, draw)


def _distributions(scene: Scene) -> Plot:
    """Of every situation; where there are many, of those at the far end of the axis."""
    found = scene.situations
    if len(found) > _MOST_PANELS:
        found = [points for points in found if points[0].x == scene.xs[-1]]

    @contextmanager
    def draw() -> Generator[Any]:
        with canvas(len(found), PANEL[1] + 0.3) as (figure, axes):
            drawn: list[float] = []
            for panel, points in zip(axes, found, strict=True):
                drawn += distributions(panel, points, scene.looks)
                panel.set_title(_told(scene, points[0]), loc="left")
            axes[0].set_ylabel("latency, ms (lower is better)")
            rescale(axes, drawn, log=True)
            yield figure

    title = "latency distribution"
    return Plot(f"{scene.info.key}-latency", title, _alt(scene, title), len(found), False, draw)


def _told(scene: Scene, point: Point) -> str:
    """Over a panel of one situation."""
    if scene.info.axis.scale == "category":
        return point.label
    return ", ".join(filter(None, (point.variant, f"{scene.info.axis.name} {point.label}")))


def _alt(scene: Scene, title: str) -> str:
    return f"{scene.info.key} {scene.info.title}: {title}, for {', '.join(scene.looks)}; figures in the table"
