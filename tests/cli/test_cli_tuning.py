"""`tensorwire workers` and `tensorwire settings` against a server, and the control calls behind them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import models
import pytest
from commands import row, run_command
from tensorwire.client import Client
from tensorwire.manager.tuning import KEYS
from tensorwire.rpc.errors import InvalidArgumentError, NotFoundError
from tensorwire.server import Server
from tensorwire.server.cli.tuning import ask, followed
from tensorwire.server.cli.waiting import Look

Serve = Callable[..., Server]

#: Takes one call at a time, and no more than 64 rows.
SMALL = """
class Model:
    inputs = [("x", "float32", (None, 4))]
    outputs = [("y", "float32", (None, 4))]
    batched = True

    def predict(self, x):
        if len(x) > 64:
            raise ValueError(f"{len(x)} rows")
        return {"y": x}
"""


class Run(Protocol):
    """Run a command; its output."""

    def __call__(self, *arguments: object, status: int = 0) -> str: ...


@pytest.fixture
def server(serve: Serve, repository: Path) -> Server:
    """Two versions of one model, and another that can do little."""
    models.scale(repository / "ranker" / "1", 2.0)
    models.scale(repository / "ranker" / "2", 3.0)
    (repository / "ranker" / "model.toml").write_text(
        'versions.policy = "all"\nworkers.count = 2\nbatching.max_batch_size = 64\n'
    )
    (repository / "small" / "1").mkdir(parents=True)
    (repository / "small" / "1" / "model.py").write_text(SMALL)
    (repository / "small" / "model.toml").write_text(
        'workers.kind = "thread"\nbatching.max_batch_size = 64\n'
    )
    return serve(repository)


@pytest.fixture
def run(server: Server) -> Run:
    def run(*arguments: object, status: int = 0) -> str:
        return run_command(*arguments, status=status, TENSORWIRE_SERVER=server.endpoint)

    return run


def cells(output: str, key: str) -> list[str]:
    return row(output, key).split()[1:]


# ---------------------------------------------------------------- workers


def test_workers_are_shown_and_changed(run: Run) -> None:
    assert cells(run("workers", "ranker"), "workers.count") == ["2", "file", "no"]
    output = run("workers", "ranker", "--count", 4)
    assert output.startswith("workers.count: 2 -> 4\nin force after 0.")
    assert output.endswith(" s, in versions 1, 2\n")
    output = run("workers", "ranker")
    assert cells(output, "workers.count") == ["4", "live", "2", "no"]
    assert "batching" not in output
    assert row(run("models"), "ranker", "1", "AVAILABLE").split()[3] == "4"
    assert run("workers", "ranker", "--reset").startswith("workers.count: 4 -> 2\nin force")


def test_the_workers_of_this_moment_are_shown_once_there_are_any(run: Run) -> None:
    assert cells(run("workers", "ranker"), "2") == ["AVAILABLE", "-"]
    run("predict", "ranker", "-i", "x=[1, 2, 3, 4]")
    assert cells(run("workers", "ranker"), "2") == ["AVAILABLE", "2"]
    run("workers", "ranker", "--count", 5)
    assert cells(run("workers", "ranker"), "2") == ["AVAILABLE", "5"]
    assert row(run("status"), "ranker:2").split()[9] == "5"


def test_cores_and_hang_timeout(run: Run) -> None:
    output = run("workers", "ranker", "--cpus", "0", "--hang-timeout", 1.5)
    assert "workers.cpus: default -> 0\nworkers.hang_timeout: 60 -> 1.5\n" in output
    assert run("workers", "ranker", "--cpus", "none").startswith("workers.cpus: 0 -> default\n")
    assert "expected core numbers and ranges" in run("workers", "ranker", "--cpus", "x", status=1)


def test_the_kind_means_a_load(run: Run) -> None:
    assert cells(run("workers", "ranker"), "workers.kind")[-1] == "yes"
    output = run("workers", "ranker", "--kind", "fibre", status=1)
    assert "model 'ranker': workers.kind: found 'fibre'; expected one of 'process', 'thread'" in output


def test_what_is_wrong_with_a_command(run: Run) -> None:
    assert "give either new values" in run("workers", "ranker", "--count", 2, "--reset", status=2)
    assert "models here: ranker, small" in run("workers", "nope", status=1)
    output = run("workers", "small", "--count", 2, status=1)
    assert "workers.count: found 2; expected 1, because this model takes one call at a time" in output
    assert output.endswith("(version 1)\n")
    assert cells(run("workers", "small"), "workers.count") == ["1", "default", "no"]


# ---------------------------------------------------------------- settings


def test_all_settings_are_listed(run: Run) -> None:
    output = run("settings", "ranker")
    assert [line.split()[0] for line in output.splitlines() if "." in line.split()[0]] == list(KEYS)
    assert cells(output, "batching.max_batch_size") == ["64", "file", "above", "64"]
    assert cells(output, "batching.enabled") == ["true", "default", "yes"]
    assert cells(output, "engine.intra_op_threads") == ["1", "default", "yes"]


def test_several_settings_at_once(run: Run) -> None:
    output = run(
        "settings",
        "ranker",
        "batching.max_batch_size=32",
        "batching.max_queue_delay=0.002",
        "limits.max_in_flight=1000",
        "engine.intra_op_threads=2",
    )
    assert output.splitlines()[:4] == [
        "batching.max_batch_size: 64 -> 32",
        "batching.max_queue_delay: 0 -> 0.002",
        "limits.max_in_flight: 16384 -> 1000",
        "engine.intra_op_threads: 1 -> 2",
    ]
    output = run("settings", "ranker")
    assert cells(output, "batching.max_batch_size")[:3] == ["32", "live", "64"]
    assert cells(output, "limits.max_in_flight") == ["1000", "live", "-", "no"]
    output = run("settings", "ranker", "--reset", "batching", "limits.max_in_flight")
    assert [line.split(":")[0] for line in output.splitlines()[:3]] == [
        "batching.max_batch_size",
        "batching.max_queue_delay",
        "limits.max_in_flight",
    ]
    assert run("settings", "ranker", "--reset").startswith("engine.intra_op_threads: 2 -> 1\nin force")
    assert run("settings", "ranker", "--reset") == "nothing was set live\n"


def test_lists_text_and_nothing_are_values(run: Run) -> None:
    run("settings", "ranker", "batching.allowed_batch_sizes=[8, 32]", "batching.max_batch_size=none")
    output = run("settings", "ranker", "workers.cpus=0")
    assert output.startswith("workers.cpus: default -> 0\n")
    found = json.loads(run("settings", "ranker", "--json"))
    values = {setting["key"]: setting["value"] for setting in found["settings"]}
    assert values["batching.allowed_batch_sizes"] == [8, 32]
    assert values["batching.max_batch_size"] is None
    assert [line["values"]["batching.max_batch_size"] for line in found["versions"]] == [32, 32]


def test_all_valid_or_nothing_changed(run: Run) -> None:
    before = run("settings", "ranker", "--json")
    for arguments, message in (
        (["workers.count=3", "limits.max_in_flight=0"], "limits.max_in_flight: found 0; expected an integer"),
        (["workers.cuont=3"], "workers.cuont: unknown key (did you mean 'count'?); known keys are count"),
        (["labels.stable=2"], "labels: unknown key"),
    ):
        assert message in run("settings", "ranker", *arguments, status=1)
    assert "expected KEY=VALUE" in run("settings", "ranker", "workers.count", status=2)
    assert "--reset takes keys" in run("settings", "ranker", "--reset", "workers.count=1", status=2)
    assert run("settings", "ranker", "--json") == before


def test_a_load_that_fails_is_told_and_the_old_version_goes_on(run: Run) -> None:
    output = run("settings", "small", "batching.max_batch_size=128", status=1)
    assert output.startswith("batching.max_batch_size: 64 -> 64, wanted: 128\n")
    assert "error: small:1 AVAILABLE (its replacement is FAILED: INVALID_ARGUMENT: cannot be" in output
    output = run("settings", "small")
    assert "64, wanted: 128" in row(output, "batching.max_batch_size")
    assert "small:1 AVAILABLE: its replacement is FAILED" in output
    assert "[[1. 2. 3. 4.]]" in run("predict", "small", "-i", "x=[1, 2, 3, 4]")
    assert "in force" in run("settings", "small", "--reset")
    assert "FAILED" not in run("settings", "small")


def test_resource_has_a_gap_and_the_table_says_so(run: Run, repository: Path) -> None:
    (repository / "small" / "model.toml").write_text('versions.transition = "resource"')
    run("models", "rescan")
    assert cells(run("settings", "small"), "engine.intra_op_threads")[2:] == ["yes,", "with", "a", "gap"]


def test_without_a_version(run: Run) -> None:
    run("models", "unload", "small")
    output = run("settings", "small", "limits.max_in_flight=5")
    assert output.endswith("no version serves; it holds from the next load on\n")
    assert "no version serves" in run("workers", "small")
    run("models", "load", "small")
    assert cells(run("settings", "small"), "limits.max_in_flight")[:2] == ["5", "live"]


def test_what_is_not_waited_for(run: Run, repository: Path) -> None:
    # A version that is not complete may stay so for ever.
    (repository / "ranker" / "3").mkdir()
    run("models", "rescan")
    assert "ranker:3 WAITING: the directory is empty" in run("settings", "ranker")
    assert "in versions 1, 2" in run("workers", "ranker", "--count", 3, "--timeout", 20)
    output = run("settings", "ranker", "engine.intra_op_threads=2", "--no-wait")
    assert "taken in by the server; `tensorwire settings ranker` shows what becomes of it" in output


def test_what_a_broken_model_toml_says(run: Run, repository: Path) -> None:
    (repository / "new" / "1").mkdir(parents=True)
    (repository / "new" / "model.toml").write_text("workers.count = 0")
    run("models", "rescan")
    assert "workers.count: found 0" in run("settings", "new")
    assert "workers.count: found 0" in run("workers", "new")


def test_json(run: Run) -> None:
    found = json.loads(run("workers", "ranker", "--count", 3, "--json"))
    assert (found["model"], found["transition"]) == ("ranker", "availability")
    (count,) = [setting for setting in found["settings"] if setting["key"] == "workers.count"]
    assert count == {"key": "workers.count", "value": 3, "origin": "live", "file": 2, "reload": "never"}
    assert [line["values"]["workers.count"] for line in found["versions"]] == [3, 3]


# ---------------------------------------------------------------- control calls


def test_the_control_calls(server: Server) -> None:
    with Client(server.endpoint, timeout=20) as client:
        values: dict[str, Any] = {"workers.count": 3, "limits.max_in_flight": 9}
        assert client.control("models.set", {"model": "ranker", "values": values}) is None
        found = client.control("models.settings", {"model": "ranker"})
        live = {s["key"]: s["value"] for s in found["settings"] if s["origin"] == "live"}
        assert live == values
        # Two operators: key by key, the last one wins.
        with Client(server.endpoint, timeout=20) as other:
            change = {"values": {"workers.count": 4}, "reset": ["limits.max_in_flight"]}
            other.control("models.set", {"model": "ranker", **change})
        found = client.control("models.settings", {"model": "ranker"})
        assert {line["values"]["workers.count"] for line in found["versions"]} == {4}
        assert {line["values"]["limits.max_in_flight"] for line in found["versions"]} == {16384}
        assert client.metadata("ranker").max_batch_size == 64
        client.control("models.set", {"model": "ranker", "values": {"batching.max_batch_size": 16}})
        assert client.metadata("ranker").max_batch_size == 16


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("models.settings", {}, "missing required field `model`"),
        ("models.settings", {"model": "nope"}, "no model 'nope' in .*; models here: ranker, small"),
        ("models.set", {"model": "nope"}, "no model 'nope'"),
        ("models.set", {"model": "ranker", "value": {}}, "unknown field `value`"),
        ("models.set", {"model": "ranker", "reset": ["x"]}, "x: unknown key"),
        (
            "models.set",
            {"model": "ranker", "values": {"workers.count": "2"}},
            "found '2'; expected an integer",
        ),
    ],
)
def test_calls_that_are_refused(server: Server, method: str, params: dict[str, Any], message: str) -> None:
    with (
        Client(server.endpoint, timeout=20) as client,
        pytest.raises((InvalidArgumentError, NotFoundError), match=message),
    ):
        client.control(method, params)


# ---------------------------------------------------------------- when it is done


class Answers:
    """A client whose server says this, one after the other."""

    def __init__(self, *versions: dict[str, Any]) -> None:
        self.versions = list(versions)

    def control(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        assert (method, params) == ("models.settings", {"model": "m"})
        version = {"version": 1, "state": "AVAILABLE", **self.versions.pop(0)}
        return {"model": "m", "transition": "availability", "settings": [], "versions": [version]}


def verdicts(before: dict[str, Any], *after: dict[str, Any]) -> list[str | None]:
    client: Any = Answers(before, *after)
    verdict = followed(client, ask(client, "m"))
    return [verdict(Look([], False)) for _ in after]


def test_it_is_done_when_the_workers_are_there_and_the_others_have_left() -> None:
    two = {"values": {"workers.count": 2}}
    assert verdicts(two, {**two, "workers": 4}, {**two, "workers": 2}, {**two, "workers": None}) == [
        None,
        "",
        "",
    ]


def test_it_is_done_when_the_replacement_serves_or_has_failed() -> None:
    serving = {"values": {"workers.count": 2}}
    failed = {**serving, "failed": True, "reason": "why"}
    assert verdicts(serving, {**serving, "pending": True}, serving) == [None, ""]
    assert verdicts(serving, {**serving, "pending": True}, failed) == [None, "m:1 AVAILABLE (why)"]
    # It had failed before, and not because of this.
    assert verdicts(failed, failed) == [""]


def test_under_resource_the_gap_is_waited_for() -> None:
    serving = {"values": {"workers.count": 2}}
    assert verdicts(serving, {"state": "LOADING", "pending": True}, serving) == [None, ""]


def test_what_was_not_there_before_is_not_waited_for() -> None:
    waiting = {"state": "WAITING", "pending": True}
    assert verdicts(waiting, waiting) == [""]
