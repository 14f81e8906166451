"""Null systems: clients that do as little as a client can. What they reach is the load generator's ceiling.

Requests and answers are empty, whatever the case. The server is the bare one of :mod:`.echo`, which answers
what it does not know with nothing, at once.

- ``null``: all calls of one step of the event loop travel as one message, and one answer completes them all.
  No asyncio client can do less per call and still use a socket: a future, and a share of a wake-up.
- ``null threads``: a DEALER for each thread, which sends and waits.
- ``null in-process``: no socket; a call is answered with the next step of the loop. The loop and the recorder
  alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import zmq

from .echo import EchoSystem
from .echo import open_client as open_echo
from .models import OUTPUT, Array, Case
from .systems import CALL_TIMEOUT, Answer, AsyncCall, SyncCall

_ANSWER: Final[Answer] = {OUTPUT: b""}
_Future = asyncio.Future[Answer]


def _code_of(error: Exception) -> str:
    return "DEADLINE_EXCEEDED" if isinstance(error, TimeoutError | zmq.Again) else type(error).__name__


class NullSystem:
    """One DEALER in an event loop. Timeouts are not kept: the server answers, or the process is stopped."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Future] = []
        self._sent = deque[list[_Future]]()

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        del case, inputs, timeout
        new = self._loop.create_future

        def call() -> _Future:
            if not self._waiting:
                self._loop.call_soon(self._send)
            future: _Future = new()
            self._waiting.append(future)
            return future

        return call

    def code_of(self, error: Exception) -> str:
        return _code_of(error)

    def _send(self) -> None:
        self._socket.send(b"")
        self._sent.append(self._waiting)
        self._waiting = []
        # A send may take the edge that tells of answers.
        self.receive()

    def receive(self) -> None:
        """Complete what was answered."""
        while True:
            try:
                self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            for future in self._sent.popleft():
                if not future.done():
                    future.set_result(_ANSWER)


@asynccontextmanager
async def open_async(address: str) -> AsyncGenerator[NullSystem]:
    """Connect to ``tcp://host:port``."""
    loop = asyncio.get_running_loop()
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        system = NullSystem(socket)
        descriptor = int(socket.FD)
        loop.add_reader(descriptor, system.receive)
        try:
            yield system
        finally:
            loop.remove_reader(descriptor)


class NullLoop:
    """No server at all."""

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        del case, inputs, timeout

        async def call() -> Answer:
            await asyncio.sleep(0)
            return _ANSWER

        return call

    def code_of(self, error: Exception) -> str:
        return _code_of(error)


@asynccontextmanager
async def open_loop(address: str) -> AsyncGenerator[NullLoop]:
    """The address is not used."""
    del address
    yield NullLoop()


class NullThreads:
    """A DEALER for each call in flight."""

    def __init__(self, echo: EchoSystem) -> None:
        self._echo = echo

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        del case, inputs
        return self._echo.sending(b"", timeout)

    def code_of(self, error: Exception) -> str:
        return self._echo.code_of(error)


@contextmanager
def open_threads(address: str) -> Generator[NullThreads]:
    """Connect to ``tcp://host:port``."""
    with open_echo(address) as echo:
        yield NullThreads(echo)
