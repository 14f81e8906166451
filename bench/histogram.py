"""Latency distributions as HdrHistograms: small enough to keep, exact to three digits, mergeable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import hdrh.histogram
import numpy as np
from numpy.typing import NDArray

_Histogram: Final[Any] = cast(Any, hdrh.histogram).HdrHistogram
#: Microseconds: what every histogram covers. Latencies beyond count as the nearest of them.
LOWEST: Final = 1
HIGHEST: Final = 60_000_000
_DIGITS: Final = 3
#: Values below this have a counter of their own; above it a counter covers more and more of them.
_EXACT_BITS: Final = 11


def encode(latencies: NDArray[np.float64]) -> str:
    """Latencies in seconds as a compressed HdrHistogram (V2, base64); empty for none."""
    if not len(latencies):
        return ""
    histogram = _empty()
    values = np.clip(np.rint(latencies * 1e6), LOWEST, HIGHEST).astype(np.int64)
    # One call a counter instead of one a sample: what falls into the same counter is made equal first.
    spare = np.maximum(0, np.frexp(values)[1] - _EXACT_BITS)
    counters, counts = np.unique(values >> spare << spare, return_counts=True)
    for value, count in zip(counters.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return histogram.encode().decode()


def merge(encoded: Iterable[str]) -> str:
    """One histogram of all samples; empty where there are none."""
    merged = _empty()
    for one in filter(None, encoded):
        merged.decode_and_add(one)
    return merged.encode().decode() if merged.get_total_count() else ""


def quantiles(encoded: str, levels: Sequence[float]) -> list[float]:
    """Latencies in seconds at levels of 0 to 1, to three digits; for an empty histogram 0."""
    if not encoded:
        return [0.0] * len(levels)
    values, cumulative = _steps(encoded)
    ranks = np.ceil(np.asarray(levels) * cumulative[-1])
    return values[np.searchsorted(cumulative, np.maximum(1, ranks))].tolist()


def distribution(encoded: str) -> tuple[list[float], list[float]]:
    """For a plot: latencies in seconds, ascending, and the share of all samples that took no longer."""
    if not encoded:
        return [], []
    values, cumulative = _steps(encoded)
    return values.tolist(), (cumulative / cumulative[-1]).tolist()


def _steps(encoded: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The highest value of each counter in use, in seconds, and how many samples there are up to it."""
    # The iterator gives the same item again and again, changed.
    steps = [
        (item.value_iterated_to, item.count_at_value_iterated_to)
        for item in _Histogram.decode(encoded).get_recorded_iterator()
    ]
    values, counts = np.array(steps, np.int64).T
    return values * 1e-6, np.cumsum(counts)


def _empty() -> Any:
    return _Histogram(LOWEST, HIGHEST, _DIGITS)
