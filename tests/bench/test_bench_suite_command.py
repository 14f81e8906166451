"""``tensorwire bench`` on the command line; nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorwire.bench.environment import Environment
from tensorwire.bench.suite.keep import write_suite
from tensorwire.bench.suite.results import Settings, Suite
from tensorwire.server.cli import bench
from typer.testing import CliRunner

ENVIRONMENT = Environment(
    cpu="a CPU", cores=2, kernel="Linux", python="3.11", libzmq="4.3", versions={}, load_average=0.0
)


def call(*arguments: object) -> tuple[int, str]:
    """Exit status and everything that was printed."""
    result = CliRunner().invoke(bench.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


@pytest.fixture
def results(tmp_path: Path) -> Path:
    settings = Settings(rounds=3, warmup=0.1, duration=0.5)
    path = tmp_path / "results.json"
    write_suite(Suite(environment=ENVIRONMENT, settings=settings, scenarios=[], points=[]), path)
    return path


def test_the_list_names_scenarios_and_systems_and_what_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorwire.bench import systems

    monkeypatch.setattr(systems, "unavailable", lambda name: "it is too dark" if name == "Triton" else "")
    status, text = call("list")
    assert status == 0
    assert "throughput against request size" in text
    assert "grpcio threads" in text
    assert "NOT RUN: it is too dark" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "A", "Z"), "scenario: found 'Z'; expected A, B, C"),
        (
            ("run", "--system", "carrier pigeons"),
            "found 'carrier pigeons'; expected tensorwire fused",
        ),
        (("run", "I", "--system", "grpc.aio"), "none of these scenarios has these systems"),
        (("run", "h", "--quick"), "in a quick run"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], message: str) -> None:
    status, text = call(*arguments)
    assert status == 2
    assert message in text


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_installed", lambda name: name != "grpc")
    status, text = call("run")
    assert status == 2
    assert "the benchmark needs grpc: pip install 'tensorwire[bench]'" in text


def test_page_and_summary_are_written_anew(results: Path, tmp_path: Path) -> None:
    status, text = call("report", results, "--out", tmp_path / "again")
    assert status == 0, text
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["report.html", "summary.md"]


def test_two_results_are_compared(results: Path) -> None:
    status, text = call("compare", results, results)
    assert status == 0
    assert text


def test_what_is_no_result_is_refused(results: Path) -> None:
    results.write_text("{}")
    status, text = call("compare", results, results)
    assert status == 2
    assert "is not a result of tensorwire bench" in text
