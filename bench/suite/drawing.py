"""From a matplotlib figure to SVG that stands in a page: light and dark, no outside references, own ids.

matplotlib is imported when something is drawn. No pyplot: it keeps figures, and looks for a display.
"""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, cast
from xml.etree import ElementTree

from .styles import Style

#: Drawn in these colours, shown in those of the page (CSS variables) or of a file of its own.
INK: Final = "#010101"
FAINT: Final = "#020202"
GROUND: Final = "#030303"
_IN_PAGE: Final = {INK: "var(--ink)", FAINT: "var(--line)", GROUND: "var(--ground)"}
_ALONE: Final = {INK: "#1c2128", FAINT: "#d8dde3", GROUND: "#ffffff"}
#: Inches: one panel, and what each further one adds. 72 units of the SVG are an inch.
PANEL: Final = (5.7, 3.5)
_FURTHER: Final = 5.5
_SETTINGS: Final[dict[str, Any]] = {
    # Text stays text: small, sharp, can be searched, and in the page's type.
    "svg.fonttype": "none",
    "svg.hashsalt": "tensorwire",
    # A dollar in a name is a dollar.
    "text.parse_math": False,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_SVG: Final = "{http://www.w3.org/2000/svg}"
_XLINK: Final = "{http://www.w3.org/1999/xlink}"
_LONG: Final = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def canvas(
    panels: int = 1, height: float = PANEL[1], *, width: float = 0.0, share: bool = True
) -> Generator[tuple[Any, list[Any]]]:
    """A figure with so many axes side by side; ``share``: one scale for what is up. Sizes in inches."""
    from matplotlib.figure import Figure

    with _settings():
        size = width or PANEL[0] + (panels - 1) * _FURTHER, height
        figure: Any = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, panels, sharey=share, squeeze=False)[0]
        yield figure, list(axes)


def _settings() -> AbstractContextManager[None]:
    import matplotlib as mpl

    context: Any = cast(Any, mpl).rc_context
    return context(_SETTINGS)


def inline(figure: Any, key: str, alt: str) -> str:
    """SVG to stand in an HTML page; ``key`` must be unique there, ``alt`` says what is to be seen."""
    root = _element(figure)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = {
            name.removeprefix(_XLINK): _local(name.removeprefix(_XLINK), value, key)
            for name, value in element.attrib.items()
        }
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": alt}
    return _coloured(ElementTree.tostring(root, "unicode"), _IN_PAGE)


def alone(figure: Any, alt: str) -> str:
    """SVG that is a file, on white."""
    root = _element(figure)
    for child in root.findall(f"{_SVG}metadata"):
        root.remove(child)
    ground = ElementTree.Element(f"{_SVG}rect", {"width": "100%", "height": "100%", "fill": GROUND})
    title = ElementTree.Element(f"{_SVG}title")
    title.text = alt
    root.insert(0, ground)
    root.insert(0, title)
    ElementTree.register_namespace("", _SVG.strip("{}"))
    ElementTree.register_namespace("xlink", _XLINK.strip("{}"))
    return _coloured(ElementTree.tostring(root, "unicode"), _ALONE)


def _element(figure: Any) -> ElementTree.Element:
    buffer = io.StringIO()
    with _settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # Hundredths of a point are more than a screen shows, and half of the file is figures.
    short = _LONG.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), buffer.getvalue())
    return ElementTree.fromstring(short)


def _local(name: str, value: str, key: str) -> str:
    """An attribute whose ids are the page's only."""
    if name == "id":
        return f"{key}-{value}"
    if name == "href" and value.startswith("#"):
        return f"#{key}-{value[1:]}"
    return _REFERENCE.sub(rf"url(#{key}-\1)", value)


def _coloured(text: str, colours: dict[str, str]) -> str:
    for drawn, shown in colours.items():
        text = text.replace(drawn, shown)
    return text


def plainly(value: float, _: object = None) -> str:
    """A number on an axis."""
    return f"{value:,.6g}"


def scale_up(axes: Any, values: Sequence[float], *, log: bool) -> None:
    """The upward axis: logarithmic where asked for and possible, with numbers that can be read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    high = max(values)
    low = min((value for value in values if value > 0), default=0.0)
    if log and low:
        axes.set_yscale("log")
        room = max(high / low, 1.5) ** 0.06
        axes.set_ylim(low / room, high * room)
        span = high / low
        subs = (1,) if span > 200 else (1, 2, 5) if span > 12 else (1, 1.5, 2, 3, 5, 7)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=subs))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, (high or 1) * 1.08)
    axes.yaxis.set_major_formatter(FuncFormatter(plainly))


def legend(figure: Any, looks: Mapping[str, Style], *, hollow: bool) -> None:
    """Below the plot, for a file of its own; a page has its legend as text."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=style.colour,
            linestyle=(0, style.dash) if style.dash else "-",
            marker=style.marker,
            markersize=5,
            label=system,
        )
        for system, style in looks.items()
    ]
    if hollow:
        told = "near the generator's limit"
        handles.append(
            Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor=GROUND, label=told)
        )
    if handles:
        columns = 3 if figure.get_figwidth() < 8 else 6
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8,
            columnspacing=1.2,
            handletextpad=0.5,
        )
        rows = -(-len(handles) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows)


#: matplotlib's codes of a path's segments, and SVG's.
_SEGMENTS: Final = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}


def swatch(style: Style, *, label: str) -> str:
    """A short line with a system's marker, as SVG for a legend."""
    from matplotlib.markers import MarkerStyle

    marker: Any = MarkerStyle(style.marker)
    path = marker.get_path().transformed(marker.get_transform().scale(7 if style.marker == "*" else 5.5))
    data = " ".join(
        f"{_SEGMENTS[int(code)]}{' '.join(f'{value:.2f}' for value in values) if code != 79 else ''}"
        for values, code in path.iter_segments()
    )
    root = ElementTree.Element("svg", {"viewBox": "-17 -6 34 12", "class": "swatch", "role": "img"})
    root.attrib |= {"aria-label": label, "stroke": style.colour}
    dash = " ".join(f"{length * 1.5:g}" for length in style.dash)
    ElementTree.SubElement(
        root, "path", {"d": "M-16 0H16", "stroke-width": "1.7", "stroke-dasharray": dash or "none"}
    )
    fill = style.colour if marker.is_filled() else "none"
    ElementTree.SubElement(
        root, "path", {"d": data, "fill": fill, "stroke-width": "1.1", "transform": "scale(1 -1)"}
    )
    return ElementTree.tostring(root, "unicode")
