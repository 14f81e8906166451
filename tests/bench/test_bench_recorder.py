"""Recorder, percentiles, spread and comparison of rounds."""

from __future__ import annotations

import numpy as np
import pytest
from tensorwire.bench.recorder import Comparison, CpuUse, Recorder, Spread, summarise

NO_CPU = CpuUse(0.0, 0.0, 0.0)


def test_percentiles_are_observed_values() -> None:
    samples = np.arange(1, 1001, dtype=np.float64)[::-1].copy()
    measurement = summarise(samples, 2.0, NO_CPU, {})
    assert measurement.requests == 1000
    assert measurement.throughput == 500
    assert measurement.p50 == 501
    assert measurement.p99 == 991
    assert measurement.p999 == 1000
    assert measurement.max == 1000


def test_cpu_is_per_request_and_others_in_cores() -> None:
    measurement = summarise(np.ones(100), 2.0, CpuUse(server=0.5, client=1.0, others=1.0), {})
    assert measurement.server_cpu_per_request == pytest.approx(0.005)
    assert measurement.client_cpu_per_request == pytest.approx(0.01)
    assert measurement.other_cores == 0.5


def test_nothing_completed_gives_zeros_and_keeps_the_errors() -> None:
    measurement = summarise(np.empty(0), 1.0, NO_CPU, {"UNAVAILABLE": 3})
    assert (measurement.requests, measurement.throughput, measurement.p99) == (0, 0.0, 0.0)
    assert measurement.errors == {"UNAVAILABLE": 3}


def test_recorder_counts_between_begin_and_end_only() -> None:
    recorder = Recorder()
    recorder.record(9.0)
    recorder.error("INTERNAL")
    assert recorder.ended == 2
    recorder.begin()
    recorder.record(1.0)
    recorder.record(2.0)
    recorder.error("UNAVAILABLE")
    recorder.end()
    recorder.record(9.0)
    recorder.error("INTERNAL")
    measurement = recorder.summary(1.0, NO_CPU)
    assert (measurement.requests, measurement.throughput, measurement.p999) == (2, 2.0, 2.0)
    assert measurement.errors["UNAVAILABLE"] == 1


def test_calls_left_hanging_show_in_the_maximum_and_the_errors() -> None:
    recorder = Recorder()
    recorder.begin()
    recorder.record(1.0)
    recorder.end()
    recorder.record(9.0)
    recorder.error("DEADLINE_EXCEEDED")
    measurement = recorder.summary(1.0, NO_CPU)
    assert (measurement.requests, measurement.p999, measurement.max) == (1, 1.0, 9.0)
    assert measurement.errors == {"DEADLINE_EXCEEDED": 1}
    recorder.record(9.0)  # the statistics hold no view that would stop the array from growing


def test_spread_is_median_and_half_the_range() -> None:
    spread = Spread.of([8.0, 12.0, 10.0])
    assert (spread.median, spread.low, spread.high) == (10.0, 8.0, 12.0)
    assert spread.relative == pytest.approx(0.2)
    assert Spread.of([0.0]).relative == 0.0


def test_disjoint_rounds_show_a_difference() -> None:
    comparison = Comparison.of([20.0, 22.0, 24.0], [10.0, 11.0, 12.0])
    assert comparison.shown
    assert comparison.ratio == 2.0
    assert comparison.low == pytest.approx(20 / 12)
    assert comparison.high == pytest.approx(2.4)


def test_overlapping_rounds_do_not() -> None:
    assert not Comparison.of([10.0, 20.0, 30.0], [9.0, 10.0, 11.0]).shown


def test_without_a_baseline_there_is_no_ratio() -> None:
    comparison = Comparison.of([1.0], [0.0])
    assert not comparison.shown
    assert comparison.ratio == 0.0
