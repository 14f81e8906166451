"""Sockets: options of the server's ROUTER and the client's DEALER in one place."""

from __future__ import annotations

import functools
import os
import socket as sockets
from collections.abc import Callable
from typing import Any, Final

import zmq
import zmq.backend

from .errors import FailedPreconditionError, InvalidArgumentError

#: Milliseconds without any traffic after which a peer is asked for a sign of life, and after which it is
#: taken for dead.
_HEARTBEAT_MS: Final = 5_000
_HEARTBEAT_TIMEOUT_MS: Final = 20_000
_RECONNECT_MS: Final = 50
_RECONNECT_MAX_MS: Final = 2_000
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)

AnyContext = zmq.Context[zmq.Socket[bytes]]


def bind_router(
    context: AnyContext, address: str, max_frame_bytes: int, listener: sockets.socket | None = None
) -> zmq.Socket[bytes]:
    """A bound ROUTER as the pump expects it.

    Args:
        listener: listens at the address already; the ROUTER takes it over. None: it makes one.

    Raises:
        FailedPreconditionError: the address cannot be bound; says why and what to do.
        InvalidArgumentError: it is not an address.
    """
    socket = context.socket(zmq.ROUTER)
    # Mandatory: sending to a peer that is gone or does not read is reported instead of dropped silently.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame_bytes)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.BACKLOG, 1024)
    _heartbeat(socket)
    if listener is not None:
        # Detached: if both closed it, libzmq would end the process.
        socket.setsockopt(zmq.USE_FD, listener.detach())
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        if error.errno == zmq.EADDRINUSE:
            raise in_use(address) from None
        raise InvalidArgumentError(
            f"cannot bind {address!r}: {zmq.strerror(error.errno or 0)}; expected tcp://HOST:PORT or ipc://PATH"
        ) from None
    socket.setsockopt(zmq.USE_FD, -1)
    return socket


def bind_own(socket: zmq.Socket[bytes], name: str, waiting: int) -> str:
    """Have a bound ROUTER listen for processes of its own user on this machine, too.

    Args:
        name: nobody else's; it stands in no file system.
        waiting: messages of each of them that wait in libzmq.

    Returns:
        The address.
    """
    address = f"ipc://@{name}"
    # Options hold for the addresses that are bound from then on.
    socket.setsockopt(zmq.MAXMSGSIZE, -1)
    socket.setsockopt(zmq.RCVHWM, waiting)
    # Anybody can see the names of such sockets; nobody else gets in.
    socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
    socket.bind(address)
    return address


def in_use(address: str) -> FailedPreconditionError:
    """What is to be said about an address that cannot be bound because of somebody else."""
    return FailedPreconditionError(
        f"{address} is in use by another process; stop it or give another address with --bind"
    )


def connect_dealer(context: AnyContext, address: str) -> zmq.Socket[bytes]:
    """A DEALER that is connecting to a server, and reconnects by itself with growing intervals.

    Raises:
        InvalidArgumentError: it is not an address.
    """
    socket = new_dealer(context)
    try:
        connect(socket, address)
    except InvalidArgumentError:
        socket.close()
        raise
    return socket


def new_dealer(context: AnyContext) -> zmq.Socket[bytes]:
    """A DEALER that is not connected yet: a monitor made now misses no event."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    # The client bounds what is pending by its timeouts; a send must never block an event loop.
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
    _heartbeat(socket)
    return socket


def connect(socket: zmq.Socket[bytes], address: str) -> None:
    """Begin to connect a socket; returns at once.

    Raises:
        InvalidArgumentError: it is not an address.
    """
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        raise InvalidArgumentError(
            f"cannot connect to {address!r}: {zmq.strerror(error.errno or 0)}; "
            "expected tcp://HOST:PORT or ipc://PATH"
        ) from None


def _heartbeat(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)


def descriptor(socket: zmq.Socket[bytes]) -> int:
    """Becomes readable, edge-triggered, when the socket's events may have changed."""
    fd: Any = socket.getsockopt(zmq.FD)
    return int(fd)


def last_endpoint(socket: zmq.Socket[bytes]) -> str:
    """The address that a socket was bound to, with the real port."""
    raw: Any = socket.getsockopt(zmq.LAST_ENDPOINT)
    return raw.rstrip(b"\0").decode()


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be read now."""
    events: Any = socket.getsockopt(_EVENTS)
    return bool(events & _POLLIN)


def plain_send(socket: zmq.Socket[bytes]) -> Callable[..., Any]:
    """``socket.send`` of pyzmq's compiled backend, which takes the same arguments but for ``routing_id`` and
    ``group``: the Python method around it costs as much again."""
    return functools.partial(zmq.backend.Socket.send, socket)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownArgumentType]
