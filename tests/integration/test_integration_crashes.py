"""Worker processes that die, hang and cannot be started, under a server with real clients."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tensorwire.client import Client
from tensorwire.rpc.errors import InternalError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from conftest import Serve

LONG = 20.0
#: What ``x`` has the model do before it answers with its process id.
MODEL = """
import ctypes, os, signal, sys, time
import numpy as np

class Model:
    inputs = [("x", "float32", (None, 1))]
    outputs = [("pid", "int64", (None,)), ("y", "float32", (None, 1))]
    batched = True

    def load(self, directory, config):
        if os.path.exists(config.get("broken", "/nowhere")):
            os._exit(7)

    def predict(self, x):
        if (x == 101).any():
            os._exit(3)
        if (x == 102).any():
            ctypes.string_at(0)
        if (x == 103).any():
            os.kill(os.getpid(), signal.SIGSTOP)
        return {"pid": np.full(len(x), os.getpid()), "y": x * 2}
"""
EXIT, SEGFAULT, HANG = 101.0, 102.0, 103.0


def x(value: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.full((1, 1), value, np.float32)}


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


class Rig:
    """A server with one Python model in processes."""

    def __init__(self, serve: Serve, tmp_path: Path, config: str, **serving: Any) -> None:
        repository = tmp_path / "repository"
        self.broken = tmp_path / "broken"
        (repository / "m" / "1").mkdir(parents=True)
        (repository / "m" / "1" / "model.py").write_text(MODEL)
        options = f'[engine.options]\nbroken = "{self.broken}"\n'
        (repository / "m" / "model.toml").write_text(config + options)
        self.repository = repository
        self.server = serve(repository, **serving)
        self.client = Client(self.server.endpoint, timeout=LONG)

    def stats(self) -> dict[str, Any]:
        (version,) = self.client.control("stats")["versions"]
        return version

    def call(self, value: float = 1.0) -> int:
        """The process that answered."""
        answer = self.client.predict("m", x(value))
        assert answer["y"].tolist() == [[2 * value]]
        return int(answer["pid"][0])

    def state(self) -> str:
        (status,) = self.client.status("m")
        return status.state


@pytest.fixture
def rig(serve: Serve, tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(config: str = "[workers]\ncount = 2\n", **serving: Any) -> Rig:
        made.append(Rig(serve, tmp_path, config, **serving))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


def test_who_is_killed_is_replaced_and_nobody_notices(rig: Callable[..., Rig]) -> None:
    made = rig()
    made.call()
    before = set(made.stats()["worker_processes"])
    assert len(before) == 2
    with ThreadPoolExecutor(8) as pool:
        for pid in sorted(before):
            calls = [pool.submit(made.call, float(number)) for number in range(40)]
            os.kill(pid, signal.SIGKILL)
            for call in calls:
                call.result()
    until(lambda: len(made.stats()["worker_processes"]) == 2)
    assert not before & set(made.stats()["worker_processes"])
    counters = made.stats()
    assert (counters["workers_lost"], counters["failed"]) == (2, 0)


@pytest.mark.parametrize(("poison", "reason"), [(EXIT, "exited with status 3"), (SEGFAULT, "SIGSEGV")])
def test_a_request_that_kills_two_workers_is_refused(
    rig: Callable[..., Rig], poison: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = rig()
    with pytest.raises(InternalError, match=f"two workers died while they ran this request; .*{reason}"):
        made.call(poison)
    assert "a request killed two workers: x float32[1]" in caplog.text
    made.call()
    until(lambda: made.stats()["workers"] == 2)
    assert (made.stats()["workers_lost"], made.stats()["failed"]) == (2, 1)


def test_who_hangs_is_killed_and_replaced(rig: Callable[..., Rig]) -> None:
    made = rig("[workers]\ncount = 1\nhang_timeout = 0.2\n")
    first = made.call()
    with pytest.raises(InternalError, match=r"was killed because one call took more than 0\.2 s"):
        made.call(HANG)
    assert made.call() != first


def test_a_version_whose_workers_cannot_live_is_given_up_and_can_be_loaded_again(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    made = rig("[workers]\ncount = 1\n")
    pid = made.call()
    made.broken.touch()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(UnavailableError, match=r"its workers cannot be started .*exited with status 7"):
        made.call()
    until(lambda: made.state() == "FAILED")
    (status,) = made.client.status("m")
    assert "its workers cannot be started" in status.reason
    assert "given up" in caplog.text
    with pytest.raises(NotFoundError, match="version 1 is FAILED"):
        made.client.predict("m", x(1), version=1)
    made.broken.unlink()
    made.client.control("models.load", {"model": "m"})
    until(lambda: made.state() == "AVAILABLE")
    made.call()


def test_processes_end_with_their_version(rig: Callable[..., Rig]) -> None:
    made = rig()
    made.call()
    pids = made.stats()["worker_processes"]
    made.client.control("models.unload", {"model": "m"})
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_the_server_ends_while_a_worker_hangs(rig: Callable[..., Rig]) -> None:
    made = rig("[workers]\ncount = 1\n", grace=0.05)
    made.call()
    future = made.client.submit("m", x(HANG))
    until(lambda: made.stats()["in_flight"] == 1)
    made.server.close()
    with pytest.raises(UnavailableError):
        future.result(LONG)
