"""When calls are due, and which are slow."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.bench.arrivals import Arrivals, Due, due_times, slow_flags
from tensorwire.bench.clients import parts
from tensorwire.bench.load import Job

FEW = settings(deadline=None, derandomize=True, max_examples=25)
RATES = st.floats(0.5, 50_000.0)
BEGINS = st.floats(0.0, 1e6)


def first(arrivals: Arrivals, rate: float, begin: float, count: int, seed: int = 0) -> list[float]:
    return list(itertools.islice(due_times(arrivals, rate, begin, seed=seed), count))


@FEW
@given(st.sampled_from(("fixed", "poisson")), RATES, BEGINS)
def test_nothing_is_due_before_the_beginning_and_times_ascend(
    arrivals: Arrivals, rate: float, begin: float
) -> None:
    times = first(arrivals, rate, begin, 600)
    assert times[0] >= begin
    assert times == sorted(times)


@FEW
@given(RATES, BEGINS)
def test_fixed_arrivals_keep_their_distance(rate: float, begin: float) -> None:
    times = first("fixed", rate, begin, 1000)
    assert times[0] - begin <= 1 / rate * (1 + 1e-6) + 1e-9
    assert np.allclose(np.diff(times), 1 / rate, atol=1e-9)


@FEW
@given(RATES, st.integers(1, 8), st.floats(0.0, 1000.0))
def test_fixed_arrivals_of_several_processes_interleave_evenly(
    rate: float, processes: int, begin: float
) -> None:
    job = Job(case="64 B", concurrency=8, warmup=0, duration=1, arrivals="fixed", rate=rate)
    # Each begins when it is ready.
    starts = [begin + 0.37 * number / rate for number in range(processes)]
    streams = [
        list(itertools.islice(part.due_times(start), 50))
        for part, start in zip(parts(job, processes), starts, strict=True)
    ]
    latest, soonest = max(stream[0] for stream in streams), min(stream[-1] for stream in streams)
    together = sorted(due for stream in streams for due in stream if latest <= due <= soonest)
    assert np.allclose(np.diff(together), 1 / rate, rtol=1e-3, atol=1e-8)


def test_poisson_arrivals_have_their_rate_and_their_spread() -> None:
    gaps = np.diff(first("poisson", 200.0, 5.0, 20_000))
    assert float(gaps.mean()) == pytest.approx(1 / 200, rel=0.03)
    assert float(gaps.std()) == pytest.approx(1 / 200, rel=0.05)


@FEW
@given(st.integers(0, 1 << 32))
def test_a_seed_repeats_its_arrivals_and_no_other_one_does(seed: int) -> None:
    assert first("poisson", 10.0, 0.0, 5, seed) == first("poisson", 10.0, 0.0, 5, seed)
    assert first("poisson", 10.0, 0.0, 5, seed) != first("poisson", 10.0, 0.0, 5, seed + 1)


def test_processes_have_seeds_of_their_own_and_share_callers_and_rate() -> None:
    job = Job(case="64 B", concurrency=7, warmup=0, duration=1, arrivals="poisson", rate=300.0, seed=1)
    shared = parts(job, 3)
    assert len({part.seed for part in shared}) == 3
    assert [part.concurrency for part in shared] == [3, 2, 2]
    assert sum(part.rate for part in shared) == pytest.approx(300.0)
    assert parts(job, 3) == shared


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0; found 0"):
        due_times("fixed", 0.0, 0.0)


@FEW
@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_the_share_of_slow_calls_is_kept(share: float, seed: int) -> None:
    flags = list(itertools.islice(slow_flags(share, seed), 20_000))
    assert sum(flags) / len(flags) == pytest.approx(share, abs=0.02)
    assert flags == list(itertools.islice(slow_flags(share, seed), 20_000))


def test_what_is_slow_does_not_depend_on_when_it_is_due() -> None:
    gaps = np.diff(first("poisson", 1.0, 0.0, 20_001, seed=3))
    flags = np.array(list(itertools.islice(slow_flags(0.3, 3), 20_001)), np.float64)
    for shift in (0, 1):
        assert abs(float(np.corrcoef(gaps, flags[shift:][: len(gaps)])[0, 1])) < 0.05


def test_calls_are_due_until_the_end_and_count_after_the_warm_up() -> None:
    due = Due(due_times("fixed", 10.0, 0.0), counts_from=0.5, end=1.0)
    taken: list[float] = []
    while (when := due.take()) < math.inf:
        taken.append(when)
    assert taken == pytest.approx([number / 10 for number in range(10)])
    assert (due.counted, due.next) == (5, math.inf)
