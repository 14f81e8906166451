"""Runs of the side-by-side benchmark with real servers and clients, as short as can be."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from suites import environment, measured
from tensorwire.bench.load import Job
from tensorwire.bench.processes import ChildError
from tensorwire.bench.recorder import Measurement
from tensorwire.bench.suite import runner
from tensorwire.bench.suite.command import NothingToRun, Wanted, plan, read_suite
from tensorwire.bench.suite.extras import CEILINGS, SPLITS, beside
from tensorwire.bench.suite.keep import Book, write_suite
from tensorwire.bench.suite.plan import Timing
from tensorwire.bench.suite.progress import Progress
from tensorwire.bench.suite.results import REST, Ceiling, Settings, Suite
from tensorwire.bench.suite.runner import Runner
from tensorwire.bench.suite.scenario import Beginning, Course, Scenario, Situation, Stage
from tensorwire.bench.suite.scenarios import SCENARIOS
from tensorwire.bench.suite.stage import RunningStage
from tensorwire.bench.suite.summary import summary
from tensorwire.bench.systems import FUSED, GRPC, NULL, NULL_THREADS

TIMING = Timing(rounds=2, warmup=0.01, duration=0.04)


def quiet(done: float, total: float, what: str, left: float) -> None:
    assert 0 <= done <= total
    assert left >= 0
    assert what


def tiny(*systems: str, callers: tuple[int, ...] = (1, 8)) -> Scenario:
    """Scenario B with some systems and numbers of callers."""
    scenario = SCENARIOS["B"]
    situations = tuple(each for each in scenario.situations if each.x in callers)
    info = msgspec.structs.replace(scenario.info, systems=systems)
    return replace(scenario, info=info, situations=situations)


def run(
    scenario: Scenario, progress: Progress = quiet, extras: Sequence[Scenario] = ()
) -> tuple[Suite, list[Suite]]:
    """The result, and what was saved."""
    saved: list[Suite] = []
    return Runner([scenario], TIMING, progress, saved.append, extras=extras).run(), saved


def test_a_run_measures_every_system_in_every_situation(tmp_path: Path) -> None:
    scenario = tiny(FUSED, GRPC)
    suite, saved = run(scenario, extras=beside([scenario], apart=False))
    assert len(saved) == 2
    assert saved[-1] == suite
    assert [(point.system, point.x, point.callers) for point in suite.points] == [
        (FUSED, 1, 1),
        (FUSED, 8, 8),
        (GRPC, 1, 1),
        (GRPC, 8, 8),
    ]
    for point in suite.points:
        assert len(point.rounds) == TIMING.rounds
        assert not point.failures
        assert all(one.throughput > 0 and not one.errors for one in point.rounds)
    assert {(ceiling.client, ceiling.concurrency) for ceiling in suite.ceilings} == {
        (NULL, 8),
        (NULL_THREADS, 8),
    }
    assert all(0 < ceiling.low <= ceiling.throughput <= ceiling.high for ceiling in suite.ceilings)
    assert suite.options[GRPC]
    assert not suite.not_run
    assert suite.environment.memory > 0
    write_suite(suite, tmp_path / "results.json")
    assert read_suite(tmp_path / "results.json") == suite


def test_an_open_loop_has_no_callers_though_its_rate_comes_later() -> None:
    book = Book(environment(), Settings(rounds=1, warmup=0.1, duration=1.0), {})
    book.scenario(SCENARIOS["H"].info)
    for situation in SCENARIOS["H"].situations:
        book.measured("H", FUSED, situation, measured())
    closed, *opened = book.suite().points
    assert closed.callers == SCENARIOS["H"].situations[0].job.concurrency
    assert {point.callers for point in opened} == {0}


def test_what_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "unavailable", lambda system: "it is too dark" if system == GRPC else "")
    suite, _ = run(tiny(NULL, GRPC, callers=(1,)))
    assert [(each.system, each.reason) for each in suite.not_run] == [(GRPC, "it is too dark")]
    assert [point.system for point in suite.points] == [NULL]


def test_what_does_not_start_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = RunningStage._connect

    def refuse(self: RunningStage, system: str) -> None:
        if system == NULL_THREADS:
            raise ChildError("no clients today")
        connect(self, system)

    monkeypatch.setattr(RunningStage, "_connect", refuse)
    suite, _ = run(tiny(NULL, NULL_THREADS, callers=(1,)))
    (missing,) = suite.not_run
    assert (missing.system, missing.reason, missing.scenario) == (NULL_THREADS, "no clients today", "B")
    assert [len(point.rounds) for point in suite.points] == [TIMING.rounds]


def test_an_interruption_keeps_what_was_measured() -> None:
    turns = 0

    def interrupt(done: float, total: float, what: str, left: float) -> None:
        nonlocal turns
        if "B: 1" in what:
            turns += 1
            if turns == 2:
                raise KeyboardInterrupt

    suite, saved = run(tiny(NULL, NULL_THREADS), interrupt)
    assert suite.interrupted
    assert [(point.system, len(point.rounds)) for point in suite.points] == [(NULL, 1)]
    assert saved == [suite]


class Killing(Course):
    """Ends the server of one system before its second turn."""

    victim = GRPC
    turns = 0

    def measure(self, stage: Stage, system: str, situation: Situation, job: Job) -> Measurement:
        assert isinstance(stage, RunningStage)
        if system == self.victim:
            self.turns += 1
            if self.turns == 2:
                os.kill(stage.server(system).pid, signal.SIGKILL)
        return super().measure(stage, system, situation, job)


def test_a_server_that_dies_is_recorded_and_the_others_go_on() -> None:
    suite, _ = run(replace(tiny(NULL, GRPC), course=Killing))
    by_place = {(point.system, point.x): point for point in suite.points}
    assert all(len(by_place[NULL, x].rounds) == TIMING.rounds for x in (1, 8))
    assert len(by_place[GRPC, 1].rounds) == 1
    failures = [failure for point in suite.points for failure in point.failures]
    assert any("server has ended" in failure for failure in failures)
    assert {point.system for point in suite.points if point.failures} == {GRPC}


class Unlucky(Course):
    """Gives a system up before the first round."""

    def begin(self, stage: Stage, situations: tuple[Situation, ...]) -> Beginning:
        stage.lose(NULL_THREADS, "it has no capacity")
        return Beginning(situations, ("found out before",))


class Broken(Course):
    """Cannot begin."""

    def begin(self, stage: Stage, situations: tuple[Situation, ...]) -> Beginning:
        raise ConnectionError("nobody is there")


def test_a_scenario_or_an_extra_that_fails_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[Ceiling]:
        raise ChildError("it ended")

    monkeypatch.setattr(runner, "found_ceilings", fail)
    good = tiny(NULL, callers=(8,))
    broken = replace(good, info=msgspec.structs.replace(good.info, key="A"), course=Broken)
    saved: list[Suite] = []
    extras = beside([good], apart=False)
    suite = Runner([broken, good], TIMING, quiet, saved.append, extras=extras).run()
    assert [(each.system, each.scenario, each.reason) for each in suite.not_run] == [
        (REST, "A", "ConnectionError: nobody is there"),
        (REST, CEILINGS, "it ended"),
    ]
    assert [(point.scenario, len(point.rounds)) for point in suite.points] == [("B", TIMING.rounds)]
    assert not suite.interrupted
    assert saved[-1] == suite
    assert f"Ended before its end: A, {CEILINGS}" in summary(suite)


def test_what_is_found_out_before_the_rounds_is_told() -> None:
    suite, _ = run(replace(tiny(NULL, NULL_THREADS, callers=(1,)), course=Unlucky))
    assert suite.scenarios[0].notes[-1] == "found out before"
    (lost,) = (point for point in suite.points if point.system == NULL_THREADS)
    assert lost.failures == ["given up: it has no capacity"]


def test_only_results_of_this_format_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"points": 1}')
    with pytest.raises(ValueError, match="not a result of tensorwire bench"):
        read_suite(path)


def test_a_run_of_nothing_is_refused() -> None:
    with pytest.raises(NothingToRun):
        plan(Wanted(scenarios=("I",), systems=(GRPC,)))
    with pytest.raises(NothingToRun):
        plan(Wanted(scenarios=("H",), quick=True))


def test_only_a_whole_run_measures_network_and_computing_apart() -> None:
    some = plan(Wanted(scenarios=("A",), rounds=1, duration=0.1))
    assert [scenario.key for scenario in some.scenarios] == ["A"]
    assert some.timing.rounds == 1
    assert [extra.key for extra in some.extras] == [CEILINGS]
    assert [extra.key for extra in plan(Wanted()).extras] == [CEILINGS, SPLITS]
