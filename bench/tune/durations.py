"""Durations as people type and read them."""

from __future__ import annotations

import math
import re
from typing import Final

_UNITS: Final = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zµ]*)\s*")


def parse_duration(text: str) -> float:
    """``20ms``, ``0.02s`` and ``0.02`` are the same: seconds without a unit.

    Raises:
        ValueError: it is no duration; says what was found and what is expected.
    """
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"found {text!r}; expected a duration such as 20ms, 0.02s or 0.02 (seconds)")
    return seconds


def duration(seconds: float) -> str:
    """``20 ms``; three digits that count."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds * 1e6)} us" if seconds else "0"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
