"""A child process with its socket and its memory: starting it, and finding out how it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from ...manager.engines.base import one_line
from ...rpc.errors import ProtocolError, ResourceExhaustedError
from . import framing
from .arena import ARENA_NBYTES, Mapping, new_memory
from .devices import environment_of
from .framing import ChildSpec, Load
from .link import Closed, Link, Received
from .spawner import Order, Spawner

_STDERR: Final = 2
_PAGE_NBYTES: Final = os.sysconf("SC_PAGE_SIZE")
#: Milliseconds between the end of a socket and that of its process, at most: closing its descriptors is
#: nearly the last thing that a process does. One that goes on without its socket is killed.
_GOING_MS: Final = 200
#: Of what it has written, the end of which is quoted.
_LAST_NBYTES: Final = 4096
_CRASH: Final = "Fatal Python error"


class WorkerLost(Exception):
    """A worker process is gone.

    Attributes:
        reason: one line, such as ``"was killed by signal 9 (SIGKILL)"``.
        status: as :class:`subprocess.Popen` has it; None: it was not found out.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


def describe_status(status: int) -> str:
    """``-11`` -> ``"was killed by signal 11 (SIGSEGV)"``."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:
        name = ""
    return f"was killed by signal {-status}{name}"


class ChildProcess:
    """A child: its process, its end of the socket, its arenas.

    Attributes:
        link: our end of the socket.
        calls, answers: the arenas.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], link: Link, calls: Mapping, answers: Mapping, stderr: int
    ) -> None:
        self.calls = calls
        self.answers = answers
        self._process = process
        self.link = link
        self._stderr = stderr
        self._stderr_read = 0
        #: Why it was killed, if it was.
        self.reason = ""
        self._lock = threading.Lock()
        self._closed = False
        self._pidfd = os.pidfd_open(process.pid)
        self._gone = False
        self._poll = select.poll()
        for fd in self.filenos():
            self._poll.register(fd, select.POLLIN)

    @classmethod
    def start(cls, spec: ChildSpec, spawner: Spawner) -> ChildProcess:
        """Start a child and tell it what to load.

        Raises:
            ResourceExhaustedError: no memory, descriptors or processes are left.
            InvalidArgumentError: the configuration is too large, or names cores that are not there.
        """
        paths = tuple(path or os.getcwd() for path in sys.path)
        load = framing.encode_control(Load(spec, paths))
        with contextlib.ExitStack() as opened:
            try:
                child = cls._spawn(spec, spawner, opened)
            except OSError as error:
                raise ResourceExhaustedError(f"a worker process cannot be started: {error}") from error
        with contextlib.suppress(Closed):  # it will be seen when its answer is waited for
            child.link.send(load)
        return child

    @classmethod
    def _spawn(cls, spec: ChildSpec, spawner: Spawner, opened: contextlib.ExitStack) -> ChildProcess:
        """``opened`` gets what only the child needs."""

        def kept(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened.callback(theirs.close)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, framing.MAX_MESSAGE)
        with contextlib.ExitStack() as failed:
            failed.callback(ours.close)
            memories = [kept(new_memory(ARENA_NBYTES, reserve=False)) for _ in range(2)]
            calls, answers = Mapping(memories[0], writable=True), Mapping(memories[1], writable=False)
            words = os.memfd_create("tensorwire-stderr", os.MFD_CLOEXEC)
            failed.callback(os.close, words)
            keep = [theirs.fileno(), *memories, kept(os.dup(_STDERR))]
            arguments = [f"{spec.model}:{spec.version}", str(os.getpid()), *map(str, keep)]
            environment = environment_of(spec.device)
            process = spawner.spawn(
                Order(arguments, keep, words, spec.config.workers, environment=environment)
            )
            failed.callback(_reap, process)
            child = cls(process, Link(ours, blocking=False), calls, answers, words)
            failed.pop_all()
        return child

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def filenos(self) -> tuple[int, int]:
        """For poll: readable when there is a message; readable when the process is gone."""
        # Both, because processes that the model has started may keep the socket open.
        return self.link.fileno(), self._pidfd

    def wait(self, timeout: float | None = None) -> None:
        """Until there is a message, or the process is gone; at most so many seconds."""
        found = self._poll.poll(None if timeout is None else timeout * 1000)
        if any(fd == self._pidfd for fd, _ in found):
            self._gone = True

    def note_gone(self) -> None:
        """The process has ended: once everything that it sent has been received, it is lost."""
        self._gone = True

    def send(self, message: bytes, fd: int) -> bool:
        """See :meth:`.link.Link.send`; raises WorkerLost."""
        if self.reason:
            raise self.lost()
        try:
            return self.link.send(message, fd)
        except Closed:
            raise self.lost() from None

    def receive(self) -> Received | None:
        """The next message; None if there is none at the moment.

        Raises:
            WorkerLost: the process is gone.
        """
        try:
            received = self.link.receive()
        except Closed:
            raise self.lost() from None
        except ProtocolError as error:
            raise self.refuse(error.message) from error
        if received is None:
            self.check_gone()
        return received

    def check_gone(self) -> None:
        """Nothing is left to be received. Raises WorkerLost if the process was seen to be gone before."""
        if self._gone:
            raise self.lost()

    def refuse(self, why: str) -> WorkerLost:
        """End a process that sends what it should not."""
        reason = f"was stopped because of what it sent: {one_line(why)}"
        self.kill(reason)
        return WorkerLost(self.reason or reason)

    def kill(self, reason: str) -> None:
        """SIGKILL; the first reason counts, and none if it is gone already."""
        with self._lock:
            if self._process.poll() is not None:
                return
            self.reason = self.reason or reason
            self._process.kill()

    def lost(self) -> WorkerLost:
        """How the process has ended, whose socket has."""
        if not self._ended(_GOING_MS):
            self.kill("closed its connection to the server")
        status = self._process.poll()
        reason = self.reason or describe_status(-signal.SIGKILL if status is None else status)
        return WorkerLost(reason, status)

    def _ended(self, milliseconds: float) -> bool:
        if self._process.poll() is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(milliseconds)
        return self._process.poll() is not None

    # ---------------------------------------------------------------- stderr

    def loaded(self) -> None:
        """It has its real stderr from now on."""
        self.forward_stderr()

    def forward_stderr(self) -> None:
        """Write to our stderr what it has written since the last time: until it is loaded it has none."""
        while words := os.pread(self._stderr, 1 << 16, self._stderr_read):
            self._stderr_read += len(words)
            with contextlib.suppress(OSError):
                os.write(_STDERR, words)

    def last_words(self) -> str:
        """The end of what it wrote while it was loading, on one line."""
        self.forward_stderr()
        size = os.fstat(self._stderr).st_size
        words = os.pread(self._stderr, _LAST_NBYTES, max(0, size - _LAST_NBYTES)).decode(errors="replace")
        found = words.rfind(_CRASH)
        return one_line(words[found:] if found >= 0 else words)

    # ---------------------------------------------------------------- end

    def join(self, timeout: float) -> bool:
        """Whether it has ended within so many seconds; then nothing of it is kept."""
        if self._closed:
            return True
        if not self._ended(timeout * 1000):
            return False
        with self._lock:
            self._close()
        return True

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.link.close()
            os.close(self._pidfd)
            os.close(self._stderr)

    def end(self) -> None:
        """Kill it and wait until it is gone."""
        self.kill("was stopped")
        self._process.wait()
        self.forward_stderr()
        self.join(0)

    def resident_bytes(self) -> int:
        """Its resident memory; 0 when it is gone."""
        if self._process.returncode is not None:
            return 0
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[1]) * _PAGE_NBYTES


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
