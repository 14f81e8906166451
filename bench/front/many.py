"""Many connections from one process: ``python -m tensorwire.bench.front.many SPEC``.

SPEC is a :class:`Crowd` as JSON. Every :class:`Spell` that comes as a line on stdin is answered with an
:class:`Answered` when all its requests have been; it stops when stdin closes.

Plain TCP sockets that speak just enough ZMTP, one ``epoll`` and no library: a socket of pyzmq for each of
hundreds of connections would cost this side far more than the server. A request is written with one call of
``send`` and its answer read with one of ``recv``, however many are in flight on the connection, so that
this side pays the same for each. Every answer is compared, byte for byte, with the one that its request must
have.
"""

from __future__ import annotations

import gc
import resource
import select
import socket
import struct
import sys
import time
from typing import Final

import msgspec
import numpy as np

from .. import zmtp
from ..child import Ready, say
from ..models import CASE_OF_NAME, INPUT, Case
from ..raw import PREFIX, Kind, head

CASE: Final = "64 B"
_COMMAND: Final = 0x04
_LONG: Final = 0x02
#: Requests with numbers of their own; small whole numbers, so that every batch gives the very same bytes.
_INPUTS: Final = 64
_WAIT: Final = 10.0
_LARGEST: Final = 1 << 16
#: Descriptors besides the connections.
_OTHER_FDS: Final = 64


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to call.

    ``groups``: by name, how many connections, and how many requests in flight over all. ``echo``: requests
    come back as they are; otherwise they are answered by the model.
    """

    address: str
    groups: dict[str, tuple[int, int]]
    echo: bool = False


class Spell(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one group; times in seconds."""

    group: str
    warmup: float
    seconds: float


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it.

    ``rate``: answers a second, without those of the warm-up. ``answered``: right answers, all of them.
    ``cpu``: seconds of this process.
    """

    rate: float
    answered: int
    wrong: int
    cpu: float


def allow_descriptors(count: int) -> None:
    """Raise the soft limit for this process and its children, as far as the hard one lets it.

    Raises:
        OSError: the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise OSError(f"{count} descriptors are needed; the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class Connection:
    """One TCP connection after its handshake, and what is in flight on it."""

    __slots__ = ("_rest", "flying", "socket")

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        self.socket = connected
        #: Ids of requests that are not answered yet.
        self.flying: set[int] = set()
        self._rest = b""

    def take(self, data: bytes) -> list[bytes]:
        """The messages in what has come so far, wherever it was cut; what else is said is answered."""
        data = self._rest + data
        found: list[bytes] = []
        at = 0
        while True:
            start = at + (9 if len(data) > at and data[at] & _LONG else 2)
            if len(data) < start:
                break
            size = int.from_bytes(data[at + 1 : start], "big")
            if len(data) < start + size:
                break
            flags, body, at = data[at], data[start : start + size], start + size
            if not flags & _COMMAND:
                found.append(body)
            elif body.startswith(b"\x04PING"):
                self.socket.send(pong(body))
        self._rest = data[at:]
        return found

    @property
    def between(self) -> bool:
        """Whether no part of a message has come."""
        return not self._rest


def pong(ping: bytes) -> bytes:
    """The answer to a heartbeat: its context, without its time to live."""
    body = b"\x04PONG" + ping[7:]
    return struct.pack("BB", _COMMAND, len(body)) + body


class Requests:
    """Requests as they travel, and the tensors that their answers must end with."""

    def __init__(self, case: Case, *, echo: bool = False) -> None:
        self._kind = Kind.REQUEST if echo else Kind.REPLY
        name, shape = INPUT, list(case.shape[1:])
        header = msgspec.msgpack.encode({"model": case.model, "inputs": [(name, "float32", shape)]})
        self.wire: list[tuple[bytes, bytes]] = []
        self.answers: list[bytes] = []
        for number in range(_INPUTS):
            x = ((np.arange(np.prod(case.shape)) * 7 + number) % 61).astype(np.float32).reshape(case.shape)
            self.answers.append((x if echo else case.reference(x)).tobytes())
            rest = (1).to_bytes(4, "little")
            rest += bytes(-(PREFIX.size + len(header) + len(rest)) % 16) + x.tobytes()
            whole = zmtp.encode([head(Kind.REQUEST, 0, header=header, rest=rest, inline_limit=32_768)])
            # Behind the frame's 9 bytes: 8 of the prefix, 8 of the id.
            self.wire.append((whole[:17], whole[25:]))

    def make(self, request_id: int) -> bytes:
        """One message of one request."""
        before, behind = self.wire[request_id % _INPUTS]
        return before + request_id.to_bytes(8, "little") + behind

    def is_right(self, request_id: int, body: bytes) -> bool:
        """Whether this is the answer."""
        return body[5] == self._kind and body.endswith(self.answers[request_id % _INPUTS])


class Group:
    """Connections that are used together."""

    def __init__(self, address: str, connections: int, flying: int, requests: Requests) -> None:
        self._requests = requests
        self._connections = [Connection(zmtp.connect(address)) for _ in range(connections)]
        self._of = {connection.socket.fileno(): connection for connection in self._connections}
        self._flying = flying
        self._poll = select.epoll()
        for fd in self._of:
            self._poll.register(fd, select.EPOLLIN)
        self._next = 1
        self._reply_nbytes = 0
        self.answered = 0
        self.wrong = 0

    def close(self) -> None:
        """Close every connection."""
        self._poll.close()
        for connection in self._connections:
            connection.socket.close()

    def spend(self, spell: Spell) -> Answered:
        """Keep as many requests in flight as the group has, for a while; all are answered afterwards.

        Raises:
            TimeoutError: the server left some without an answer.
        """
        gc.collect()
        gc.freeze()
        self.answered = self.wrong = 0
        cpu = time.process_time()
        for number in range(self._flying):
            self._send(self._connections[number % len(self._connections)])
        begun = self._exchange(time.monotonic() + spell.warmup)
        before = self.answered
        ended = self._exchange(begun + spell.seconds)
        rate = (self.answered - before) / (ended - begun)
        self._collect()
        cpu = time.process_time() - cpu
        return Answered(rate=rate, answered=self.answered, wrong=self.wrong, cpu=cpu)

    def _send(self, connection: Connection) -> None:
        request_id = self._next
        self._next += 1
        connection.flying.add(request_id)
        # Never more in flight than a socket's buffer holds.
        connection.socket.send(self._requests.make(request_id))

    def _exchange(self, until: float) -> float:
        """Send for each answer the next request; when it ended."""
        poll, of = self._poll.poll, self._of
        while (now := time.monotonic()) < until:
            for fd, _ in poll(until - now):
                connection = of[fd]
                for body in self._read(connection):
                    self._account(connection, body)
                    self._send(connection)
        return now

    def _collect(self) -> None:
        left = [connection for connection in self._connections if connection.flying]
        end = time.monotonic() + _WAIT
        while left and time.monotonic() < end:
            for fd, _ in self._poll.poll(0.1):
                for body in self._read(self._of[fd]):
                    self._account(self._of[fd], body)
            left = [connection for connection in left if connection.flying]
        if left:
            raise TimeoutError(f"{len(left)} connections wait for answers since {_WAIT:g} s")

    def _read(self, connection: Connection) -> list[bytes]:
        """The next answer, as a rule in one piece and by itself."""
        size = self._reply_nbytes
        data = connection.socket.recv(size or _LARGEST)
        if len(data) == size and connection.between and not data[0] and data[1] == size - 2:
            return [data[2:]]
        if not data:
            raise ConnectionError("the server closed a connection")
        found = connection.take(data)
        if found and not size and len(found[0]) < 256:
            self._reply_nbytes = len(found[0]) + 2
        return found

    def _account(self, connection: Connection, body: bytes) -> None:
        request_id = int.from_bytes(body[8:16], "little")
        if request_id in connection.flying and self._requests.is_right(request_id, body):
            self.answered += 1
        else:
            self.wrong += 1
        connection.flying.discard(request_id)


def _main(crowd: Crowd) -> None:
    allow_descriptors(sum(connections for connections, _ in crowd.groups.values()) + _OTHER_FDS)
    requests = Requests(CASE_OF_NAME[CASE], echo=crowd.echo)
    groups = {name: Group(crowd.address, *sizes, requests) for name, sizes in crowd.groups.items()}
    say(Ready())
    for line in sys.stdin.buffer:
        spell = msgspec.json.decode(line, type=Spell)
        say(groups[spell.group].spend(spell))
    for group in groups.values():
        group.close()


if __name__ == "__main__":
    _main(msgspec.json.decode(sys.argv[1], type=Crowd))
