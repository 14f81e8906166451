"""The floor for a blocking call: a bare ROUTER that answers, and a bare DEALER that sends and waits.

No protocol, no model: one body frame each way, of the sizes that the case's request and answer have.
"""

from __future__ import annotations

import signal
import sys
from collections import defaultdict, deque
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import zmq

from .child import Ready, say, when_stdin_closes
from .models import CASES, OUTPUT, Array, Case
from .systems import CALL_TIMEOUT, Answer, SyncCall

#: From this size on, pyzmq is faster when it hands out its own buffers instead of copying.
_ZERO_COPY_BYTES: Final = 65536


def serve() -> None:
    """Answer on an ephemeral loopback port until stdin closes or SIGTERM."""
    answers = {case.input_bytes: bytes(case.output_bytes) for case in CASES}
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    signal.signal(signal.SIGTERM, _exit)
    # Terminating the context is the one thing that another thread may do to end a blocking recv().
    when_stdin_closes(context.term)
    say(Ready(f"tcp://127.0.0.1:{port}"))
    try:
        _answer(socket, answers)
    except zmq.ContextTerminated:
        socket.close()


def _answer(socket: zmq.Socket[bytes], answers: dict[int, bytes]) -> None:
    receive, send, more = socket.recv, socket.send, zmq.SNDMORE
    copy = True
    while True:
        peer = receive()
        body = receive(copy=copy)
        size = len(body)
        send(peer, more)
        send(answers.get(size, b""))
        # The next message has the size of the last one, so this one decides how that one is received.
        copy = size < _ZERO_COPY_BYTES


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


class EchoSystem:
    """A connected DEALER for each call in flight."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._context = context
        self._address = address
        #: Connected, by timeout. Kept for the next callers: a context has a thousand sockets and no more.
        self._free = defaultdict[float, deque[zmq.Socket[bytes]]](deque)

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        return self.sending(inputs.tobytes(), timeout, copy=case.input_bytes < _ZERO_COPY_BYTES)

    def sending(self, body: bytes, timeout: float, *, copy: bool = True) -> SyncCall:
        """A call with that body."""
        free = self._free[timeout]

        def call() -> Answer:
            try:
                socket = free.pop()
            except IndexError:
                socket = self._connect(timeout)
            socket.send(body, copy=copy)
            try:
                answer = socket.recv()
            except zmq.Again:  # what comes late must not be taken for the next answer
                socket.close()
                raise
            free.append(socket)
            return {OUTPUT: answer}

        return call

    def _connect(self, timeout: float) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.rcvtimeo = int(timeout * 1000)
        socket.connect(self._address)
        return socket

    def code_of(self, error: Exception) -> str:
        return "DEADLINE_EXCEEDED" if isinstance(error, zmq.Again) else type(error).__name__


@contextmanager
def open_client(address: str) -> Generator[EchoSystem]:
    """Connect to ``tcp://host:port``."""
    context = zmq.Context()
    try:
        yield EchoSystem(context, address)
    finally:
        context.destroy(linger=0)


if __name__ == "__main__":
    serve()
