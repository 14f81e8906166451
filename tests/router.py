"""The server's end of a connection in the hands of a test: it answers what the test says, when it says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import zmq
from tensorwire.rpc.wire.extra import ControlCall, decode_control
from tensorwire.rpc.wire.header import Layout, ReplyHeader, Signature, TensorHeader, encode_header
from tensorwire.rpc.wire.message import build, build_error, payload_of, read_prefix, read_rows, read_tensors
from tensorwire.rpc.wire.prefix import PREFIX_SIZE, Kind, Prefix

Array = np.ndarray[Any, Any]


class Received:
    """One message of a client."""

    def __init__(self, peer: bytes, head: bytes, frames: Sequence[bytes]) -> None:
        self.peer = peer
        self.prefix: Prefix = read_prefix(head)
        self.kind = Kind(self.prefix.kind)
        self.first_id = self.prefix.id
        self.count = self.prefix.count
        self.inputs: dict[str, Array] = {}
        self.rows: list[int] | None = None
        self.call: ControlCall | None = None
        end = PREFIX_SIZE + self.prefix.header_len
        if self.kind == Kind.REQUEST:
            self.signature = Signature(head[PREFIX_SIZE:end])
            layout = self.signature.layout
            self.rows, total, start = read_rows(head, self.prefix, layout)
            tensors = read_tensors(head, frames, layout, total, start, self.prefix.inline_limit)
            self.inputs = dict(zip(layout.names, tensors, strict=True))
        elif self.kind == Kind.CONTROL:
            self.call = decode_control(head[PREFIX_SIZE:end])


class Router:
    """A bound ROUTER."""

    def __init__(self, port: int = 0) -> None:
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        until = time.monotonic() + 5
        while True:
            try:
                self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
                break
            except zmq.ZMQError as error:
                # The port of a socket that was closed a moment ago.
                if error.errno != zmq.EADDRINUSE or time.monotonic() > until:
                    self._socket.close()
                    raise
                time.sleep(0.005)
        raw: Any = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        self.endpoint: str = raw.rstrip(b"\0").decode()
        self.port = int(self.endpoint.rsplit(":", 1)[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self, linger_ms: int = 0) -> None:
        self._socket.close(linger=linger_ms)

    def receive(self, seconds: float = 5.0) -> Received:
        """The next message; fails the test if none comes."""
        assert self._socket.poll(int(seconds * 1e3)), "no message came"
        peer, head, *frames = self._socket.recv_multipart()
        return Received(peer, head, frames)

    def silent(self, seconds: float = 0.0) -> bool:
        """Whether no message has come."""
        return not self._socket.poll(int(seconds * 1e3))

    def answer(self, message: Received, output: Array | None = None, *, lo: int = 0, hi: int = -1) -> None:
        """Answer a request, or the part ``lo`` to ``hi`` of it; default: ``y`` is the first input."""
        y = next(iter(message.inputs.values())) if output is None else output
        hi = message.count if hi < 0 else hi
        rows = message.rows
        shared = rows is not None
        if rows is not None:
            y = y[sum(rows[:lo]) : sum(rows[:hi])]
        tensors = (TensorHeader("y", y.dtype.name, y.shape[1:] if shared else y.shape),)
        frames = build(
            Kind.REPLY,
            first_id=message.first_id + lo,
            count=hi - lo,
            layout=Layout(tensors, shared),
            header=encode_header(ReplyHeader("m", 1, tensors, shared)),
            rows=None if rows is None else rows[lo:hi],
            payloads=[payload_of(y)],
        )
        self.send(message.peer, *frames)

    def fail(self, message: Received, code: int, text: str = "") -> None:
        """Answer with an error."""
        self.send(message.peer, build_error(message.first_id, message.count, code, text))

    def send(self, peer: bytes, *frames: Any) -> None:
        """Send anything."""
        self._socket.send_multipart([peer, *frames])
