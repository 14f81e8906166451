"""The scenarios as data, and the plan of a run; nothing is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorwire.bench.models import INPUT, OUTPUT, case_of
from tensorwire.bench.peers.backend import ManagerBackend
from tensorwire.bench.suite.crowd import crowd_sizes
from tensorwire.bench.suite.models import MODELS, SUITE_CASES, TAIL_WORKERS, add_models
from tensorwire.bench.suite.plan import (
    FULL_SECONDS,
    QUICK_SECONDS,
    fit,
    select,
    start_seconds,
    total_seconds,
    turn_seconds,
)
from tensorwire.bench.suite.progress import Clock, left_text
from tensorwire.bench.suite.scenarios import CALLERS, SCENARIOS
from tensorwire.bench.suite.swap import Publisher
from tensorwire.bench.suite.tail import OCCUPANCY, slow_share
from tensorwire.bench.suite.workers import worker_counts
from tensorwire.bench.systems import FUSED, GRPC, SYSTEMS
from tensorwire.manager.manifest import MANIFEST_NAME, parse_manifest, verify_manifest

ALL = list(SCENARIOS.values())


def test_the_scenarios_are_those_of_the_report() -> None:
    assert list(SCENARIOS) == list("ABCDEFGHI")
    sizes = [case_of(situation.job.case).input_bytes for situation in SCENARIOS["A"].situations]
    assert sizes == [16 * 4**power for power in range(9)] + [1 << 22]
    assert {situation.job.concurrency for situation in SCENARIOS["A"].situations} == {CALLERS} == {50}
    assert [situation.job.concurrency for situation in SCENARIOS["B"].situations] == [
        2**power for power in range(10)
    ]


@pytest.mark.parametrize("scenario", ALL, ids=SCENARIOS)
def test_a_scenario_is_consistent(scenario: object) -> None:
    from tensorwire.bench.suite.scenario import Scenario

    assert isinstance(scenario, Scenario)
    assert set(scenario.info.systems) <= set(SYSTEMS)
    assert set(scenario.quick_systems) <= set(scenario.info.systems)
    assert set(scenario.models) <= set(MODELS)
    places = [(situation.x, situation.variant) for situation in scenario.situations]
    assert len(set(places)) == len(places)
    for situation in scenario.situations:
        assert case_of(situation.job.case).input_bytes > 0
        assert not situation.job.slow_case or case_of(situation.job.slow_case)
        assert situation.job.concurrency >= situation.processes


def test_every_case_is_answered_rightly_by_its_model(tmp_path: Path) -> None:
    add_models(tmp_path, MODELS)
    assert {case.model for case in SUITE_CASES.values()} == set(MODELS)
    with ManagerBackend(tmp_path) as backend:
        for case in SUITE_CASES.values():
            (inputs,) = case.inputs(1)
            (outputs,) = backend.runner(case.model)({INPUT: inputs})
            assert backend.output_names(case.model) == (OUTPUT,)
            case.verify(inputs, outputs)
            with pytest.raises(ValueError, match="answered wrongly"):
                case.verify(inputs, outputs + 1)


def test_slow_requests_occupy_the_workers_as_on_the_page_of_brpc() -> None:
    assert pytest.approx(10_000 * 0.01 * 0.005 / 24) == OCCUPANCY
    for rate in (100.0, 1500.0):
        assert rate * slow_share(rate) * 0.005 / TAIL_WORKERS == pytest.approx(OCCUPANCY)
    # At the highest rate that is chosen, one request in a hundred is slow, as there.
    assert slow_share(OCCUPANCY * TAIL_WORKERS / (0.01 * 0.005)) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("quick", "limit", "allowed"), [(False, FULL_SECONDS, 1200), (True, QUICK_SECONDS, 120)]
)
def test_a_run_is_planned_to_keep_to_its_time(quick: bool, limit: float, allowed: float) -> None:
    scenarios = select(ALL, quick=quick)
    timing = fit(scenarios, limit)
    assert timing.rounds >= 3
    assert timing.duration >= 0.2
    assert total_seconds(scenarios, timing) <= limit < allowed


def test_what_was_asked_for_is_not_shortened() -> None:
    timing = fit(ALL, 10, rounds=7, duration=3.0)
    assert (timing.rounds, timing.duration) == (7, 3.0)


def test_rounds_give_way_before_measurements_get_too_short() -> None:
    plenty, little = (fit(ALL, seconds) for seconds in (3600, 500))
    assert plenty.duration == 1.0
    assert little.rounds < plenty.rounds
    assert fit(ALL, 1.0).rounds == 1


def test_a_quick_run_has_some_of_three_scenarios() -> None:
    scenarios = select(ALL, quick=True)
    assert [scenario.key for scenario in scenarios] == ["A", "B", "C"]
    assert all(FUSED in scenario.info.systems and GRPC in scenario.info.systems for scenario in scenarios)
    assert len(scenarios[0].situations) < len(SCENARIOS["A"].situations)


def test_scenarios_without_a_wanted_system_are_left_out() -> None:
    kept = select(ALL, systems=[GRPC])
    assert "I" not in [scenario.key for scenario in kept]
    assert {scenario.info.systems for scenario in kept} == {(GRPC,)}


def test_as_many_client_processes_as_the_memory_carries() -> None:
    assert crowd_sizes(1 << 40) == [2, 4, 8, 16, 32]
    assert crowd_sizes(8 << 30) == [2, 4, 8]
    assert crowd_sizes(0) == [2]


def test_worker_counts_go_to_twice_the_cores() -> None:
    assert worker_counts(1) == [1, 2]
    assert worker_counts(2) == [1, 2, 3, 4]
    assert worker_counts(6) == [1, 2, 3, 4, 8, 12]


def test_the_time_that_is_left_goes_by_the_pace_so_far() -> None:
    now = 0.0
    clock = Clock(lambda *_: None, 100.0, lambda: now)
    assert clock.left == 100
    now = 30.0
    clock.did(20.0)
    assert clock.left == 120
    clock.did(1000.0)
    assert clock.left == 0
    assert (left_text(30), left_text(300)) == ("30 s left", "5 min left")


def test_a_rest_is_planned_where_versions_were_swapped() -> None:
    scenario, timing = SCENARIOS["G"], fit(ALL, FULL_SECONDS)
    before, during, after = scenario.situations
    assert (before.rest, after.rest) == (0, 0)
    rested, restless = (
        turn_seconds(scenario, situation, timing) for situation in (during, replace(during, rest=0.0))
    )
    assert rested - restless == pytest.approx(during.rest)
    assert during.rest > 1  # the managers look once a second


def test_a_published_version_is_complete_at_once(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    publisher = Publisher(tmp_path, b"a model")
    publisher.publish()
    verify_manifest(tmp_path / "2")
    assert parse_manifest((tmp_path / "2" / MANIFEST_NAME).read_text()).keys() == {"model.onnx"}


def test_starting_takes_longer_with_more_client_processes() -> None:
    assert start_seconds(SCENARIOS["D"]) > start_seconds(SCENARIOS["G"])
