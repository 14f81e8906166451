"""`tensorwire serve` as a process: readiness, signals, reload, start-up errors."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import front_ends
import models
import numpy as np
import pytest
from tensorwire.client import Client
from tensorwire.rpc.errors import UnavailableError

Start = Callable[..., Any]
Until = Callable[[Callable[[], Any]], Any]
X = np.ones((1, 4), np.float32)

#: Answers zeros at once; with anything else it waits for the file `go` beside its repository.
GATED = """
import time
from pathlib import Path

class Model:
    inputs = [("x", "int64", (1,))]
    outputs = [("y", "int64", (1,))]

    def predict(self, x):
        go = Path(__file__).parents[3] / "go"
        while x[0] and not go.exists():
            time.sleep(0.002)
        return {"y": x + 1}
"""


def add_gated(repository: Path) -> None:
    directory = repository / "gated" / "1"
    directory.mkdir(parents=True)
    (directory / "model.py").write_text(GATED)


def test_ready_after_every_model_serves_or_has_failed(
    start_server: Start, repository: Path, tmp_path: Path
) -> None:
    models.matmul(repository / "good" / "1", 4)
    models.scale(repository / "good" / "2")
    (repository / "good" / "model.toml").write_text('versions.policy = "all"\nlabels.stable = 1')
    broken = repository / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"half a model")
    (repository / "odd").mkdir()
    (repository / "odd" / "model.toml").write_text("bathcing.enabled = true")
    models.weights(repository / "large" / "1", 8)
    server = start_server("--ready-file", tmp_path / "ready", "--ram-budget", "1MiB").ready()
    assert "2 model versions at tcp://127.0.0.1:" in server.line(" ready: ")
    assert "3 failed" in server.line(" ready: ")
    assert ", pump " in server.line(f"pid {server.pid}")
    assert "onnxruntime, " in server.line("serving good:1 AVAILABLE")
    assert "label stable" in server.line("serving good:1 AVAILABLE")
    assert "default" in server.line("serving good:2 AVAILABLE")
    failed = server.line("broken:1 FAILED")
    assert "copy it again" in failed
    assert "or with `tensorwire models load broken 1`" in failed
    assert "did you mean 'batching'" in server.line("odd FAILED")
    assert "the budget is 1.0 MiB in all; raise ram_budget" in server.line("large:1 FAILED")
    assert (tmp_path / "ready").read_text() == f"{server.endpoint}\n"
    with Client(server.endpoint, timeout=10) as client:
        assert client.predict("good", {"x": X})["y"].shape == (1, 4)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not (tmp_path / "ready").exists()


def test_a_stop_answers_what_is_in_flight_and_refuses_the_rest(
    start_server: Start, repository: Path, tmp_path: Path, until: Until
) -> None:
    add_gated(repository)
    models.matmul(repository / "other" / "1", 4)
    server = start_server().ready()
    with Client(server.endpoint, timeout=20) as client:
        waiting: list[Future[Any]] = [client.submit("gated", {"x": [i]}) for i in range(1, 9)]
        until(lambda: client.health().in_flight == 8)
        server.signal(signal.SIGTERM)
        assert "8 in flight" in server.line("refusing new requests")
        until(lambda: client.health().draining)
        with pytest.raises(UnavailableError, match="shutting down"):
            client.predict("other", {"x": X})
        (tmp_path / "go").touch()
        assert [int(answer.result()["y"][0]) for answer in waiting] == list(range(2, 10))
        assert server.wait() == 0
    assert server.lines[-1].endswith("stopped")


def test_the_grace_time_ends_the_wait(start_server: Start, repository: Path, until: Until) -> None:
    add_gated(repository)
    server = start_server("--grace", 0.05).ready()
    with Client(server.endpoint, timeout=20) as client:
        waiting = client.submit("gated", {"x": [1]})
        until(lambda: client.health().in_flight)
        server.signal(signal.SIGINT)
        assert server.wait() == 1
        with pytest.raises(UnavailableError):
            waiting.result()
    server.line("1 requests were still in flight after the grace time of 0.05 s")


def test_a_second_signal_stops_at_once(start_server: Start, repository: Path, until: Until) -> None:
    add_gated(repository)
    server = start_server("--grace", 600).ready()
    with Client(server.endpoint, timeout=20) as client:
        waiting = client.submit("gated", {"x": [1]})
        until(lambda: client.health().in_flight)
        server.signal(signal.SIGTERM)
        server.line("refusing new requests")
        server.signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
        with pytest.raises(UnavailableError):
            waiting.result()
    server.line("SIGTERM again: stopping at once")


def test_several_front_ends_from_start_to_stop(
    start_server: Start, repository: Path, tmp_path: Path, until: Until
) -> None:
    add_gated(repository)
    server = start_server("--front-ends", 2).ready()
    server.line(f"listening at {server.endpoint}, 2 front ends, model repository")
    with ExitStack() as stack:
        here, there = (
            stack.enter_context(front_ends.connect(server.endpoint, at_server=place))
            for place in (True, False)
        )
        (other,) = front_ends.others(here)
        # Ctrl-C and a service manager may signal all processes: only the server acts on it.
        os.kill(other["process"], signal.SIGINT)
        os.kill(other["process"], signal.SIGTERM)
        waiting = [client.submit("gated", {"x": [i]}) for i in (1, 2) for client in (here, there)]
        until(lambda: here.health().in_flight == 4)
        server.signal(signal.SIGTERM)
        until(lambda: there.health().draining)
        (tmp_path / "go").touch()
        assert [int(answer.result()["y"][0]) for answer in waiting] == [2, 2, 3, 3]
        assert server.wait() == 0
    assert server.lines[-1].endswith("stopped")
    assert not Path(f"/proc/{other['process']}").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_front_ends_end_with_the_server(
    start_server: Start, repository: Path, until: Until, number: signal.Signals
) -> None:
    """However it ends: killed, or by a second signal."""
    add_gated(repository)
    server = start_server("--front-ends", 3, "--grace", 600).ready()
    with front_ends.connect(server.endpoint, at_server=False) as client:
        pids = [each["process"] for each in front_ends.others(client)]
        assert len(pids) == 2
        waiting = client.submit("gated", {"x": [1]})
        until(lambda: client.health().in_flight)
        server.signal(number)
        if number == signal.SIGTERM:
            server.line("refusing new requests")
            server.signal(number)
        assert server.wait() in (-number, 128 + number)
        assert isinstance(waiting.exception(20), UnavailableError)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_sighup_applies_all_of_a_good_configuration(
    start_server: Start, repository: Path, tmp_path: Path
) -> None:
    add_gated(repository)
    config = tmp_path / "server.toml"
    config.write_text("[serving]\nmax_in_flight = 10\n")
    server = start_server("-c", config).ready()
    endpoint = server.endpoint
    config.write_text(
        '[serving]\nmax_in_flight = 1\nmax_frame_bytes = "1MiB"\n'
        '[manager]\nload_threads = 2\n[log]\nlevel = "debug"\n'
    )
    server.signal(signal.SIGHUP)
    server.line("changed serving.max_in_flight: 10 -> 1")
    server.line("changed manager.load_threads: 4 -> 2")
    server.line("changed log.level: info -> debug")
    server.line("changed serving.max_frame_bytes: 1073741824 -> 1048576, which needs a restart")
    with Client(endpoint, timeout=20) as client:
        first = client.submit("gated", {"x": [1]})
        assert "limit of 1 requests" in str(client.submit("gated", {"x": [2]}).exception(20))
        (tmp_path / "go").touch()
        assert first.result()["y"] == [2]


def test_sighup_applies_nothing_of_a_bad_configuration(
    start_server: Start, repository: Path, tmp_path: Path
) -> None:
    models.matmul(repository / "good" / "1", 4)
    config = tmp_path / "server.toml"
    config.write_text("")
    server = start_server("-c", config).ready()
    # The first key is good: it must not be applied either.
    config.write_text("[manager]\nload_threads = 2\n[serving]\ngrace = -1\n")
    server.signal(signal.SIGHUP)
    assert "serving.grace: found -1; expected" in server.line("nothing was changed")
    config.unlink()
    server.signal(signal.SIGHUP)
    assert "no such configuration file" in server.line("nothing was changed", 2)
    config.write_text("[manager]\nload_threads = 3\n")
    # Without a signal: the file is looked at every second.
    server.line(f"{config} changed: changed manager.load_threads: 4 -> 3")
    with Client(server.endpoint, timeout=10) as client:
        assert client.predict("good", {"x": X})["y"].shape == (1, 4)


def test_an_empty_repository_says_how_to_fill_it(start_server: Start, repository: Path) -> None:
    models.matmul(repository / "1", 4)
    server = start_server().ready()
    assert f"did you mean {repository.parent}?" in server.line("no models in")
    models.matmul(repository / "late" / "1", 4)
    server.line("late:1: WARMING -> AVAILABLE")


def test_an_occupied_port_ends_the_start(start_server: Start) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        address = f"tcp://127.0.0.1:{occupied.getsockname()[1]}"
        server = start_server(bind=address)
        assert server.wait() == 2
    assert server.output == (
        f"error: {address} is in use by another process; stop it or give another address with --bind"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nowhere", "--bind", "tcp://127.0.0.1:0"],
            "nowhere: no such directory; expected a model repository",
        ),
        (
            [".", "--ready-file", "no/where"],
            "--ready-file no/where: no is not a directory that can be written",
        ),
        (
            [".", "--front-ends", "2", "--bind", "ipc:///tmp/nowhere"],
            "serving.front_ends: found 2, but serving.bind is ipc:///tmp/nowhere, which has room for one",
        ),
    ],
)
def test_start_up_errors_are_one_line(start: Start, arguments: list[str], message: str) -> None:
    server = start("serve", *arguments)
    assert server.wait() == 2
    (line,) = server.lines
    assert line.startswith("error: ")
    assert message in line
