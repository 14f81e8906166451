"""`tensorwire tune` against servers: what it changes, puts back, prints and writes. No figures."""

from __future__ import annotations

import json
import os
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from commands import row, run_command
from sweeps import measurement
from tensorwire.bench.recorder import Measurement
from tensorwire.bench.tune.points import Point
from tensorwire.bench.tune.session import Refused
from tensorwire.bench.tune.toml import BATCH, COUNT, DELAY, KIND, SIZES
from tensorwire.client import Client
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.server import Server
from tensorwire.server.cli import tune_run
from tensorwire.server.cli.tune_machine import server_cores, server_pid
from tensorwire.server.cli.tune_present import Present, command
from tensorwire.server.cli.tune_site import Interfered, LiveSite
from tensorwire.server.cli.tuning import ask

Serve = Callable[..., Server]
#: Takes one call at a time.
SINGLE = """
class Model:
    inputs = [("x", "float32", (None, 4))]
    outputs = [("y", "float32", (None, 4))]
    batched = True

    def predict(self, x):
        return {"y": x}
"""
QUICK = ("--p99", "10s", "--seconds", "50ms", "--budget", "60s", "--callers", "2", "--kinds", "thread")


@pytest.fixture
def server(serve: Serve, repository: Path) -> Server:
    """Two versions of an ONNX model, and a Python model."""
    models.scale(repository / "ranker" / "1", 2.0)
    models.scale(repository / "ranker" / "2", 3.0)
    (repository / "ranker" / "model.toml").write_text(
        'versions.policy = "all"\nworkers.count = 2\nbatching.max_batch_size = 16\n'
    )
    (repository / "single" / "1").mkdir(parents=True)
    (repository / "single" / "1" / "model.py").write_text(SINGLE)
    (repository / "single" / "model.toml").write_text('workers.kind = "thread"\n')
    return serve(repository)


def live(server: Server, model: str = "ranker") -> dict[str, Any]:
    with Client(server.endpoint, timeout=20) as client:
        found = client.control("models.settings", {"model": model})
    return {setting["key"]: setting["value"] for setting in found["settings"] if setting["origin"] == "live"}


def set_live(server: Server, **values: Any) -> None:
    with Client(server.endpoint, timeout=20) as client:
        named = {key.replace("__", "."): value for key, value in values.items()}
        client.control("models.set", {"model": "ranker", "values": named})


class NoLoad:
    """In place of the load processes: gives figures at once. ``then`` is called at the n-th measurement."""

    def __init__(self, then: Callable[[int], None] = lambda number: None, calls: int = 0) -> None:
        self.calls = 0
        self._each = calls
        self._then = then
        self._number = 0

    def __call__(self, *_: object) -> NoLoad:
        return self

    def __enter__(self) -> NoLoad:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def drive(self, callers: int, warmup: float, seconds: float) -> Measurement:
        self.calls += self._each
        self._number += 1
        self._then(self._number)
        return measurement(1000.0 * callers, 0.001)


@contextmanager
def site(server: Server, crew: Any = None, model: str = "ranker") -> Iterator[LiveSite]:
    with Client(server.endpoint, timeout=20) as client:
        version = client.metadata(model).version
        present = Present.of(ask(client, model), version)
        yield LiveSite(client, lambda: Client(server.endpoint, timeout=5), present, crew or NoLoad(), 20.0)


# ---------------------------------------------------------------- the site


def test_a_point_is_made_of_what_differs(server: Server) -> None:
    set_live(server, batching__max_queue_delay=0.002)
    with site(server) as here:
        present = here.present
        assert present.point == Point("thread", 2, 16, 0.002)
        assert present.live == {DELAY: 0.002}
        assert present.live_at(present.point) == {DELAY: 0.002}
        assert present.live_at(Point("thread", 4, 8, 0.0)) == {COUNT: 4, BATCH: 8, DELAY: 0.0}
        assert present.live_at(Point("process", 2, 16, 0.002)) == {KIND: "process", COUNT: 2, DELAY: 0.002}


