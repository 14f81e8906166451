"""Which pump is used: the compiled one where it was built, else the one in plain Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import zmq

from ..switch import pure_python
from ..wire.header import Interner, Signature
from .interface import Pump
from .python import PythonPump


def _chosen() -> Callable[..., Pump]:
    if pure_python():
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


def pump_kind() -> Literal["compiled", "python"]:
    """Which pump :func:`make_pump` makes."""
    return "python" if _chosen() is PythonPump else "compiled"
