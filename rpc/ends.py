"""What a client sends and receives frames with: compiled where the pump is, else pyzmq's own methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import zmq

from .pump.choice import pump_kind
from .transport import readable
from .wire.message import Buffer

_NOBLOCK: Final = int(zmq.NOBLOCK)
#: Heads are handed out as bytes up to this size: slices of bytes are cheaper than slices of a memoryview, by
#: more than a small copy costs.
_COPIED_NBYTES: Final = 4096

#: Called with each message: its head frame, and the others. None of them can be written to: the results of
#: several calls share one message's memory.
Deliver = Callable[[bytes | memoryview, Sequence[memoryview]], None]


class Sender(Protocol):
    """Sends large frames from where they lie."""

    def send(self, frame: Buffer, flags: int) -> None:
        """Send one frame, at once or never; its memory must not change until it has been sent."""
        ...

    def settle(self) -> bool:
        """Let go of the memory of what has been sent; whether there is more, to be asked for again."""
        ...


class Receiver(Protocol):
    """Reads what has arrived."""

    def one(self, deliver: Deliver) -> bool:
        """Read one message if there is one; whether there was."""
        ...

    def all(self, deliver: Deliver) -> None:
        """Read until nothing is there."""
        ...


class PlainSender:
    """pyzmq's own way, which lets go by itself, in a thread."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def send(self, frame: Buffer, flags: int) -> None:
        """See :class:`Sender`."""
        self._socket.send(frame, flags | _NOBLOCK, copy=False, track=False)

    def settle(self) -> bool:
        """See :class:`Sender`."""
        return False


class PlainReceiver:
    """See :class:`Receiver`."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._recv: Any = socket.recv

    def one(self, deliver: Deliver) -> bool:
        """See :class:`Receiver`."""
        if not readable(self._socket):
            return False
        self._deliver(deliver, self._recv(_NOBLOCK, False, False))
        return True

    def all(self, deliver: Deliver) -> None:
        """See :class:`Receiver`."""
        recv = self._recv
        # An exception for "nothing there" costs as much as three looks: look while few are expected.
        for _ in range(3):
            if not self.one(deliver):
                return
        while True:
            try:
                frame = recv(_NOBLOCK, False, False)
            except zmq.ZMQError as error:
                if error.errno != zmq.EAGAIN:
                    raise
                return
            self._deliver(deliver, frame)

    def _deliver(self, deliver: Deliver, frame: Any) -> None:
        frames: Sequence[memoryview] = ()
        if frame.more:
            frames = []
            more = True
            while more:
                part = self._recv(_NOBLOCK, False, False)
                more = part.more
                frames.append(part.buffer.toreadonly())
        deliver(frame.bytes if len(frame) <= _COPIED_NBYTES else frame.buffer.toreadonly(), frames)


def make_sender(socket: zmq.Socket[bytes]) -> Sender:
    """What sends large frames through a socket."""
    if pump_kind() == "python":
        return PlainSender(socket)
    from .pump.compiled import Sender as CompiledSender

    return CompiledSender(socket)


def make_receiver(socket: zmq.Socket[bytes]) -> Receiver:
    """What reads from a socket whose messages start with a head frame."""
    if pump_kind() == "python":
        return PlainReceiver(socket)
    from .pump.compiled import Receiver as CompiledReceiver

    return CompiledReceiver(socket)