def test_points_are_set_and_put_back(server: Server) -> None:
    set_live(server, workers__count=3)
    with site(server) as here:
        here.apply(Point("thread", 1, 4, 0.001))
        assert live(server) == {COUNT: 1, BATCH: 4, DELAY: 0.001}
        here.apply(Point("thread", 3, 16, 0.0))
        assert live(server) == {COUNT: 3}
        here.apply(Point("thread", 1, 4, 0.0))
        assert here.finish(here.present.live)(20) == ""
    assert live(server) == {COUNT: 3}


def test_a_load_is_waited_for(server: Server) -> None:
    """More rows than the warm-up has covered."""
    with site(server) as here:
        here.apply(Point("thread", 2, 64, 0.0))
        with Client(server.endpoint, timeout=20) as client:
            assert client.metadata("ranker").max_batch_size == 64
        here.finish({})(20)
    assert live(server) == {}


def test_what_is_refused_changes_nothing(server: Server) -> None:
    with site(server, model="single") as here:
        with pytest.raises(Refused, match="1, because this model takes one call at a time"):
            here.apply(Point("thread", 2, here.present.point.batch, 0.0))
        assert live(server, "single") == {}
        here.apply(Point("thread", 1, 1, 0.0))
        here.finish({})(20)


def test_allowed_sizes_follow(server: Server) -> None:
    set_live(server, batching__allowed_batch_sizes=[4, 8, 16])
    with site(server) as here:
        assert here.present.live_at(Point("thread", 2, 8, 0.0)) == {BATCH: 8, SIZES: [4, 8]}
        here.apply(Point("thread", 2, 8, 0.0))
        here.apply(Point("thread", 2, 4, 0.0))
        here.finish(here.present.live)(20)
    assert live(server) == {SIZES: [4, 8, 16]}


def test_no_gap_is_made(server: Server, repository: Path) -> None:
    path = repository / "ranker" / "model.toml"
    path.write_text(path.read_text() + 'versions.transition = "resource"\n')
    run_command("models", "rescan", TENSORWIRE_SERVER=server.endpoint)
    with site(server) as here:
        for point in (Point("process", 2, 16, 0.0), Point("thread", 2, 64, 0.0)):
            with pytest.raises(Refused, match="nothing would serve meanwhile"):
                here.apply(point)
        here.apply(Point("thread", 2, 8, 0.0))
        here.finish({})(20)


def test_somebody_else_wins(server: Server) -> None:
    with site(server) as here:
        here.apply(Point("thread", 4, 8, 0.0))
        set_live(server, workers__count=7)
        with pytest.raises(Interfered, match=r"workers\.count is 7"):
            here.apply(Point("thread", 1, 8, 0.0))
        here.finish(here.present.live)(20)
    assert live(server) == {COUNT: 7}


def test_requests_of_others_are_counted(server: Server) -> None:
    def others(_: int) -> None:
        with Client(server.endpoint, timeout=20) as client:
            client.predict("ranker", {"x": np.ones((1, 4), np.float32)})
            client.predict("single", {"x": np.ones((1, 4), np.float32)})
            client.predict("single", {"x": np.ones((1, 4), np.float32)})

    with site(server, NoLoad(others)) as here:
        here.measure(1, 0.0, 0.1)
        assert here.others == (1, 2)


def test_a_model_on_its_way_is_not_tuned(server: Server, repository: Path) -> None:
    (repository / "ranker" / "3").mkdir()
    run_command("models", "rescan", TENSORWIRE_SERVER=server.endpoint)
    with (
        pytest.raises(InvalidArgumentError, match=r"ranker:3 is WAITING .*; `tune` begins when"),
        site(server),
    ):
        pass


def test_the_server_is_found_on_this_machine(server: Server, tmp_path: Path) -> None:
    assert server_pid(server.endpoint) == os.getpid()
    assert server_pid("tcp://192.0.2.1:8700") is None
    assert server_pid(f"ipc://{tmp_path}/nobody") is None
    assert server_cores(os.getpid()) == len(os.sched_getaffinity(0))


