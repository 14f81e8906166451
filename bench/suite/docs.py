"""The latest full run in the documentation: its summary between two marks, its plots beside the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from .drawing import alone, legend
from .plots import Plot, Scene, scenario_plots, split_plot
from .results import Suite
from .summary import summary

BEGIN: Final = "<!-- latest run: begin; `tensorwire bench report RESULTS --docs PAGE` writes what follows -->"
END: Final = "<!-- latest run: end -->"
#: Headings of the run stand below those of the page.
_LEVEL: Final = 3
_BETWEEN: Final = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9]+")


class NoMarks(ValueError):
    """The page does not have both marks, each once."""


def write_docs(suite: Suite, path: Path) -> list[Path]:
    """Put the summary of a run into a page that has :data:`BEGIN` and :data:`END`, and its plots beside it.

    The plots go into a folder named as the page without its ending; SVG files there are replaced. Gives the
    paths of what was written.

    Raises:
        NoMarks: the page has not both marks, each once.
        OSError: it cannot be read, or something cannot be written.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or len(_BETWEEN.findall(text)) != 1:
        raise NoMarks(f"{path} must hold these two lines once, in this order:\n{BEGIN}\n{END}")
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    pictures: dict[str, list[tuple[str, str]]] = {}
    written = [path]
    for key, plot, looks in _plots(suite):
        file = folder / f"{_NOT_IN_NAMES.sub('-', plot.key).strip('-')}.svg"
        with plot.draw() as figure:
            legend(figure, looks, hollow=plot.hollow)
            file.write_text(alone(figure, plot.alt), encoding="utf-8")
        pictures.setdefault(key, []).append((plot.title, f"{folder.name}/{file.name}"))
        written.append(file)
    found = summary(suite, level=_LEVEL, pictures=pictures)
    path.write_text(_BETWEEN.sub(lambda _: f"{BEGIN}\n\n{found}\n{END}", text), encoding="utf-8")
    return written


def _plots(suite: Suite) -> list[tuple[str, Plot, dict[str, Any]]]:
    """The first plot of each scenario and its distribution: the page stays small."""
    found: list[tuple[str, Plot, dict[str, Any]]] = []
    for info in suite.scenarios:
        looks = Scene.of(suite, info).looks
        plots = scenario_plots(suite, info)
        chosen = [plot for plot in plots if plot is plots[0] or plot.key.endswith(("latency", "refusal"))]
        found += [(info.key, plot, dict(looks)) for plot in chosen]
    split = split_plot(suite)
    return [*found, ("split", split, {})] if split is not None else found
