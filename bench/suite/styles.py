"""How each system looks in every plot: colour of its family, shade, line and marker of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from .figures import Family, family


class Style(NamedTuple):
    """Of one system. ``dash``: lengths of strokes and gaps in widths of the line, empty for a full one."""

    colour: str
    dash: tuple[float, ...]
    marker: str


#: Shades that can be told apart by people who see colours differently, on a light and on a dark ground:
#: tensorwire blue to teal, gRPC in Python orange to red, gRPC in C++ yellow, Triton green, Thrift purple.
_SHADES: Final[dict[Family, tuple[str, ...]]] = {
    "tensorwire": ("#1f6fd0", "#3a9ff0", "#0f9fa8", "#6f7be0", "#4c8fa8"),
    "grpc": ("#d9480f", "#f08c3a", "#b5563c"),
    "grpc c++": ("#94720c", "#c9a016", "#8a8a3a"),
    "triton": ("#5f9e1f",),
    "thrift": ("#a855c7", "#d07ab8"),
    "reference": ("#8a929b", "#6b737c"),
    "other": ("#8c6d5a", "#a98f7a", "#6f7f5f"),
}
_DASHES: Final[tuple[tuple[float, ...], ...]] = ((), (6, 2), (2, 1.5), (6, 1.5, 1.5, 1.5), (9, 3))
_MARKERS: Final[dict[Family, str]] = {
    "tensorwire": "oDPpH",
    "grpc": "s^v",
    "grpc c++": "<>8",
    "triton": "X",
    "thrift": "*d",
    "reference": "x+",
    "other": "hd8",
}
#: Known systems keep their place in their family, whatever else is in a run.
_KNOWN: Final = (
    "tensorwire fused",
    "tensorwire unfused",
    "tensorwire threads",
    "tensorwire processes",
    "tensorwire front ends",
    "grpc.aio",
    "grpc.aio channels",
    "grpcio threads",
    "gRPC C++ callback",
    "gRPC C++ async",
    "gRPC C++ channels",
    "Triton",
    "Thrift Python",
    "Thrift C++",
    "bare pyzmq echo",
    "null",
)


def styles(systems: Iterable[str]) -> dict[str, Style]:
    """System -> how it looks, in the order of the legend; the same for a system in every run and plot."""
    named = list(dict.fromkeys(systems))
    found: dict[str, Style] = {}
    taken: dict[Family, int] = {}
    for system in dict.fromkeys((*_KNOWN, *sorted(named))):
        kind = family(system)
        index = taken.get(kind, 0)
        taken[kind] = index + 1
        shades, markers = _SHADES[kind], _MARKERS[kind]
        found[system] = Style(
            colour=shades[index % len(shades)],
            dash=_DASHES[index % len(_DASHES)],
            marker=markers[index % len(markers)],
        )
    ordered = [system for system in _KNOWN if system in named]
    return {system: found[system] for system in (*ordered, *(one for one in named if one not in ordered))}
