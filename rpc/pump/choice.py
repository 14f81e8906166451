"""Which pump is used: the compiled one where it was built, else the one in plain Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol

import zmq

from ..wire.header import Interner, Signature
from ..wire.message import Buffer
from .interface import Pump
from .python import PythonPump

#: Set to anything but 0 or nothing, this environment variable keeps the compiled pump out of use.
PURE_PYTHON: Final = "TENSORWIRE_PURE_PYTHON"


def _chosen() -> Callable[..., Pump]:
    if os.environ.get(PURE_PYTHON, "0") not in ("", "0"):
        return PythonPump
    try:
        # Here, and not above: it may not be there.
        from .compiled import CompiledPump
    except ImportError:  # it was not built, or cannot call this libzmq
        return PythonPump
    return CompiledPump


def make_pump(
    socket: zmq.Socket[bytes],
    *,
    clock: Callable[[], float] = time.monotonic,
    signatures: Interner[Signature] | None = None,
    max_peer_nbytes: int = 64 << 20,
) -> Pump:
    """A pump for a bound ROUTER with ``ROUTER_MANDATORY``.

    Args:
        clock: seconds; deadlines are times of this clock.
        signatures: decoded headers; several pumps may share them.
        max_peer_nbytes: replies kept for a peer that does not read them.
    """
    return _chosen()(socket, clock=clock, signatures=signatures, max_peer_nbytes=max_peer_nbytes)


class Sender(Protocol):
    """Sends large frames from where they lie."""

    def send(self, frame: Buffer, flags: int) -> None:
        """Send one frame, at once or never; its memory must not change until it has been sent."""
        ...

    def settle(self) -> bool:
        """Let go of the memory of what has been sent; whether there is more, to be asked for again."""
        ...


class PlainSender:
    """pyzmq's own way, which lets go by itself, in a thread."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def send(self, frame: Buffer, flags: int) -> None:
        """See :class:`Sender`."""
        self._socket.send(frame, flags | int(zmq.NOBLOCK), copy=False, track=False)

    def settle(self) -> bool:
        """See :class:`Sender`."""
        return False


def make_sender(socket: zmq.Socket[bytes]) -> Sender:
    """What sends large frames through a socket: compiled, where the pump is."""
    if _chosen() is PythonPump:
        return PlainSender(socket)
    from .compiled import Sender as CompiledSender

    return CompiledSender(socket)


def pump_kind() -> Literal["compiled", "python"]:
    """Which pump :func:`make_pump` makes."""
    return "python" if _chosen() is PythonPump else "compiled"
