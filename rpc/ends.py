"""What a client sends and receives frames with: compiled where the pump is, else pyzmq's own methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy.typing as npt
import zmq

from .pump.choice import pump_kind
from .transport import readable
from .wire.header import Interner, ReplySignature
from .wire.message import Buffer

_NOBLOCK: Final = int(zmq.NOBLOCK)
#: Heads are handed out as bytes up to this size: slices of bytes are cheaper than slices of a memoryview, by
#: more than a small copy costs.
_COPIED_NBYTES: Final = 4096

#: Called with each message: its head frame, and the others. None of them can be written to: the results of
#: several calls share one message's memory.
Deliver = Callable[[bytes | memoryview, Sequence[memoryview]], None]
#: The same two, as a value.
Message = tuple[bytes | memoryview, Sequence[memoryview]]


class Sender(Protocol):
    """Sends large frames from where they lie."""

    def send(self, frame: Buffer, flags: int) -> None:
        """Send one frame, at once or never; its memory must not change until it has been sent."""
        ...

    def settle(self) -> bool:
        """Let go of the memory of what has been sent; whether there is more, to be asked for again."""
        ...


class Waiting(Protocol):
    """Calls that wait for their answers, by message.

    Attributes:
        envelopes: number of a message -> an object with ``calls`` (a list: who waits for each of its
            requests, or None), and ``open``, how many of them are not None.
    """

    envelopes: dict[int, Any]

    def take(self, envelope: Any, start: int, count: int) -> list[Any]:
        """Take out some calls of an envelope, which are answered now."""
        ...


class Poster(Protocol):
    """Writes and sends requests of one tensor each, in one step."""

    def post(self, number: int, tail: bytes, nbytes: int, tensors: Sequence[npt.NDArray[Any]]) -> bool:
        """Send requests in one message, at once.

        Args:
            number: of the message: its first id is this above 16 zero bits.
            tail: in a message of one such request, what follows the id in the head frame, up to the tensor.
            nbytes: of each tensor.
            tensors: one for each request. A single one that is larger than ``INLINE_LIMIT`` is sent from
                where it lies, and kept until it is sent; others are copied.

        Returns:
            False: nothing was sent, as a tensor is not in one piece of so many bytes.

        Raises:
            zmq.ZMQError: the socket is closed, or its context is terminated.
        """
        ...


class Receiver(Protocol):
    """Reads what has arrived."""

    def one(self, deliver: Deliver) -> bool:
        """Read one message if there is one; whether there was."""
        ...

    def all(self, deliver: Deliver) -> None:
        """Read until nothing is there."""
        ...


class Exchange(Protocol):
    """Sends one request and waits for its reply, without the interpreter lock while it waits.

    Used by one thread at a time, which nobody else may send or read beside; only :meth:`disturb` and
    :meth:`handles_signal` may be called by others, at any time.

    Attributes:
        deadline: until when the last call waits, on the clock of ``time.monotonic``; infinity: for ever.
    """

    @property
    def deadline(self) -> float: ...

    def call(
        self, number: int, tail: bytes, tensor: npt.NDArray[Any], timeout: float | None
    ) -> dict[str, npt.NDArray[Any]] | Message | None:
        """Send a request of one tensor, and wait.

        Args:
            number: of the message: its id is this above 16 zero bits.
            tail: what follows the id in the head frame, up to the tensor.
            tensor: what stands in the head frame or, if it is larger than ``INLINE_LIMIT``, in one of its
                own. It is kept until it is sent.
            timeout: seconds; None: no limit.

        Returns:
            The outputs, as read-only views of the message, if the first one that comes is the reply, in one
            frame and with a known header, whose tensors have rows and elements of fixed size. Any other
            message is returned as it is. None: the deadline has passed, another thread calls, or nothing was
            sent as the tensor is not in one piece. :meth:`leave` tells whether the answer is still to come.

        Raises:
            zmq.ZMQError: the socket is closed, or its context is terminated.
            BaseException: what a signal handler raises.
        """
        ...

    def leave(self) -> bool:
        """Whether the last call was sent and not answered; it is not this object's any more."""
        ...

    def disturb(self) -> None:
        """End the wait: that of the call that is under way, or else of the next one."""
        ...

    def handles_signal(self) -> bool:
        """Whether the caller's thread is in a call, which stands still while a signal handler runs. If that
        calls :meth:`leave`, the call returns None after it, without using the socket again."""
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


def make_poster(socket: zmq.Socket[bytes]) -> Poster | None:
    """What sends requests through a DEALER; None where the pump is in plain Python."""
    if pump_kind() == "python":
        return None
    from .pump.compiled import Poster as CompiledPoster

    return CompiledPoster(socket)


def make_receiver(
    socket: zmq.Socket[bytes], replies: Interner[ReplySignature] | None = None, waiting: Waiting | None = None
) -> Receiver:
    """What reads from a socket whose messages start with a head frame.

    Args:
        replies: the headers that are known. Its owner adds to them.
        waiting: the calls that wait. Where the pump is compiled, plain replies with known headers answer them
            here; all other messages are delivered. None: all messages are.
    """
    if pump_kind() == "python":
        return PlainReceiver(socket)
    from .pump.compiled import Receiver as CompiledReceiver

    if replies is None or waiting is None:
        return CompiledReceiver(socket)
    return CompiledReceiver(socket, replies.known, waiting)


def make_exchange(
    socket: zmq.Socket[bytes], fd: int, replies: Interner[ReplySignature], spin: float
) -> Exchange | None:
    """What exchanges a request for its reply through a DEALER; None where the pump is in plain Python.

    Args:
        fd: the socket's own descriptor.
        replies: the headers that are known. Its owner adds to them.
        spin: seconds to look again and again before it sleeps, see :class:`tensorwire.client.Client`.
    """
    if pump_kind() == "python":
        return None
    from .pump.compiled import Exchange as CompiledExchange

    return CompiledExchange(socket, fd, replies.known, spin)
