"""`tensorwire models`, `predict`, `status`, `health` against a server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import models
import numpy as np
import pytest
from commands import row, run_command
from tensorwire.server.cli.app import app
from typer.testing import CliRunner

Serve = Callable[..., Any]


class Run(Protocol):
    """Run a command; its output."""

    def __call__(self, *arguments: object, status: int = 0) -> str: ...


@pytest.fixture
def run(serve: Serve, repository: Path) -> Run:
    """Commands against a server with two versions of a model, one that failed, and a few others."""
    models.scale(repository / "ranker" / "1", 2.0)
    models.scale(repository / "ranker" / "2", 3.0)
    (repository / "ranker" / "model.toml").write_text('versions.policy = "all"\nlabels.stable = 1')
    models.several(repository / "several" / "4")
    models.identity(repository / "text" / "1", "string", ("n",))
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"x")
    server = serve(repository)

    def run(*arguments: object, status: int = 0) -> str:
        return run_command(*arguments, status=status, TENSORWIRE_SERVER=server.endpoint)

    return run


# ---------------------------------------------------------------- help and errors


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            [],
            [
                "serve",
                "models",
                "workers",
                "settings",
                "tune",
                "predict",
                "status",
                "health",
                "bench",
                "demo",
            ],
        ),
        (["serve"], ["--config", "--bind", "--ram-budget", "--grace", "--ready-file", "--set"]),
        (["models"], ["show", "load", "unload", "label", "route", "rescan", "--server"]),
        (["bench"], ["list", "run", "report", "compare"]),
        (["bench", "run"], ["--quick", "--rounds", "--duration", "--budget", "--system", "--out"]),
        (["workers"], ["--count", "--kind", "--cpus", "--device", "--hang-timeout", "--reset", "--no-wait"]),
        (["settings"], ["KEY=VALUE", "--reset", "--no-wait", "--timeout", "--json"]),
        (
            ["tune"],
            ["--p99", "--sample", "--input", "--budget", "--full-grid", "--apply", "--write", "--out"],
        ),
        (["predict"], ["--input", "--label", "--output", "--timeout"]),
    ],
)
def test_help(arguments: list[str], names: list[str]) -> None:
    output = run_command(*arguments, "--help")
    assert [name for name in names if name not in output] == []


def test_version() -> None:
    assert run_command("--version").startswith("tensorwire ")


def test_help_needs_neither_zeromq_nor_numpy() -> None:
    code = (
        "import sys\nsys.argv = ['tensorwire', '--help']\nfrom tensorwire.server.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'zmq', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


def test_the_configuration_can_be_checked(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text("[serving]\ngrace = 4\n")
    values = json.loads(run_command("serve", tmp_path, "-c", config, "--ram-budget", "1KiB", "--check"))
    assert values["serving.grace"] == 4
    assert values["manager.ram_budget"] == 1024
    assert values["manager.repository"] == str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no model repository was named; give it as the argument REPO"),
        ([".", "-c", "no.toml"], "no.toml: no such configuration file; check --config"),
        (
            [".", "--bind", "8700"],
            "--bind: serving.bind: found '8700'; expected tcp://HOST:PORT or ipc://PATH",
        ),
        ([".", "--log-level", "x"], "--log-level: log.level: found 'x'; expected one of 'debug', 'error', "),
    ],
)
def test_a_bad_configuration_is_one_line(arguments: list[str], message: str) -> None:
    output = run_command("serve", *arguments, "--check", status=2)
    assert output.startswith(f"error: {message}")
    assert output.count("\n") == 1


@pytest.mark.parametrize("command", [["models"], ["predict", "m"], ["status"], ["health", "--wait"]])
def test_no_server(command: list[str], tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/nobody"
    output = run_command(*command, "--server", address, "--timeout", 0.3, status=1)
    assert output.startswith("error: UNAVAILABLE: ")
    assert address in output
    assert "TENSORWIRE_SERVER" in output


@pytest.mark.parametrize("command", [["models"], ["health"]])
def test_no_address(command: list[str]) -> None:
    assert (
        "expected tcp://HOST:PORT or ipc://PATH"
        in CliRunner().invoke(app, [*command, "-s", "nowhere"]).output
    )


# ---------------------------------------------------------------- models


def test_models_and_show(run: Run) -> None:
    output = run("models")
    assert "stable" in row(output, "ranker", "1", "AVAILABLE")
    assert "yes" in row(output, "ranker", "2", "AVAILABLE")
    assert "copy it again" in row(output, "broken", "1", "FAILED")
    rows = {(line["model"], line["version"]): line for line in json.loads(run("models", "--json"))}
    assert rows["ranker", 1]["labels"] == ["stable"]
    assert rows["ranker", 1]["workers"] >= 1
    assert rows["broken", 1]["reason"].startswith("INVALID_ARGUMENT")
    output = run("models", "show", "several")
    assert output.startswith("several version 4, onnxruntime, batches: up to ")
    assert row(output, "input", "a", "float32").endswith("[?, 3]")
    assert row(output, "output", "b_out", "int64").endswith("[?]")
    assert json.loads(run("models", "show", "ranker", "--label", "stable", "--json"))["version"] == 1
    assert "models here: broken, ranker" in run("models", "show", "nope", status=1)


def test_the_groups_server_holds_for_its_commands(serve: Serve, repository: Path) -> None:
    models.scale(repository / "m" / "1")
    server = serve(repository)
    output = run_command(
        "models", "--server", server.endpoint, "show", "m", TENSORWIRE_SERVER="tcp://127.0.0.1:1"
    )
    assert "m version 1" in output


def test_unload_and_load(run: Run) -> None:
    assert "AVAILABLE" not in run("models", "unload", "several")
    assert "unloaded by an operator" in run("predict", "several", status=1)
    assert row(run("models", "load", "several"), "several", "4", "AVAILABLE")
    output = run("models", "unload", "ranker", 2)
    assert "yes" in row(output, "ranker", "1", "AVAILABLE")
    assert row(run("models", "load", "ranker", 2), "ranker", "2", "AVAILABLE")


def test_loading_what_fails_waits_for_the_new_result(run: Run, repository: Path) -> None:
    output = run("models", "load", "broken", 1, status=1)
    assert "error: broken:1 FAILED (INVALID_ARGUMENT: " in output
    models.scale(repository / "broken" / "1")
    assert row(run("models", "load", "broken", 1), "broken", "1", "AVAILABLE")


def test_what_cannot_be_done_and_what_is_not_waited_for(run: Run, repository: Path) -> None:
    assert "has no version 9; versions in the repository: 1, 2" in run(
        "models", "load", "ranker", 9, status=1
    )
    assert "no model 'nope'" in run("models", "unload", "nope", status=1)
    assert run("models", "load", "ranker", 1, "--no-wait").startswith("taken in by the server")
    (repository / "ranker" / "3").mkdir()
    output = run("models", "load", "ranker", 3, "--timeout", 0.1, status=1)
    assert "not done after 0.1 s, the server goes on: " in output
    assert "ranker:3 WAITING (the directory is empty)" in output


def test_labels_move_and_go(run: Run) -> None:
    assert "stable" in row(run("models", "label", "ranker", "stable", 2), "ranker", "2", "AVAILABLE")
    assert "stable" not in run("models", "label", "ranker", "stable", "--remove")
    output = run("models", "label", "ranker", "next", 7, status=1)
    assert (
        "points at nothing yet: version 7 is not in the repository; it moves when version 7 serves" in output
    )
    assert "give either the VERSION" in run("models", "label", "ranker", "stable", status=2)
    assert "not digits only" in run("models", "label", "ranker", "7", 1, status=1)


def test_routes(run: Run) -> None:
    run("models", "route", "ranker", "stable=1")
    assert "yes" not in run("models").split("several")[0]
    assert "[[2. 2. 2. 2.]]" in run("predict", "ranker", "-i", "x=[1,1,1,1]")
    run("models", "route", "ranker", "--clear")
    assert "[[3. 3. 3. 3.]]" in run("predict", "ranker", "-i", "x=[1,1,1,1]")
    assert "label 'nope' is not declared" in run("models", "route", "ranker", "nope=1", status=1)
    assert "expected TARGET=WEIGHT" in run("models", "route", "ranker", "stable", status=2)
    assert "give either TARGET=WEIGHT" in run("models", "route", "ranker", status=2)


def test_rescan_waits_for_what_is_new(run: Run, repository: Path) -> None:
    models.scale(repository / "new" / "1")
    assert row(run("models", "rescan"), "new", "1", "AVAILABLE")


# ---------------------------------------------------------------- predict


def test_predict(run: Run) -> None:
    output = run("predict", "several", "-i", "a=[[1, 2, 3]]", "-i", "b=[2]")
    assert output == (
        "sum: float32[1, 3]\n[[3. 4. 5.]]\nproduct: float32[1, 3]\n[[2. 4. 6.]]\nb_out: int64[1]\n[2]\n"
    )
    one = ("predict", "ranker", "-i", "x=[1, 0, 0, 0]", "--json")
    assert json.loads(run(*one, "--label", "stable"))["outputs"]["y"]["data"] == [[2, 0, 0, 0]]
    result = json.loads(run(*one, "--version", 2))
    assert result == {
        "model": "ranker",
        "outputs": {"y": {"dtype": "float32", "shape": [1, 4], "data": [[3, 0, 0, 0]]}},
    }
    assert "version 9 is not there" in run(*one, "--version", 9, status=1)
    assert run("predict", "ranker", status=2) == (
        "error: input x is missing; expected inputs: x: float32[?, 4]\n"
    )
    output = run("predict", "ranker", "-i", "x=[[1, 2]]", status=1)
    assert output.startswith("error: INVALID_ARGUMENT: ")
    assert output.count("expected") == 1
    assert "x: float32[?, 4]" in output


def test_predict_reads_and_writes_files(run: Run, tmp_path: Path) -> None:
    x = np.arange(8.0).reshape(2, 4)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.json").write_text(json.dumps(x.tolist()))
    np.savez(tmp_path / "inputs.npz", x=x)
    for value in (f"x={tmp_path / 'x.npy'}", f"x={tmp_path / 'x.json'}", tmp_path / "inputs.npz"):
        run("predict", "ranker", "-i", value, "--output", tmp_path / "out.npz")
        with np.load(tmp_path / "out.npz") as written:
            np.testing.assert_array_equal(written["y"], (x * 3).astype("f4"))
    assert "ends with .npz" in run("predict", "ranker", "-i", "x=[1]", "-o", "out.npy", status=2)
    assert "cannot be written" in run(
        "predict", "ranker", "-i", "x=[1, 2, 3, 4]", "-o", tmp_path / "no" / "o.npz", status=1
    )
    (tmp_path / "poem").write_text("line\n")
    assert "['[1] is text here']" in run("predict", "text", "-i", "x=@[1] is text here")
    assert "['a' 'b']" in run("predict", "text", "-i", 'x=["a", "b"]')
    output = json.loads(run("predict", "text", "-i", f"x={tmp_path / 'poem'}", "--json"))
    assert output["outputs"]["y"] == {"dtype": "string", "shape": [1], "data": ["line\n"]}


# ---------------------------------------------------------------- status


def test_status_shows_counters(run: Run) -> None:
    run("predict", "ranker", "-i", "x=[1, 2, 3, 4]")
    output = run("status")
    assert "state      ready\n" in output
    assert "ranker, several, text" in output
    assert "no limit" in output
    assert row(output, "ranker:2").split()[1] == "1"
    found = json.loads(run("status", "--json"))
    assert found["health"]["settled"]
    assert found["stats"]["memory"]["used"] > 0
    assert run("health") == "ready, 3 models serve, 0 in flight\n"


def test_status_waits_until_the_server_is_ready(serve: Serve, repository: Path) -> None:
    models.scale(repository / "m" / "1")
    server = serve(repository, ready=False, manager={"settle_time": 0.5})
    assert run_command("health", "-s", server.endpoint, status=1).startswith("not ready: models are loading")
    assert run_command("health", "-s", server.endpoint, "--wait", "--timeout", 20).startswith(
        "ready, 1 models"
    )


def test_status_waits_no_longer_than_asked(serve: Serve, repository: Path) -> None:
    models.scale(repository / "m" / "1")
    server = serve(repository, ready=False, manager={"settle_time": 600})
    assert "not ready" in run_command("status", "-s", server.endpoint, "--wait", "--timeout", 0.2, status=1)


def test_status_waits_for_a_server_that_comes_later(serve: Serve, repository: Path, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/late"
    started = threading.Timer(0.2, lambda: serve(repository, bind=address))
    started.start()
    assert run_command("health", "-s", address, "--wait", "--timeout", 20).startswith("ready, ")
    started.join()
