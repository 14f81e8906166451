"""The parts of the proof about the front that compare systems: verdicts over figures, and load from several
processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorwire.bench.clients import Clients, shares
from tensorwire.bench.environment import Environment
from tensorwire.bench.front import fused, large, unfused
from tensorwire.bench.front.ratios import COLUMNS, check_errors, rows
from tensorwire.bench.front.traced import Growth
from tensorwire.bench.load import Job
from tensorwire.bench.models import build_repository
from tensorwire.bench.proofs import Proof
from tensorwire.bench.recorder import Measurement
from tensorwire.bench.servers import tensorwire
from tensorwire.bench.systems import FUSED, GRPC, UNFUSED


def proof() -> Proof:
    return Proof(name="front", environment=Environment.read())


def measured(
    throughput: float, *, p99: float = 0.001, server: float = 4e-6, errors: dict[str, int] | None = None
) -> Measurement:
    return Measurement(
        requests=int(throughput),
        seconds=1.0,
        throughput=throughput,
        p50=p99 / 2,
        p90=p99,
        p99=p99,
        p999=p99,
        max=p99,
        errors=errors or {},
        server_cpu_per_request=server,
        client_cpu_per_request=1e-6,
        other_cores=0.0,
    )


def verdicts(found: Proof) -> list[bool]:
    return [check.passed for check in found.checks]


def test_limits_hold_for_medians() -> None:
    found = proof()
    good = {GRPC: [measured(10, p99=0.1)] * 3, FUSED: [measured(rate, p99=0.01) for rate in (500, 610, 700)]}
    bad = {GRPC: [measured(10, p99=0.1)] * 3, FUSED: [measured(rate, p99=0.02) for rate in (500, 590, 700)]}
    for rounds in (good, bad):
        for limit in fused.LIMITS:
            limit.check(found, "64 B", rounds)
    assert verdicts(found) == [True, True, False, False]
    assert (
        "throughput 61x (rounds 50x to 70x); expected throughput >= 60x of grpc.aio" in found.checks[0].text
    )
    assert "expected p99 <= 1/8 of grpc.aio" in found.checks[1].text


def test_what_was_not_measured_fails() -> None:
    found = proof()
    for limit in large.LIMITS:
        limit.check(found, "602,112 B", {GRPC: [measured(10)], FUSED: []})
        limit.check(found, "602,112 B", {GRPC: [measured(0, server=0)], FUSED: [measured(10, server=0)]})
    assert verdicts(found) == [False] * 4
    assert "was not measured" in found.checks[0].text


@pytest.mark.parametrize("built", [True, False])
def test_unfused_compares_with_the_cpp_echo_where_it_was_built(built: bool) -> None:
    rounds = {
        unfused.COMPILED: [measured(10_000)],
        unfused.PYTHON: [measured(6000)],
        GRPC: [measured(300)],
    }
    if built:
        rounds[unfused.CPP] = [measured(4000, server=40e-6)]
    found = proof()
    unfused.verify(found, "1 client process", rounds)
    assert verdicts(found) == [True, True, True, False][: 3 + built]
    assert [note for note in found.notes if "4.00 and 40.00 us" in note] == found.notes
    assert len(found.notes) == built


def test_a_copy_of_the_tensor_fails_the_proof() -> None:
    found = proof()
    large.check_growth(found, Growth(tensor=602_112, plain=1040, copying=602_088))
    large.check_growth(found, Growth(tensor=602_112, plain=602_088, copying=1040))
    assert verdicts(found) == [True, True, False, False]


def test_failed_calls_fail_the_proof() -> None:
    found = proof()
    check_errors(found, "fused", {"64 B": {GRPC: [measured(1)]}})
    check_errors(found, "fused", {"64 B": {GRPC: [measured(1, errors={"UNAVAILABLE": 2})]}})
    assert verdicts(found) == [True, False]
    assert "64 B, grpc.aio: {'UNAVAILABLE': 2}" in found.checks[1].text


def test_a_table_leaves_out_what_has_no_rounds() -> None:
    table = rows("64 B", {GRPC: [measured(100, server=1.5e-3)], FUSED: [measured(250)], UNFUSED: []})
    assert [row[0] for row in table] == ["64 B: grpc.aio", "64 B: tensorwire fused"]
    assert [row[2] for row in table] == ["1x", "2.5x"]
    assert table[0][4] == "1,500 (1,500-1,500)"
    assert {len(row) for row in table} == {len(COLUMNS)}
    assert rows("64 B", {GRPC: []}) == []


def test_processes_share_the_callers() -> None:
    assert shares(256, 3) == [86, 85, 85]
    assert shares(256, 1) == [256]


def test_several_processes_are_measured_as_one(tmp_path: Path) -> None:
    repository = build_repository(tmp_path / "models")
    job = Job(case="64 B", concurrency=5, warmup=0.02, duration=0.1)
    with (
        tensorwire(repository, tmp_path / "server.log") as server,
        Clients(UNFUSED, server, 2, tmp_path) as clients,
    ):
        for processes in (2, 1):
            measurement = clients.measure(job, processes)
            assert measurement.requests > 5
            assert measurement.errors == {}
            assert measurement.max >= measurement.p99 > 0
