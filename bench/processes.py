"""Child processes of a benchmark: started, waited for, talked to and stopped by their id."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec

_Message = TypeVar("_Message")
#: A child that was asked to stop gets this long before it is told, and then made, to.
_STOP_SECONDS: Final = 5.0
#: Seconds between two looks whether children still run.
_LOOK_SECONDS: Final = 0.2


class ChildError(RuntimeError):
    """A child ended, or said nothing, when it should have answered."""


class NotBuiltError(RuntimeError):
    """A program in another language that is to be compared is not there; says why, or what builds it."""


class Child:
    """One process with line-wise JSON on stdin and stdout; a context manager that never leaves it running.

    Args:
        name: for error messages.
        arguments: after the program, for example ``["-m", "tensorwire.bench.echo"]``.
        log: file that takes its stderr; the end of it is quoted when the child fails.
        ends_with_stdin: whether closing its stdin stops it; otherwise it gets SIGTERM.
        program: what is run; this Python interpreter unless told otherwise.
        environment: variables on top of those of this process.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        ends_with_stdin: bool = True,
        program: str | Path = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._arguments = [str(program), *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._log = log
        self._ends_with_stdin = ends_with_stdin
        self._process: subprocess.Popen[bytes] | None = None
        self._received = bytearray()

    def __enter__(self) -> Child:
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the harness alone, which then stops its children in order.
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._running()
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # it is gone, and part of a message to it is left
                process.stdin.close()
        if not (self._ends_with_stdin and _ended(process)):
            process.terminate()
            if not _ended(process):
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._process = None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._running().pid

    def send(self, message: object) -> None:
        """Write one JSON line."""
        stdin = self._running().stdin
        assert stdin is not None
        try:
            stdin.write(msgspec.json.encode(message) + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("is gone") from error

    def receive(self, kind: type[_Message], timeout: float) -> _Message:
        """Wait for one JSON line.

        Raises:
            ChildError: the child ended or said nothing for ``timeout`` seconds.
        """
        stdout = self._running().stdout
        assert stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._received:
            self._fill(stdout, deadline, timeout)
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received[:] = rest
        return msgspec.json.decode(line, type=kind)

    def _fill(self, stdout: IO[bytes], deadline: float, timeout: float) -> None:
        ready, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise self._failure(f"said nothing for {timeout:g} s")
        data = os.read(stdout.fileno(), 65536)
        if not data:
            raise self._failure("ended")
        self._received += data

    def wait_until(self, probe: Callable[[], bool], timeout: float, interval: float = 0.02) -> None:
        """Poll ``probe`` until it holds, for a child that does not announce itself.

        Raises:
            ChildError: the child ended, or the probe did not hold within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not probe():
            self.check()
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {timeout:g} s")
            time.sleep(interval)

    def check(self) -> None:
        """Raises :class:`ChildError` where it has ended."""
        if self._running().poll() is not None:
            raise self._failure("ended")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ChildError(f"{self.name} is not running")
        return self._process

    def _failure(self, what: str) -> ChildError:
        tail = self._log.read_text(errors="replace").strip().splitlines()[-15:]
        quoted = "".join(f"\n    {line}" for line in tail)
        return ChildError(f"{self.name} {what}{'; its last words:' if quoted else ''}{quoted}")


def watch(children: Sequence[Child], stopped: threading.Event) -> None:
    """Wait until ``stopped`` is set: for a server that consists of other processes.

    Raises:
        ChildError: one of them has ended. It is not the server any more that was to be measured.
    """
    while not stopped.wait(_LOOK_SECONDS):
        for child in children:
            child.check()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
