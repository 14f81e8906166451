"""Tables, checks and the JSON document, from made-up measurements."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tensorwire.bench.checks import Expectation, expectations, verify
from tensorwire.bench.environment import Environment
from tensorwire.bench.quick import Group, baselines, plan, rotated, schedule
from tensorwire.bench.recorder import CpuUse, Measurement, summarise
from tensorwire.bench.report import as_text, render
from tensorwire.bench.results import Cell, Document, Results, Settings, p50
from tensorwire.bench.systems import ECHO, FUSED, GRPC, SYNC, UNFUSED

GROUPS = [Group((FUSED, UNFUSED, GRPC), GRPC, "64 B", 256), Group((SYNC, ECHO), ECHO, "64 B", 1)]


def measured(rate: int, latency: float, errors: dict[str, int] | None = None) -> Measurement:
    return summarise(np.full(rate, latency), 1.0, CpuUse(0.5, 0.5, 0.0), errors or {})


def cell(system: str, concurrency: int, rates: list[int], latency: float) -> Cell:
    rounds = [measured(rate, latency * (1 + index / 100)) for index, rate in enumerate(rates)]
    return Cell(system=system, case="64 B", concurrency=concurrency, rounds=rounds)


def results(cells: list[Cell]) -> Results:
    environment = Environment(
        cpu="Test CPU",
        cores=2,
        kernel="Linux 6",
        python="3.11",
        libzmq="4.3.5",
        versions={"grpcio": "1.70"},
        load_average=0.1,
    )
    return Results(
        environment=environment,
        settings=Settings(rounds=3, warmup=0.1, duration=1.0),
        cells=cells,
        baselines=baselines(GROUPS),
        seconds=12.0,
    )


def good() -> list[Cell]:
    return [
        cell(FUSED, 256, [90_000, 100_000, 95_000], 0.002),
        cell(UNFUSED, 256, [30_000, 29_000, 31_000], 0.008),
        cell(GRPC, 256, [2000, 2100, 1900], 0.12),
        cell(SYNC, 1, [10_000], 0.0001),
        cell(ECHO, 1, [12_000], 0.00009),
    ]


def test_table_has_a_row_for_every_system_and_its_ratio() -> None:
    text = as_text(render(results(good()), GROUPS))
    assert "Test CPU" in text
    assert "95,000 ±5%" in text
    assert "47.5x" in text
    for name in (FUSED, UNFUSED, GRPC, SYNC, ECHO):
        assert name in text
    assert "PASS" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_difference_within_the_spread_is_not_claimed() -> None:
    cells = [
        cell(FUSED, 256, [1000, 3000, 2200], 0.002),
        cell(UNFUSED, 256, [1900, 2000, 2100], 0.002),
        cell(GRPC, 256, [2000, 2100, 1900], 0.12),
    ]
    lines = as_text(render(results(cells), GROUPS[:1])).splitlines()
    row = next(line for line in lines if FUSED in line)
    assert "none shown" in row
    assert "1.1x" not in row


def test_checks_pass_and_are_printed() -> None:
    checks = verify(results(good()), expectations(GROUPS))
    assert [check.passed for check in checks] == [True] * len(checks)
    text = as_text(render(results(good()), GROUPS, checks))
    assert "PASS  64 B at 256, tensorwire fused: throughput 47.5x" in text
    assert "no call failed" in text


def test_checks_fail_by_line() -> None:
    cells = good()
    cells[1] = cell(UNFUSED, 256, [3000], 0.1)
    failed = [str(check) for check in verify(results(cells), expectations(GROUPS)) if not check.passed]
    assert len(failed) == 2
    assert all(line.startswith("FAIL  64 B at 256, tensorwire unfused") for line in failed)


def test_failed_calls_and_missing_measurements_fail_the_check() -> None:
    cells = good()
    rounds = [measured(90_000, 0.002, {"UNAVAILABLE": 2})]
    cells[0] = Cell(system=FUSED, case="64 B", concurrency=256, rounds=rounds)
    cells[3] = Cell(system=SYNC, case="64 B", concurrency=1, failures=["INTERNAL: broken"])
    failed = [str(check) for check in verify(results(cells), expectations(GROUPS)) if not check.passed]
    assert any("was not measured" in line for line in failed)
    assert any("UNAVAILABLE" in line and "broken" in line for line in failed)
    text = as_text(render(results(cells), GROUPS))
    assert "failed" in text
    assert "INTERNAL: broken" in text


def test_a_disturbed_run_says_so() -> None:
    busy = summarise(np.full(100, 0.01), 1.0, CpuUse(0.5, 0.5, 0.9), {})
    cells = [Cell(system=GRPC, case="64 B", concurrency=256, rounds=[busy])]
    assert "0.9 cores busy" in as_text(render(results(cells), GROUPS[:1]))


def test_expectations_cover_the_plan() -> None:
    wanted = expectations(plan())
    p99 = [e for e in wanted if e.figure == "p99"]
    assert len(p99) == 2 * 3 * 3
    assert {e.limit for e in p99} == {0.25}
    assert not any(e.at_least for e in p99)
    limits = {(e.system, e.case, e.concurrency): e.limit for e in wanted if e.figure == "throughput"}
    assert limits[FUSED, "64 B", 256] == 40
    assert limits[FUSED, "64 B", 32] == 12
    assert limits[UNFUSED, "64 B", 256] == 10
    assert limits[FUSED, "602,112 B", 32] == 3.5
    sync = [e for e in wanted if e.baseline == ECHO]
    assert sync == [
        Expectation(figure="p50", system=SYNC, baseline=ECHO, case="64 B", concurrency=1, limit=1.3)
    ]


def test_a_plan_can_be_narrowed() -> None:
    assert plan(["64 B"], [32], [GRPC, ECHO]) == [
        Group((GRPC,), GRPC, "64 B", 32),
        Group((ECHO,), ECHO, "64 B", 1, slices=12),
    ]
    assert plan(["64 B"], [32], [SYNC]) == [Group((SYNC,), ECHO, "64 B", 1, slices=12)]


def test_rounds_and_slices_take_turns() -> None:
    groups = [Group(("a", "b"), "b", "64 B", 32), Group(("c", "d"), "d", "64 B", 1, slices=3)]
    assert [name for _, name in schedule(groups, 2)] == [*"ab", *"cddccd", *"ba", *"dccddc"]


def test_what_is_not_measured_is_not_expected() -> None:
    assert expectations(plan(["4 KiB"], [32])) == [
        Expectation(figure="p99", system=name, baseline=GRPC, case="4 KiB", concurrency=32, limit=0.25)
        for name in (FUSED, UNFUSED)
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_system_is_first_equally_often(size: int) -> None:
    names = ["a", "b", "c"][:size]
    orders = [rotated(names, number) for number in range(size)]
    for position in range(size):
        assert sorted(order[position] for order in orders) == names


def test_document_survives_json() -> None:
    document = Document.of(results(good()))
    decoded = msgspec.json.decode(msgspec.json.encode(document), type=Document)
    assert decoded == document
    assert {ratios.system for ratios in decoded.ratios} == {FUSED, UNFUSED, SYNC}
    spread = decoded.results.cells[0].spread(p50)
    assert spread is not None
    assert spread.median == pytest.approx(0.00202)


def test_this_environment_is_described() -> None:
    environment = Environment.read()
    assert environment.cores >= 1
    assert "grpcio" in environment.versions
    assert len(environment.lines()) == 2
