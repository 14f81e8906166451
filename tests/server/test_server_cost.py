"""The cost model: between and beyond what was measured, and what it learns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.server.cost import CostModel

MEASURED = {1: 0.001, 8: 0.002, 32: 0.004}


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [(0, 0.001), (1, 0.001), (8, 0.002), (20, 0.003), (32, 0.004), (64, 0.008), (320, 0.04)],
)
def test_linear_between_what_was_measured(rows: int, seconds: float) -> None:
    assert CostModel(MEASURED).expected(rows) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("budget", "rows"), [(0.0, 0), (0.0009, 0), (0.001, 1), (0.0039, 8), (0.004, 32), (1.0, 32)]
)
def test_what_fits_into_a_budget(budget: float, rows: int) -> None:
    assert CostModel(MEASURED).rows_within(budget) == rows


def test_a_row_costs_what_it_does_in_the_best_batch() -> None:
    assert CostModel(MEASURED).row_seconds == pytest.approx(0.004 / 32)


def test_nothing_is_known_at_first() -> None:
    model = CostModel({})
    assert (model.row_seconds, model.expected(5), model.rows_within(1.0)) == (0.0, 0.0, 0)
    model.learn(10, 1.0)
    assert 0 < model.row_seconds <= 0.1
    for _ in range(100):
        model.learn(10, 1.0)
    assert model.row_seconds == pytest.approx(0.1, rel=1e-3)


def test_a_busy_machine_slows_every_size_down() -> None:
    model = CostModel(MEASURED)
    for _ in range(100):
        model.learn(8, 0.006)
    assert model.row_seconds == pytest.approx(3 * 0.004 / 32, rel=1e-3)


def test_one_outlier_changes_little() -> None:
    model = CostModel(MEASURED)
    model.learn(8, 0.02)
    assert model.row_seconds == pytest.approx(1.9 * 0.004 / 32)


def test_batches_without_rows_teach_nothing() -> None:
    model = CostModel({0: 5.0, **MEASURED})
    before = model.row_seconds
    model.learn(0, 10.0)
    assert model.row_seconds == before


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    costs=st.dictionaries(st.integers(1, 64), st.floats(1e-6, 1.0), max_size=5),
    seen=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 10)), max_size=10),
)
def test_never_negative_nor_infinite(costs: dict[int, float], seen: list[tuple[int, float]]) -> None:
    model = CostModel(costs)
    for rows, seconds in seen:
        model.learn(rows, seconds)
        assert 0 <= model.row_seconds < float("inf")
        assert model.expected(rows) >= 0


def test_a_row_costs_more_where_batches_are_smaller() -> None:
    model = CostModel(MEASURED)
    model.learn(32, 0.006)
    slowdown = model.row_seconds / (0.004 / 32)
    for largest, seconds in ((8, 0.002 / 8), (4, model.expected(4) / 4), (1, 0.001), (32, 0.004 / 32)):
        model.limit(largest)
        assert model.row_seconds == pytest.approx(seconds * slowdown)
    # Beyond what was measured, as in the largest batch.
    model.limit(64)
    assert model.row_seconds == pytest.approx(0.004 / 32 * slowdown)


def test_nothing_known_stays_so() -> None:
    model = CostModel({})
    model.learn(10, 1.0)
    learned = model.row_seconds
    model.limit(1)
    assert model.row_seconds == learned
