"""A ``tensorwire serve`` process to talk to, and the commands against it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Seconds that anything in these tests may take.
LIMIT = 30.0


class Process:
    """A command in a process of its own; its output is read all the time."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tensorwire.server.cli", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "200", **environment},
        )
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._reader_ended = True
            self._more.notify_all()

    _reader_ended = False

    @property
    def output(self) -> str:
        """Everything that was printed so far."""
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def line(self, text: str, count: int = 1) -> str:
        """Wait for the ``count``-th line that contains ``text``."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._more:
            self._more.wait_for(lambda: len(found()) >= count or self._reader_ended, LIMIT)
        assert len(found()) >= count, f"no {text!r} in:\n{self.output}"
        return found()[count - 1]

    @property
    def endpoint(self) -> str:
        """Where the server listens."""
        return self.line("listening at").split("listening at ")[1].split(",")[0]

    def ready(self) -> Process:
        """Wait until everything is loaded."""
        self.line(" ready: ")
        return self

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; the exit status."""
        status = self._popen.wait(LIMIT)
        self._reader.join(LIMIT)
        return status

    def close(self) -> None:
        """End it whatever it does, and let go of everything."""
        if self._popen.poll() is None:
            self._popen.kill()
        self.wait()
        assert self._popen.stdout is not None
        self._popen.stdout.close()


Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``tensorwire ARGUMENTS``; killed after the test if it still runs."""
    processes: list[Process] = []

    def start(*arguments: object, **environment: str) -> Process:
        processes.append(Process(*arguments, **environment))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.fixture
def start_server(start: Start, tmp_path: Path) -> Start:
    """Starts ``tensorwire serve`` for the test's repository on a free port, with quick settings."""

    def start_server(*arguments: object, bind: str = "tcp://127.0.0.1:0", **environment: str) -> Process:
        repository = tmp_path / "repository"
        repository.mkdir(exist_ok=True)
        quick = ("--poll-interval", 0.05, "--settle-time", 0, "--bind", bind)
        return start("serve", repository, *quick, *arguments, **environment)

    return start_server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty model repository."""
    path = tmp_path / "repository"
    path.mkdir(exist_ok=True)
    return path


def until(look: Callable[[], Any]) -> Any:
    """Look until there is something, and return it."""
    end = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return found


@pytest.fixture(name="until")
def until_fixture() -> Callable[[Callable[[], Any]], Any]:
    """:func:`until`: for what has no event to wait for."""
    return until
