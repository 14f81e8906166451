"""Histograms of latencies: what goes in comes out, to three digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("hdrh", reason="the histograms need hdrhistogram")

from tensorwire.bench import histogram

FEW = settings(deadline=None, derandomize=True, max_examples=12)
LATENCIES = st.lists(st.floats(1e-6, 60.0), min_size=1, max_size=50)


def observed(samples: list[float], level: float) -> float:
    return float(np.percentile(samples, level * 100, method="inverted_cdf"))


@FEW
@given(LATENCIES, st.floats(0.0, 1.0))
def test_quantiles_are_those_of_the_samples_to_three_digits(samples: list[float], level: float) -> None:
    (found,) = histogram.quantiles(histogram.encode(np.array(samples)), [level])
    # A counter covers at most a thousandth; a microsecond is the least that is told apart.
    expected = observed(samples, level)
    assert expected - 0.5e-6 - 1e-12 <= found <= expected * 1.001 + 1.5e-6


@FEW
@given(LATENCIES, LATENCIES)
def test_a_merged_histogram_is_that_of_all_samples(one: list[float], other: list[float]) -> None:
    merged = histogram.merge([histogram.encode(np.array(one)), "", histogram.encode(np.array(other))])
    assert histogram.distribution(merged) == histogram.distribution(histogram.encode(np.array(one + other)))


@FEW
@given(LATENCIES)
def test_a_distribution_ascends_to_all_samples(samples: list[float]) -> None:
    latencies, shares = histogram.distribution(histogram.encode(np.array(samples)))
    assert latencies == sorted(set(latencies))
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0


def test_no_samples_make_an_empty_histogram() -> None:
    assert histogram.encode(np.empty(0)) == ""
    assert histogram.merge([]) == histogram.merge([""]) == ""
    assert histogram.quantiles("", [0.5, 0.99]) == [0.0, 0.0]
    assert histogram.distribution("") == ([], [])


def test_what_is_out_of_range_counts_as_the_nearest() -> None:
    encoded = histogram.encode(np.array([1e-9, 3600.0]))
    assert histogram.quantiles(encoded, [0.0, 1.0]) == [pytest.approx(1e-6), pytest.approx(60.0, rel=1e-3)]


def test_many_samples_take_one_call_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    record = histogram._Histogram.record_value

    def counting(self: object, value: int, count: int = 1) -> object:
        nonlocal calls
        calls += 1
        return record(self, value, count)

    monkeypatch.setattr(histogram._Histogram, "record_value", counting)
    samples = np.random.default_rng(0).lognormal(-8, 1.5, 200_000)
    encoded = histogram.encode(samples)
    assert calls < 10_000
    (median,) = histogram.quantiles(encoded, [0.5])
    assert median == pytest.approx(float(np.median(samples)), rel=2e-3)
