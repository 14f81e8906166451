"""Whole sweeps of `tensorwire tune` against simulated servers: the clock moves when something is measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import PRESENT, SPACE, Simulated, outcome, plan, queue, sweep
from tensorwire.bench.recorder import CpuUse, Recorder, Samples, merge
from tensorwire.bench.tune.crew import sensible_processes
from tensorwire.bench.tune.outcome import Outcome
from tensorwire.bench.tune.points import Point
from tensorwire.bench.tune.requests import cut, described, made_up
from tensorwire.rpc.types import ModelMetadata, TensorSpec


def chosen(site: Simulated, **values: Any) -> Point:
    how = plan(**values)
    choice = outcome(sweep(site, how), how).choice
    assert choice is not None
    return choice.point


# ---------------------------------------------------------------- what is found


def test_the_best_settings_are_found_and_confirmed() -> None:
    site = Simulated()
    how = plan()
    session = sweep(site, how)
    found = outcome(session, how)
    assert found.choice is not None
    assert found.choice.point == Point("thread", 4, 32, 0.0)
    assert found.chosen is not None
    assert found.chosen.confirmed
    # The grid has 108.
    assert len(session.measured) < 25
    assert site.applied[0] == PRESENT
    assert not session.cut


def test_the_full_grid_agrees() -> None:
    assert chosen(Simulated(), full_grid=True, callers=(16,)) == chosen(Simulated(), callers=(16,))


def test_none_meets_the_objective() -> None:
    how = plan(objective=0.0001)
    found = outcome(sweep(Simulated(), how), how)
    assert found.choice is not None
    assert not found.choice.meets
    assert found.chosen is not None
    measured = [line.rung.measured.p99 for line in found.lines if line.rung]
    assert found.chosen.rung is not None
    assert found.chosen.rung.measured.p99 == min(measured)


def test_what_the_server_refuses_is_in_the_table_with_the_reason() -> None:
    site = Simulated(refused=lambda point: "one call at a time" if point.count > 1 else "")
    how = plan()
    found = outcome(sweep(site, how), how)
    assert {line.refused for line in found.lines if line.point.count > 1} == {"one call at a time"}
    assert found.choice is not None
    assert found.choice.point == Point("thread", 1, 32, 0.0)


def test_points_with_errors_are_not_chosen() -> None:
    site = Simulated()
    site.errors = lambda point, callers: {"INTERNAL": 3} if point.count == 4 else {}
    how = plan()
    found = outcome(sweep(site, how), how)
    assert found.choice is not None
    assert found.choice.point.count == 2
    assert {str(line.errors) for line in found.lines if line.point.count == 4} != {"{}"}


def test_a_recommendation_that_does_not_hold_gives_way_to_the_next() -> None:
    """Four workers were lucky while they were searched for."""
    best = Point("thread", 4, 32, 0.0)
    site = Simulated()

    def surface(point: Point, callers: int) -> tuple[float, float]:
        rate, p99 = queue(point, callers)
        times = sum(driven == (point, callers) for driven in site.driven)
        return rate, p99 if point != best or times < 2 else 1.0

    site._surface = surface
    how = plan()
    found = outcome(sweep(site, how), how)
    assert found.choice is not None
    assert found.choice.point != best
    assert found.choice.meets
    assert found.chosen is not None
    assert found.chosen.confirmed


def test_settings_before_that_were_unlucky_at_first_get_another_chance() -> None:
    """Their first ladder ends at four callers; the others, which are no better, begin there and go on."""
    site = Simulated()

    def surface(point: Point, callers: int) -> tuple[float, float]:
        first = sum(driven == PRESENT for driven, _ in site.driven) <= 5
        return 100.0 * callers, 0.5 if callers > 128 or (point == PRESENT and callers > 4 and first) else 0.01

    site._surface = surface
    how = plan()
    session = sweep(site, how)
    found = outcome(session, how)
    assert {rung.callers for rung in session.baselines} == {4}
    assert found.choice is not None
    assert found.choice.point == PRESENT
    assert found.lines[0].rung is not None
    assert found.lines[0].rung.callers == 128
    assert [line.relative for line in found.lines if line.rung and line.rung.callers == 128][:3] == [1.0] * 3


def test_a_machine_that_becomes_slower_does_not_decide() -> None:
    site = Simulated()
    site.speed = lambda now: 1 / (1 + now / 400)
    assert chosen(site, callers=(64,), objective=1.0) == Point("thread", 4, 32, 0.0)
    how = plan(callers=(64,), objective=1.0)
    session = sweep(site, how)
    throughputs = [baseline.measured.throughput for baseline in session.baselines]
    assert throughputs == sorted(throughputs, reverse=True)
    (line,) = [one for one in outcome(session, how).lines if one.point == Point("thread", 4, 32, 0.0)]
    # Four times as many workers: batches of 16 instead of 32, each takes 2.6 ms instead of 4.2.
    assert line.relative == pytest.approx(4 * 16 / 2.6 / (32 / 4.2), rel=0.1)


# ---------------------------------------------------------------- how it is measured


def test_baselines_are_taken_every_few_points_and_at_the_end() -> None:
    site = Simulated()
    session = sweep(site, plan(callers=(8,), every=2))
    at = [number for number, (point, _) in enumerate(site.driven) if point == PRESENT]
    assert len(session.baselines) >= 4
    assert all(later - earlier <= 3 for earlier, later in pairwise(at))
    assert at[-1] >= len(site.driven) - 2


def test_given_callers_are_driven_at_every_point() -> None:
    session = sweep(Simulated(), plan(callers=(1, 8)))
    assert {tuple(rung.callers for rung in one.rungs) for one in session.measured} == {(1, 8)}


@settings(deadline=None)
@given(budget=st.floats(5, 400), seconds=st.floats(0.1, 3), every=st.integers(1, 5), grid=st.booleans())
def test_the_budget_is_kept(budget: float, seconds: float, every: int, grid: bool) -> None:
    site = Simulated()
    session = sweep(site, plan(budget=budget, seconds=seconds, every=every, full_grid=grid))
    # The first point is measured at least once; a confirmation may follow each other.
    most = 8 * (max(0.2, 0.15 * seconds) + seconds + 0.2)
    assert site.now <= max(budget, most) + most
    if session._search.next is not None:
        assert session.cut


def test_where_no_call_is_answered_it_ends_at_once() -> None:
    site = Simulated()
    site.errors = lambda point, callers: {"UNAVAILABLE": 5}
    how = plan()
    session = sweep(site, how)
    assert len(session.measured) == 1
    assert outcome(session, how).choice is None


def test_what_was_measured_is_there_after_an_interruption() -> None:
    site = Simulated()
    how = plan()
    session = sweep(site, how, run=False)
    measure = site.measure

    def interrupted(callers: int, warmup: float, seconds: float) -> Any:
        if len(site.driven) == 12:
            raise KeyboardInterrupt
        return measure(callers, warmup, seconds)

    site.measure = interrupted  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KeyboardInterrupt):
        session.run()
    found = outcome(session, how, ended="interrupted")
    assert len(found.lines) > 1
    assert found.choice is not None


def test_the_outcome_survives_json() -> None:
    how = plan()
    found = outcome(sweep(Simulated(), how), how)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Outcome) == found
    assert len(SPACE) == 108


# ---------------------------------------------------------------- load from several processes


def samples(latencies: list[float], cpu: CpuUse, errors: int = 0) -> Samples:
    recorder = Recorder()
    recorder.record(5.0)
    recorder.error("UNAVAILABLE")
    recorder.begin()
    for latency in latencies:
        recorder.record(latency)
    recorder.end()
    recorder.record(9.0)
    for _ in range(errors):
        recorder.error("INTERNAL")
    return recorder.samples(2.0, cpu)


def test_samples_of_several_processes_make_one_measurement() -> None:
    parts = [
        samples([0.001] * 98, CpuUse(1.0, 0.5, 0.75)),
        samples([0.002, 0.003], CpuUse(1.0, 0.25, 1.0), errors=2),
    ]
    assert [part.calls for part in parts] == [101, 7]
    found = merge(parts)
    assert (found.requests, found.throughput, found.errors) == (100, 50.0, {"INTERNAL": 2})
    assert (found.p50, found.p99, found.max) == (0.001, 0.003, 9.0)
    assert found.server_cpu_per_request == pytest.approx(0.01)
    assert found.client_cpu_per_request == pytest.approx(0.0075)
    assert found.other_cores == pytest.approx(0.25)


def test_no_more_load_processes_than_the_machine_has_room_for() -> None:
    assert [sensible_processes(cores) for cores in (1, 2, 8, 64)] == [1, 1, 2, 4]


# ---------------------------------------------------------------- requests

METADATA = ModelMetadata(
    name="m",
    version=1,
    platform="",
    inputs=(
        TensorSpec("x", "float32", (None, 4)),
        TensorSpec("n", "int64", (None, None)),
        TensorSpec("t", "string", (None,)),
        TensorSpec("o", "bfloat16", (None, 2), True),
    ),
    outputs=(),
    batched=True,
)


def test_requests_are_made_up_from_the_metadata() -> None:
    random, zeros, ones = made_up(METADATA, 3)
    assert len(random) > 1
    for request in (*random, *zeros, *ones):
        assert {name: (array.shape, str(array.dtype)) for name, array in request.items()} == {
            "x": ((3, 4), "float32"),
            "n": ((3, 1), "int64"),
            "t": ((3,), "object"),
        }
    assert not np.array_equal(random[0]["x"], random[1]["x"])
    assert (zeros[0]["x"].sum(), ones[0]["x"].sum(), zeros[0]["t"].tolist()) == (0, 12, ["", "", ""])
    assert described(zeros[0], METADATA) == "x float32[3, 4], n int64[3, 1], t string[3]"


def test_a_sample_is_one_request_or_cut_into_some() -> None:
    inputs = {"x": np.arange(20).reshape(5, 4), "y": np.arange(5)}
    assert cut(inputs, None, batched=True) == [inputs]
    pairs = cut(inputs, 2, batched=True)
    assert [request["y"].tolist() for request in pairs] == [[0, 1], [2, 3]]
    (repeated,) = cut(inputs, 8, batched=True)
    assert repeated["y"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    with pytest.raises(ValueError, match="no rows"):
        cut(inputs, 2, batched=False)
    with pytest.raises(ValueError, match="different numbers of rows"):
        cut({"x": np.zeros(2), "y": np.zeros(3)}, 1, batched=True)
