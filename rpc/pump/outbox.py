"""Sending to peers that may be slow or gone, with a bound on what is kept for each.

libzmq bounds a peer's pipe in messages; a stuck peer that asks for large tensors could hold gigabytes that
way. Here the bound is in bytes: frames that libzmq has not let go of yet are counted, and what does not
fit into the pipe waits in an overflow queue of bounded size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import zmq

from ..errors import StatusCode
from ..transport import plain_send
from ..wire.message import Buffer, answerable_ids, build_error
from ..wire.prefix import Kind
from .interface import Counters

#: pyzmq copies shorter frames into the message at once, so there is nothing to keep track of.
_TRACKED_NBYTES: Final = 65_536
#: Errors kept per peer in the place of replies that were too much.
_MAX_GIVEN_UP: Final = 1024
_KIND_AT: Final = 5
_SEND: Final = int(zmq.NOBLOCK)
_SEND_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)


class _Held:
    """Bytes that wait for one peer."""

    __slots__ = ("given_up", "in_flight", "nbytes", "waiting")

    def __init__(self) -> None:
        self.given_up = 0
        self.nbytes = 0
        self.in_flight: deque[tuple[zmq.MessageTracker, int]] = deque()
        self.waiting: deque[tuple[Sequence[Buffer], int]] = deque()


class Outbox:
    """The sending half of a ROUTER with ``ROUTER_MANDATORY``; used by the thread that owns the socket."""

    def __init__(
        self, socket: zmq.Socket[bytes], counters: Counters, max_peer_nbytes: int = 64 << 20
    ) -> None:
        self._socket = socket
        self._send = plain_send(socket)
        self._counters = counters
        self._max_peer_nbytes = max_peer_nbytes
        self._held: dict[bytes, _Held] = {}
        #: Of peers that differ from the others.
        self._limits: dict[bytes, int] = {}

    def allow(self, peer: bytes, max_nbytes: int | None) -> None:
        """See :meth:`~.interface.Pump.allow`."""
        if max_nbytes is None:
            self._limits.pop(peer, None)
        else:
            self._limits[peer] = max_nbytes

    def _limit(self, peer: bytes) -> int:
        return self._limits.get(peer, self._max_peer_nbytes)

    def send(self, peer: bytes, frame: Buffer) -> None:
        """Send one small frame."""
        if peer in self._held:
            self.send_frames(peer, (frame,))
            return
        try:
            self._send(peer, _SEND_MORE)
            self._send(frame, _SEND)
        except zmq.ZMQError as error:
            self._refused(peer, (frame,), len(frame), error)

    def send_frames(self, peer: bytes, frames: Sequence[Buffer]) -> None:
        """Send a message of any size; large frames without a copy."""
        held = self._held.get(peer)
        nbytes = sum(map(len, frames))
        if held is not None:
            self._release(held)
            if held.waiting:
                self._queue(peer, held, frames, nbytes)
                return
            if held.in_flight and held.nbytes + nbytes > self._limit(peer):
                self._give_up(peer, held, frames)
                return
        try:
            self._push(peer, frames, nbytes)
        except zmq.ZMQError as error:
            self._refused(peer, frames, nbytes, error)

    def _push(self, peer: bytes, frames: Sequence[Buffer], nbytes: int) -> None:
        self._send(peer, _SEND_MORE)
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            flags = _SEND if index == last else _SEND_MORE
            if len(frame) < _TRACKED_NBYTES:
                self._send(frame, flags)
            else:
                tracker: Any = self._send(frame, flags, copy=False, track=True)
                held = self._held.setdefault(peer, _Held())
                held.in_flight.append((tracker, len(frame)))
                held.nbytes += len(frame)

    def _refused(self, peer: bytes, frames: Sequence[Buffer], nbytes: int, error: zmq.ZMQError) -> None:
        if error.errno == zmq.EAGAIN:
            self._queue(peer, self._held.setdefault(peer, _Held()), frames, nbytes)
        elif error.errno == zmq.EHOSTUNREACH:
            self._counters.peer_gone += 1
            self._held.pop(peer, None)
        else:
            raise error

    def _queue(self, peer: bytes, held: _Held, frames: Sequence[Buffer], nbytes: int) -> None:
        if held.nbytes and held.nbytes + nbytes > self._limit(peer):
            self._give_up(peer, held, frames)
            return
        held.waiting.append((frames, nbytes))
        held.nbytes += nbytes

    def _give_up(self, peer: bytes, held: _Held, frames: Sequence[Buffer]) -> None:
        """Keep a short error in the place of what is too much: the caller is told, and told why."""
        self._counters.peer_stuck += 1
        head = frames[0]
        ids = answerable_ids(head)
        if ids is None or held.given_up >= _MAX_GIVEN_UP:
            return
        held.given_up += 1
        if head[_KIND_AT] != Kind.ERROR:
            message = f"more than {self._limit(peer)} bytes of replies wait for this client to read them"
            head = build_error(*ids, StatusCode.RESOURCE_EXHAUSTED, message)
        held.waiting.append(((head,), 0))

    @staticmethod
    def _release(held: _Held) -> None:
        """Forget the frames that libzmq has sent."""
        in_flight = held.in_flight
        while in_flight and in_flight[0][0].done:
            held.nbytes -= in_flight.popleft()[1]

    def flush(self) -> bool:
        """Retry what waits. Returns whether some of it still waits."""
        waiting = False
        for peer, held in list(self._held.items()):
            self._release(held)
            while held.waiting:
                frames, nbytes = held.waiting.popleft()
                held.nbytes -= nbytes
                try:
                    self._push(peer, frames, nbytes)
                except zmq.ZMQError as error:
                    if error.errno == zmq.EAGAIN:
                        held.waiting.appendleft((frames, nbytes))
                        held.nbytes += nbytes
                        waiting = True
                        break
                    self._refused(peer, frames, nbytes, error)
                    break
            if not held.waiting:
                held.given_up = 0
                if not held.in_flight:
                    self._held.pop(peer, None)
        return waiting

    @property
    def holding(self) -> bool:
        """Whether anything is kept for a slow peer."""
        return bool(self._held)
