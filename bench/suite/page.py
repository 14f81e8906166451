"""The HTML page: one file that opens without a network. Needs jinja2 and matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from . import notes
from .drawing import inline, swatch
from .figures import BASELINE, number
from .lead import Lead, lead
from .plots import Plot, Scene, scenario_plots, split_plot
from .results import ScenarioInfo, Suite
from .styles import styles
from .tables import CEILING_HEADS, CEILING_MARK, Table, ceiling_rows, scenario_table
from .verdict import Verdict, judge

_FOLDER: Final = Path(__file__).parent
_TEMPLATE: Final = "page.html"
_STYLE: Final = "page.css"


class Drawn(NamedTuple):
    """A plot as the template wants it. ``svg`` is safe to stand in the page."""

    title: str
    svg: Any
    wide: bool


class Section(NamedTuple):
    """A scenario as the template wants it. ``legend``: (swatch, system); ``hollow``: some marks are."""

    info: ScenarioInfo
    plots: list[Drawn]
    legend: list[tuple[Any, str]]
    hollow: bool
    table: Table
    missing: str


def write_page(suite: Suite, path: Path) -> None:
    """Write everything that a run gave as one HTML file.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_text(page(suite), encoding="utf-8")


def page(suite: Suite) -> str:
    """The same as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdict = judge(suite)
    return environment.get_template(_TEMPLATE).render(_content(suite, verdict, lead(suite, verdict)))


def _content(suite: Suite, verdict: Verdict, first: Lead) -> dict[str, Any]:
    from markupsafe import Markup

    split = split_plot(suite)
    return {
        "suite": suite,
        "verdict": verdict,
        "lead": first,
        "notes": notes,
        "style": Markup((_FOLDER / _STYLE).read_text(encoding="utf-8")),
        "setting": notes.setting_lines(suite),
        "failures": notes.failure_lines(verdict),
        "sections": [_section(suite, info) for info in suite.scenarios],
        "split": None if split is None else _drawn(split),
        "number": number,
        "baseline": BASELINE,
        "mark": CEILING_MARK,
        "ceiling_heads": CEILING_HEADS,
        "ceiling_rows": ceiling_rows(suite),
    }


def _section(suite: Suite, info: ScenarioInfo) -> Section:
    looks = Scene.of(suite, info).looks
    plots = scenario_plots(suite, info)
    return Section(
        info=info,
        plots=[_drawn(plot) for plot in plots],
        legend=_legend(list(looks)),
        hollow=any(plot.hollow for plot in plots),
        table=scenario_table(suite, info),
        missing=notes.missing_line(suite, info),
    )


def _legend(systems: Sequence[str]) -> list[tuple[Any, str]]:
    from markupsafe import Markup

    return [(Markup(swatch(style, label="")), system) for system, style in styles(systems).items()]


def _drawn(plot: Plot) -> Drawn:
    from markupsafe import Markup

    with plot.draw() as figure:
        svg = Markup(inline(figure, plot.key, plot.alt))
    return Drawn(plot.title, svg, plot.panels > 1)
