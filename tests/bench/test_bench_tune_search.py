"""The search of `tensorwire tune` on simulated surfaces; ladders, choices and durations. No I/O, no time."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import PRESENT, SPACE, measurement
from tensorwire.bench.tune.choice import Line, Measured, Rung, choose, lines, noise, reference
from tensorwire.bench.tune.durations import duration, parse_duration
from tensorwire.bench.tune.ladder import MAX_CALLERS, Ladder
from tensorwire.bench.tune.points import Point, Score, Space
from tensorwire.bench.tune.search import Search

POINTS = st.sampled_from(SPACE.all())


def search_all(search: Search, score: Callable[[Point], Score | None]) -> list[Point]:
    asked: list[Point] = []
    while (point := search.next) is not None:
        asked.append(point)
        search.tell(score(point))
    return asked


def bowl(best: Point) -> Callable[[Point], Score]:
    """Throughput falls along every axis with the distance to one point."""

    def score(point: Point) -> Score:
        far = sum(
            abs(
                SPACE.values(axis).index(getattr(point, axis)) - SPACE.values(axis).index(getattr(best, axis))
            )
            for axis in ("kind", "count", "batch", "delay")
        )
        return Score(True, 1000.0 * 0.8**far, 0.01)

    return score


# ---------------------------------------------------------------- search


@given(best=POINTS, start=POINTS)
def test_it_finds_the_optimum_of_a_convex_surface(best: Point, start: Point) -> None:
    asked = search_all(Search(SPACE, start), bowl(best))
    assert best in asked
    assert asked[0] == start
    # Far less than the grid of 108.
    assert len(asked) <= 40


@given(data=st.data(), start=POINTS)
def test_it_ends_and_asks_for_nothing_twice_whatever_it_is_told(data: st.DataObject, start: Point) -> None:
    scores = st.none() | st.builds(Score, st.booleans(), st.floats(0, 1e6), st.floats(0, 10))
    asked = search_all(Search(SPACE, start), lambda _: data.draw(scores))
    assert len(asked) == len(set(asked))
    assert set(asked) <= set(SPACE.all())


@given(start=POINTS)
def test_the_whole_grid_begins_with_the_start_and_leaves_nothing_out(start: Point) -> None:
    asked = search_all(Search(SPACE, start, full_grid=True), bowl(start))
    assert asked[0] == start
    assert sorted(asked) == sorted(SPACE.all())
    # A change of kind is a load.
    assert [point.kind for point in asked] == sorted(
        (point.kind for point in asked), key=lambda kind: kind != start.kind
    )


def test_where_nothing_meets_the_objective_it_goes_for_the_lowest_latency() -> None:
    def score(point: Point) -> Score:
        return Score(False, 100.0 * point.batch, 0.1 + 0.01 * point.batch + 0.1 / point.count)

    asked = search_all(Search(SPACE, PRESENT), score)
    assert Point("thread", 4, 1, 0.0) in asked
    assert Point("thread", 4, 1, 0.0) == min(
        asked, key=lambda point: (score(point).p99, point.kind != "thread")
    )


def test_a_plateau_is_crossed() -> None:
    """Batches above 16 make no difference; those of 4 are best."""

    def score(point: Point) -> Score:
        return Score(True, {1: 200.0, 2: 300.0, 4: 500.0, 8: 400.0}.get(point.batch, 300.0), 0.01)

    space = Space.of(("thread",), (1,), (1, 2, 4, 8, 16, 32), (0.0,))
    assert Point("thread", 1, 4, 0.0) in search_all(Search(space, PRESENT), score)


def test_what_is_refused_is_gone_around() -> None:
    """Threads of this model take one call at a time, processes do not."""

    def score(point: Point) -> Score | None:
        if point.kind == "thread" and point.count > 1:
            return None
        return Score(True, 100.0 * point.count, 0.01)

    asked = search_all(Search(SPACE, Point("process", 1, 32, 0.0)), score)
    assert Point("process", 4, 32, 0.0) in asked
    assert Point("thread", 1, 32, 0.0) in asked
    assert sum(point.kind == "thread" and point.count > 1 for point in asked) <= 4


def test_a_kind_that_cannot_be_had_is_asked_for_at_most_twice() -> None:
    def score(point: Point) -> Score | None:
        return None if point.kind == "process" else Score(True, 100.0 * point.count, 0.01)

    asked = search_all(Search(SPACE, PRESENT), score)
    assert [str(point) for point in asked if point.kind == "process"] == [
        "process x4, batch 32, delay 0",
        "process x1, batch 32, delay 0",
    ]


def test_the_start_is_the_nearest_point_of_the_space() -> None:
    space = Space.of(("process",), (2, 4), (8,), (0.001,))
    assert Search(space, Point("thread", 3, 64, 0.0)).next == Point("process", 2, 8, 0.001)


def test_a_search_that_is_over_cannot_be_told() -> None:
    search = Search(Space.of(("thread",), (1,), (1,), (0.0,)), PRESENT)
    search.tell(None)
    assert search.next is None
    with pytest.raises(ValueError, match="over"):
        search.tell(None)


# ---------------------------------------------------------------- ladder


def climb(ladder: Ladder, rate: Callable[[int], float], most: int) -> list[int]:
    """Callers driven; up to ``most`` of them meet the objective."""
    driven: list[int] = []
    while (callers := ladder.next) is not None:
        driven.append(callers)
        ladder.tell(rate(callers), meets=callers <= most)
    return driven


def test_it_doubles_until_the_objective_is_missed() -> None:
    assert climb(Ladder(), float, 8) == [1, 2, 4, 8, 16]


def test_it_ends_where_nothing_is_gained() -> None:
    assert climb(Ladder(), lambda callers: min(callers, 4.0), 100) == [1, 2, 4, 8]
    assert climb(Ladder(patience=2), lambda callers: min(callers, 4.0), 100) == [1, 2, 4, 8, 16]


def test_with_patience_a_single_miss_ends_nothing() -> None:
    ladder = Ladder(patience=2)
    driven: list[int] = []
    while (callers := ladder.next) is not None:
        driven.append(callers)
        ladder.tell(float(callers), meets=callers < 32 and callers not in (1, 4))
    assert driven == [1, 2, 4, 8, 16, 32, 64]


def test_from_a_start_it_goes_up_or_down() -> None:
    assert climb(Ladder(start=8), float, 20) == [8, 16, 32]
    assert climb(Ladder(start=32), float, 10) == [32, 16, 8]
    assert climb(Ladder(start=4), float, 0) == [4, 2, 1]


def test_it_has_an_end() -> None:
    assert climb(Ladder(start=512), float, 1 << 30) == [512, MAX_CALLERS]


def test_given_numbers_are_all_driven() -> None:
    assert climb(Ladder((1, 8, 64)), lambda _: 1.0, 0) == [1, 8, 64]


def test_failing_calls_end_it_like_a_missed_objective() -> None:
    ladder = Ladder(start=4)
    ladder.tell(100.0, meets=True, failed=True)
    assert ladder.next == 2
    ladder.tell(100.0, meets=True)
    assert ladder.next is None


# ---------------------------------------------------------------- choice


def rung(throughput: float, p99: float = 0.01, callers: int = 8, at: float = 0, **errors: int) -> Rung:
    return Rung(callers, measurement(throughput, p99, errors), at)


def line(number: int, throughput: float, p99: float = 0.01, kind: str = "thread", count: int = 1) -> Line:
    return Line(
        number=number,
        point=Point(kind, count, 32, 0.0),
        present=False,
        rung=rung(throughput, p99),
        meets=p99 <= 0.02,
        eligible=True,
        relative=throughput / 1000,
        errors={},
    )


def test_the_highest_throughput_within_the_objective() -> None:
    found = [line(1, 1000), line(2, 2000, count=4), line(3, 4000, p99=0.05)]
    choice = choose(found, 0.05)
    assert choice is not None
    assert (choice.number, choice.meets) == (2, True)


def test_within_the_noise_the_simpler_one() -> None:
    found = [line(1, 1000), line(2, 1040, kind="process", count=4), line(3, 1030, count=2)]
    choices = [choose(found, level) for level in (0.002, 0.01, 0.03)]
    assert [choice.number for choice in choices if choice] == [2, 3, 1]
    assert choices[2] is not None
    assert choices[2].reason == "simpler than 2, and the noise of +-3% leaves the difference open"


def test_batches_and_delays_are_not_changed_for_nothing() -> None:
    found = [
        msgspec.structs.replace(line(1, 1000), present=True),
        line(2, 2000, count=2),
        line(3, 2010, count=2),
    ]
    found[2] = msgspec.structs.replace(found[2], point=Point("thread", 2, 8, 0.001))
    choice = choose(found, 0.01)
    assert choice is not None
    assert choice.number == 2


def test_with_much_noise_what_is_in_force_stays() -> None:
    found = [
        msgspec.structs.replace(line(1, 1000, count=2), present=True),
        line(2, 1400),
        line(3, 9000, count=4),
    ]
    choices = [choose(found[:2], level) for level in (0.2, 0.4)]
    assert [choice.number for choice in choices if choice] == [2, 1]
    assert choices[1] is not None
    assert choices[1].reason.startswith("with noise of +-40% nothing was shown")
    shown = choose(found, 0.4)
    assert shown is not None
    assert shown.number == 3


def test_what_is_in_force_is_not_given_up_for_less() -> None:
    found = [
        line(1, 800),
        msgspec.structs.replace(line(2, 1000, count=2), present=True),
        line(3, 1100, kind="process", count=4),
    ]
    choice = choose(found, 0.5)
    assert choice is not None
    assert choice.number == 2


def test_none_meets_the_objective() -> None:
    choice = choose([line(1, 1000, 0.5), line(2, 10, 0.03)], 0.05)
    assert choice is not None
    assert (choice.number, choice.meets) == (2, False)


def test_nothing_to_choose() -> None:
    assert choose([], 0.05) is None


@given(
    rates=st.lists(st.floats(1, 1e6), min_size=1, max_size=8),
    latencies=st.lists(st.floats(1e-4, 1), min_size=8, max_size=8),
    level=st.floats(0, 0.5),
)
def test_a_choice_is_never_worse_than_the_noise(
    rates: list[float], latencies: list[float], level: float
) -> None:
    found = [
        line(number, rate, p99, count=1 + number % 3)
        for number, (rate, p99) in enumerate(zip(rates, latencies, strict=False), 1)
    ]
    choice = choose(found, level)
    assert choice is not None
    meeting = [one for one in found if one.meets]
    chosen = found[choice.number - 1]
    assert choice.meets == bool(meeting)
    if meeting:
        assert chosen.relative is not None
        best = max(one.relative or 0 for one in meeting)
        assert chosen.meets
        assert chosen.relative * (1 + level) >= best * (1 - level)


def test_errors_exclude_but_overload_only_there() -> None:
    crashed = Measured(point=PRESENT, rungs=[rung(10), rung(20, callers=16, INTERNAL=1)])
    assert not crashed.eligible
    assert crashed.errors == {"INTERNAL": 1}
    full = Measured(point=PRESENT, rungs=[rung(10), rung(20, callers=16, RESOURCE_EXHAUSTED=3)])
    assert full.eligible
    best = full.best(0.02)
    assert best is not None
    assert best.callers == 8


def test_throughput_is_compared_with_the_nearest_baselines() -> None:
    baselines = [rung(rate, at=at) for at, rate in ((0, 100.0), (10, 50.0), (20, 30.0))]
    assert reference(baselines, 5) == 75
    assert reference(baselines, 15) == 40
    assert reference(baselines, 25) == 30
    assert reference([], 5) == 0
    assert noise(baselines) == pytest.approx((100 - 30) / 2 / 50)
    assert noise(baselines[:1]) == 0.05
    measured = [
        Measured(point=PRESENT, rungs=[rung(100)]),
        Measured(point=Point("thread", 2, 32, 0.0), rungs=[rung(60, at=15)]),
    ]
    assert [one.relative for one in lines(measured, baselines, PRESENT, 0.02)] == [1.0, 1.5]


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("0.02s", 0.02),
        ("0.02", 0.02),
        (" 500 us ", 0.0005),
        ("2", 2),
        ("3min", 180),
        ("0", 0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ms", "-1", "1h", "1e3", "nan", "1 2", "1ms2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 20ms"):
        parse_duration(text)


@given(st.floats(1e-6, 1e4))
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert parse_duration(duration(seconds).replace(" ", "")) == pytest.approx(seconds, rel=0.02)


def test_durations_are_written() -> None:
    assert [duration(seconds) for seconds in (0, 0.0005, 0.02, 1.5, 180)] == [
        "0",
        "500 us",
        "20 ms",
        "1.5 s",
        "180 s",
    ]
