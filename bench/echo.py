"""The floor for a blocking call: a bare ROUTER that answers, and a bare DEALER that sends and waits.

No protocol, no model: one body frame each way, of the sizes that the case's request and answer have.
"""

from __future__ import annotations

import signal
import sys
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
    """A connected DEALER."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        self._socket.rcvtimeo = int(timeout * 1000)
        send, receive = self._socket.send, self._socket.recv
        body, copy = inputs.tobytes(), case.input_bytes < _ZERO_COPY_BYTES

        def call() -> Answer:
            send(body, copy=copy)
            return {OUTPUT: receive()}

        return call

    def code_of(self, error: Exception) -> str:
        return "DEADLINE_EXCEEDED" if isinstance(error, zmq.Again) else type(error).__name__


@contextmanager
def open_client(address: str) -> Generator[EchoSystem]:
    """Connect to ``tcp://host:port``."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        yield EchoSystem(socket)


if __name__ == "__main__":
    serve()
