"""Markdown that reads well as plain text too: lists, and tables whose columns line up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

Side = Literal["left", "right"]

#: Characters that Markdown or HTML would take for their own.
_SPECIAL: Final = re.compile(r"([\\`*_<>|\[\]])")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {escaped(line)}" for line in lines)


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]], aligns: Sequence[Side] = ()) -> str:
    """A table; ``aligns`` of its columns, left where none is said."""
    sides = [*aligns, *["left"] * (len(heads) - len(aligns))]
    cells = [[escaped(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [
        f"{'-' * (width - 1)}:" if side == "right" else "-" * width
        for width, side in zip(widths, sides, strict=True)
    ]
    padded = [
        [
            cell.rjust(width) if side == "right" else cell.ljust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        ]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))
