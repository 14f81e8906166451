"""A peer that writes the protocol by hand, after docs/protocol.md: it can also write it wrongly.

Nothing of the library's encoder is used, so this is a second opinion on what the server accepts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import zmq

from ..rpc.transport import AnyContext

PREFIX: Final = struct.Struct("<4sBBBBQQIIIIII")
MAGIC: Final = b"TWIR"
_INLINE_LIMIT: Final = 32_768
_ANSWER_MS: Final = 10_000
#: Ids of PINGs lie in a range of their own.
_PING_IDS: Final = 1 << 60

Tensor = tuple[str, str, Sequence[int], bytes]
Frames = list[bytes]


class Kind(IntEnum):
    """Kinds of messages."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    CANCEL = 4
    PING = 5
    PONG = 6
    CONTROL = 7
    CONTROL_REPLY = 8


class Answer(msgspec.Struct, frozen=True):
    """The prefix of a message from the server, as far as it matters, and the text of an ERROR."""

    kind: int
    status: int
    id: int
    count: int
    text: str


class NoAnswerError(RuntimeError):
    """The server did not answer a PING."""


def head(
    kind: int,
    request_id: int,
    *,
    count: int = 1,
    header: bytes = b"",
    rest: bytes = b"",
    timeout_us: int = 0,
    inline_limit: int = 0,
) -> bytes:
    """A head frame without extra; ``rest`` is what stands behind the header."""
    fields = (1, kind, 0, 0, request_id, timeout_us, count, len(header), 0, inline_limit, 0, 0)
    return PREFIX.pack(MAGIC, *fields) + header + rest


def request(
    model: str,
    request_id: int,
    tensors: Sequence[Tensor],
    *,
    inline_limit: int = _INLINE_LIMIT,
    timeout_us: int = 0,
) -> Frames:
    """A request of one row; tensors are ``(name, dtype, shape without the row axis, bytes)``."""
    described = [(name, dtype, list(shape)) for name, dtype, shape, _ in tensors]
    header = msgspec.msgpack.encode({"model": model, "inputs": described})
    rest = (1).to_bytes(4, "little")
    frames: Frames = []
    at = PREFIX.size + len(header) + len(rest)
    for _, _, _, payload in tensors:
        if len(payload) > inline_limit:
            frames.append(payload)
            continue
        gap = -at % 16
        rest += bytes(gap) + payload
        at += gap + len(payload)
    first = head(
        Kind.REQUEST, request_id, header=header, rest=rest, timeout_us=timeout_us, inline_limit=inline_limit
    )
    return [first, *frames]


def control(request_id: int, method: str) -> Frames:
    """A control call without parameters."""
    return [head(Kind.CONTROL, request_id, header=msgspec.msgpack.encode({"method": method}))]


def read_answer(frame: bytes) -> Answer:
    """What the server said."""
    _, _, kind, _, status, request_id, _, count, header_len, extra_len, *_ = PREFIX.unpack_from(frame)
    text = ""
    if kind == Kind.ERROR and extra_len:
        start = PREFIX.size + header_len
        body: dict[str, Any] = msgspec.msgpack.decode(frame[start : start + extra_len])
        text = str(body.get("message", ""))
    return Answer(kind, status, request_id, count, text)


class RawPeer:
    """A DEALER without a library around it; a context manager.

    Args:
        address: of the server.
        high_water_mark: messages that it takes in before the application reads them; 0: any number.
    """

    def __init__(self, address: str, *, high_water_mark: int = 0) -> None:
        self._address = address
        self._high_water_mark = high_water_mark
        self._socket: zmq.Socket[bytes] | None = None
        self._pings = _PING_IDS
        self._context: AnyContext = zmq.Context.instance()

    def __enter__(self) -> Self:
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, self._high_water_mark)
        socket.connect(self._address)
        self._socket = socket
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The connected socket."""
        if self._socket is None:
            raise RuntimeError("the peer is not connected")
        return self._socket

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message as it is."""
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            self.socket.send(frame, 0 if index == last else zmq.SNDMORE)

    def receive(self, timeout_ms: int = _ANSWER_MS) -> Answer | None:
        """The next answer; None if there is none in time."""
        if not self.socket.poll(timeout_ms):
            return None
        return read_answer(self.socket.recv_multipart()[0])

    def barrier(self) -> list[Answer]:
        """Wait until the server has read everything sent so far; gives the answers that came meanwhile.

        Raises:
            NoAnswerError: no PONG came.
        """
        self._pings += 1
        self.send([head(Kind.PING, self._pings)])
        answers: list[Answer] = []
        while (answer := self.receive()) is not None:
            if answer.kind == Kind.PONG and answer.id == self._pings:
                return answers
            answers.append(answer)
        raise NoAnswerError(f"{self._address} did not answer a PING within {_ANSWER_MS / 1e3:g} s")