def test_how_to_put_it_back_by_hand() -> None:
    assert command("m", {}) == "tensorwire settings m --reset workers batching"
    values = {COUNT: 2, KIND: None, SIZES: [4, 8]}
    assert command("m", values) == (
        "tensorwire settings m workers.count=2 workers.kind=none 'batching.allowed_batch_sizes=[4, 8]'"
    )


# ---------------------------------------------------------------- the command, without load


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command with figures from nowhere."""

    def run(*arguments: object, crew: NoLoad | None = None, status: int = 0) -> str:
        monkeypatch.setattr(tune_run, "Crew", crew or NoLoad())
        return run_command(
            "tune", "ranker", *QUICK, *arguments, status=status, TENSORWIRE_SERVER=server.endpoint
        )

    return run


def test_the_table(run: Callable[..., str], server: Server) -> None:
    output = run("--counts", "1,2", "--batch-sizes", "16", "--delays", "0,20s")
    assert row(output, "=", "1").split()[1:8] == ["1", "thread", "x2", "16", "0", "2", "2,000"]
    # All are equal: what is simpler wins.
    assert row(output, "*", "2").split()[2:5] == ["thread", "x1", "16"]
    assert (
        row(output, "3", "thread", "x2", "16").partition("batching.")[2]
        == "max_queue_delay: found 20.0; expected a number >= 0 and <= 10"
    )
    assert "objective: p99 within 10 s; 16 different requests of x float32[1, 4], made up" in output
    assert "in force now: the settings before" in output
    assert "req/s" in output
    assert live(server) == {}


def test_json_and_files(run: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "tune"
    np.save(tmp_path / "x.npy", np.ones((6, 4), np.float32))
    output = run(
        "--counts",
        "1,4",
        "--delays",
        "0",
        "--json",
        "--out",
        out,
        "--sample",
        f"x=@{tmp_path}/x.npy",
        "--rows",
        3,
    )
    found = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert found == json.loads((out / "tune.json").read_text())
    assert found["sample"] == "2 different requests of x float32[3, 4], given"
    assert found["before"]["workers.count"] == 2
    assert found["choice"]["point"] == {
        "kind": "thread",
        "count": 1,
        "batch": found["choice"]["point"]["batch"],
        "delay": 0.0,
    }
    written = tomllib.loads((out / "model.toml").read_text())
    assert written["workers"] == {"count": 1}
    assert (out / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert not found["ended"]


def test_apply_leaves_the_recommendation(run: Callable[..., str], server: Server) -> None:
    output = run("--counts", "1,4", "--batch-sizes", "16", "--delays", "0", "--apply")
    assert "in force now: thread x1, batch 16, delay 0, until the server stops" in output
    assert live(server) == {COUNT: 1}


def test_write_lays_it_into_model_toml_after_a_backup(run: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    text = "# ours\n[workers]\ncount = 2\n[labels]\nstable = 1\n"
    path.write_text(text)
    run("--counts", "1,4", "--batch-sizes", "16", "--delays", "0", "--write", path)
    written = tomllib.loads(path.read_text())
    assert written == {"workers": {"count": 1}, "labels": {"stable": 1}, "batching": {"max_batch_size": 16}}
    (backup,) = tmp_path.glob("model.toml.*.bak")
    assert backup.read_text() == text


def test_nothing_meets_the_objective(run: Callable[..., str], server: Server, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text("")
    output = run("--counts", "1", "--delays", "0", "--p99", "1us", "--apply", "--write", path, status=1)
    assert "NO SETTINGS MEET THE OBJECTIVE of 1 us" in output
    assert "nearest to it: thread x" in output
    assert live(server) == {}
    assert path.read_text() == ""


@pytest.mark.parametrize("number", [1, 2, 5, 8])
def test_an_interruption_at_any_time_restores(run: Callable[..., str], server: Server, number: int) -> None:
    set_live(server, workers__count=3)

    def interrupt(reached: int) -> None:
        if reached == number:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    output = run("--counts", "1,4", "--batch-sizes", "4,8", crew=NoLoad(interrupt), status=130)
    assert "ended before its time: interrupted" in output
    assert "in force now: the settings before" in output
    assert live(server) == {COUNT: 3}


@pytest.mark.parametrize("error", [OSError("the disk is full"), ZeroDivisionError("a bug")])
def test_any_error_restores(run: Callable[..., str], server: Server, error: Exception) -> None:
    def fail(number: int) -> None:
        if number == 4:
            raise error

    if isinstance(error, OSError):
        output = run("--counts", "1,4", crew=NoLoad(fail), status=1)
        assert "ended before its time: the disk is full" in output
        assert row(output, "=", "1")
    else:
        with pytest.raises(AssertionError, match="a bug"):
            run("--counts", "1,4", crew=NoLoad(fail))
    assert live(server) == {}


def test_a_lost_server_is_told_with_what_was_measured(
    run: Callable[..., str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_run, "_COMMAND_TIMEOUT", 1.0)
    closing = threading.Thread(target=server.close)

    def lose(number: int) -> None:
        if number == 4:
            closing.start()
            closing.join()

    output = run("--counts", "1,4", crew=NoLoad(lose), status=1)
    assert row(output, "=", "1")
    assert "ended before its time" in output
    assert "in force now: not known" in output
    assert "tensorwire settings ranker --reset workers batching" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--p99", "fast"), "--p99: found 'fast'; expected a duration such as 20ms"),
        (("--p99", "0"), "--p99 and --seconds must be more than 0"),
        (("--kinds", "fibre"), "--kinds: found 'fibre'; expected thread,process"),
        (("--counts", "0"), "--counts: found '0'; expected numbers from 1"),
        (("--batch-sizes", "a"), "--batch-sizes: found 'a'"),
        (("--delays", "1,x"), "--delays: found 'x'"),
        (("--write", "nowhere.toml"), "--write: no such file: nowhere.toml"),
        (("--sample", "x=@nowhere.npy"), "--sample: no such file: nowhere.npy"),
        (("-i", "y=1"), "no input 'y'; expected inputs: x: float32[?, 4]"),
    ],
)
def test_what_is_wrong_with_a_command(
    run: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in run(*arguments, status=2)


def test_models_that_cannot_be_tuned(server: Server) -> None:
    output = run_command("tune", "nope", status=1, TENSORWIRE_SERVER=server.endpoint)
    assert "models here: ranker, single" in output
    output = run_command("tune", "ranker", "-i", "x=[1, 2]", status=1, TENSORWIRE_SERVER=server.endpoint)
    assert "the model does not take the sample" in output


# ---------------------------------------------------------------- the command, with everything


def test_end_to_end(server: Server, tmp_path: Path) -> None:
    """Real load processes; nothing about figures."""
    out = tmp_path / "out"
    output = run_command(
        "tune",
        "ranker",
        *QUICK,
        *("--counts", "1,2", "--batch-sizes", "16", "--delays", "0", "--processes", 2, "--label", "none"),
        status=1,
        TENSORWIRE_SERVER=server.endpoint,
    )
    assert "label" in output
    output = run_command(
        "tune",
        "ranker",
        *QUICK,
        *("--counts", "1,2", "--batch-sizes", "16", "--delays", "0", "--processes", 2, "--version", 1),
        *("--out", out),
        TENSORWIRE_SERVER=server.endpoint,
    )
    found = json.loads((out / "tune.json").read_text())
    assert found["version"] == 1
    assert found["same_machine"]
    assert found["choice"]["meets"]
    assert all(not line["errors"] for line in found["lines"])
    assert all(line["rung"]["measured"]["requests"] > 0 for line in found["lines"])
    assert found["others"] == [0, 0]
    assert "load from 2 processes" in output
    assert live(server) == {}


def test_ctrl_c_in_a_process_of_its_own(start: Any, server: Server, until: Any) -> None:
    process = start(
        "tune",
        "ranker",
        "--p99",
        "10s",
        "--seconds",
        "0.3",
        "--kinds",
        "thread",
        TENSORWIRE_SERVER=server.endpoint,
    )
    until(lambda: live(server))
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert "ended before its time: interrupted" in process.output
    assert live(server) == {}
