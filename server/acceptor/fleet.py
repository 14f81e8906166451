"""The server's side of its acceptors: starts them, starts those anew that die, waits for their end."""

from __future__ import annotations

import logging
import os
import secrets
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ..config import ServingConfig
from ..processes.process import describe_status
from ..processes.spawner import Order, Spawner
from .port import reserve
from .process import LISTENING, Plan
from .tally import Tally, new_memory

_log = logging.getLogger("tensorwire.server")

_MODULE: Final = "tensorwire.server.acceptor.process"
_STDERR: Final = 2
_SHORTEST: Final = 0.1
_LONGEST: Final = 10.0
#: Who has lived for so many seconds does not count as a failure to start.
_STEADY: Final = 10.0
#: Seconds between the end of a control socket and that of its process, which is killed then.
_GOING: Final = 0.2


class Hub(Protocol):
    """What the fleet needs of the server's own front end."""

    endpoint: str
    #: Where acceptors connect.
    inner_endpoint: str

    def allow(self, peer: bytes, max_nbytes: int | None) -> None:
        """Keep so many bytes of replies for a peer; None: as for all."""
        ...


class Backoff:
    """How long to wait before the next start: longer each time, until one has lived for a while."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, lived: float) -> float:
        """Seconds to wait after a process that lived for so many."""
        if lived >= _STEADY:
            self._failures = 0
        seconds = min(_LONGEST, _SHORTEST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 32)
        return seconds


class _Member(NamedTuple):
    """A process that runs."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    identity: bytes
    tally: Tally
    started: float


class _Seat:
    """The place of one acceptor, and who has it at the moment."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.member: _Member | None = None
        self.listening = False
        self.due = 0.0
        self.lost = 0
        self.backoff = Backoff()


class Fleet:
    """The acceptors of one server. ``start()`` and ``close()`` are called once each."""

    def __init__(
        self, config: ServingConfig, spawner: Spawner, hub: Hub, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._spawner = spawner
        self._hub = hub
        self._clock = clock
        # The server is the first front end.
        self._seats = [_Seat(number) for number in range(2, config.front_ends + 1)]
        self._listening = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._wake_fd = -1
        self._poll = select.poll()

    # ---------------------------------------------------------------- any thread

    def start(self) -> None:
        """Start the processes; returns at once. The front end listens."""
        if not self._seats:
            self._listening.set()
            return
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake_fd, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="tensorwire-front-ends", daemon=True)
        self._thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all have listened."""
        return self._listening.wait(timeout)

    @property
    def ready(self) -> bool:
        """All have listened. It stays so: while one is missing the others serve."""
        return self._listening.is_set()

    def report(self) -> list[dict[str, Any]]:
        """What there is to know about each, for introspection."""
        return [
            {
                "process": member.process.pid,
                "listening": seat.listening,
                "lost": seat.lost,
                "pump": msgspec.structs.asdict(member.tally.read()),
            }
            for seat in self._seats
            if (member := seat.member) is not None
        ]

    def stop(self) -> None:
        """Start no more of them. They end by themselves when the front end closes its socket."""
        if self._thread is not None:
            self._stopping = True
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
            self._thread = None
            os.close(self._wake_fd)

    def close(self, timeout: float) -> bool:
        """Wait until they have sent what they have; whether that took no longer than so many seconds. Those
        that take longer are killed."""
        self.stop()
        self._attend(0)
        until = self._clock() + timeout
        in_time = True
        for seat in self._seats:  # each of them, also behind one that took too long
            # One that does not listen yet has nothing to send.
            ended = self._end(seat, max(0.0, until - self._clock()) if seat.listening else 0.0)
            in_time = in_time and (ended or not seat.listening)
            seat.listening = False
        return in_time

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping:
            now = self._clock()
            for seat in self._seats:
                if seat.member is None and seat.due <= now:
                    self._fill(seat, now)
            due = [seat.due - now for seat in self._seats if seat.member is None]
            self._attend(max(0.0, min(due)) * 1e3 + 1 if due else None)

    def _attend(self, timeout_ms: float | None) -> None:
        for fd, _ in self._poll.poll(timeout_ms):
            for seat in self._seats:
                if seat.member is not None and seat.member.control.fileno() == fd:
                    self._hear(seat, seat.member)

    def _fill(self, seat: _Seat, now: float) -> None:
        try:
            seat.member = self._spawn(seat.number, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            seat.due = now + seat.backoff.after(0.0)
            _log.error("front end %d cannot be started: %s", seat.number, error)
            return
        self._poll.register(seat.member.control, select.POLLIN)

    def _spawn(self, number: int, now: float) -> _Member:
        config, hub = self._config, self._hub
        identity = f"front-end-{number}-{secrets.token_hex(8)}".encode()
        # All clients of an acceptor are one peer here; what each may leave unread is its own business.
        hub.allow(identity, max(config.max_peer_bytes, config.max_queued_bytes))
        level = logging.getLevelName(logging.getLogger("tensorwire").getEffectiveLevel())
        plan = Plan(
            hub.endpoint, hub.inner_endpoint, identity, config.max_frame_bytes, config.max_peer_bytes, level
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = new_memory()
        try:
            with theirs, reserve(hub.endpoint) as listener:
                ours.send(msgspec.msgpack.encode(plan))
                keep = [theirs.fileno(), listener.fileno(), memory]
                arguments = [f"front-end-{number}", str(os.getpid()), *map(str, keep)]
                process = self._spawner.spawn(Order(arguments, keep, _STDERR, module=_MODULE))
            return _Member(process, ours, identity, Tally(memory), now)
        except BaseException:
            ours.close()
            hub.allow(identity, None)
            raise
        finally:
            os.close(memory)

    def _hear(self, seat: _Seat, member: _Member) -> None:
        if member.control.recv(len(LISTENING)) == LISTENING:
            seat.listening = True
            if seat.lost:
                _log.info("front end %d listens, pid %d", seat.number, member.process.pid)
            if all(each.listening for each in self._seats):
                self._listening.set()
            return
        self._lose(seat, member)

    def _lose(self, seat: _Seat, member: _Member) -> None:
        """Its control socket is closed, so it is gone, or all but."""
        self._poll.unregister(member.control)
        self._end(seat, _GOING)
        seat.listening = False
        now = self._clock()
        seconds = seat.backoff.after(now - member.started)
        seat.lost += 1
        seat.due = now + seconds
        _log.warning(
            "front end %d (pid %d) %s; its clients connect to the others, and another one is started in %g s",
            seat.number,
            member.process.pid,
            describe_status(member.process.returncode),
            seconds,
        )

    def _end(self, seat: _Seat, timeout: float) -> bool:
        """Whether it ends by itself; nothing of it is kept in any case."""
        member, seat.member = seat.member, None
        if member is None:
            return True
        ended = True
        try:
            member.process.wait(timeout)
        except subprocess.TimeoutExpired:
            ended = False
            member.process.kill()
            member.process.wait()
        member.control.close()
        self._hub.allow(member.identity, None)
        return ended
