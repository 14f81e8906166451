"""A TCP port that several processes listen at: the kernel gives each connection to one of them."""

from __future__ import annotations

import errno
import re
import socket
from typing import Final

import zmq

from ...rpc.errors import FailedPreconditionError, InvalidArgumentError
from ...rpc.transport import bind_router, in_use, last_endpoint

BACKLOG: Final = 1024
_ENDPOINT: Final = re.compile(r"tcp://\[?(?P<host>[^\]]+?)\]?:(?P<port>\d+)")


def claim(address: str) -> str:
    """The address with the real host and port, if it can be bound by us alone.

    Sockets with ``SO_REUSEPORT`` may share a port with those of any process of the same user: a second server
    would not be told that there is one already, and get some of its clients. A plain bind is told; it is
    ZeroMQ's, so that the address means what it always does.

    Raises:
        FailedPreconditionError: it is in use, or cannot be shared.
        InvalidArgumentError: it is not an address.
    """
    if not address.startswith("tcp://"):
        raise FailedPreconditionError(
            f"{address} has room for one front end; use tcp://HOST:PORT, or serving.front_ends = 1"
        )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with bind_router(context, address, -1) as router:
            return last_endpoint(router)
    finally:
        context.term()  # which waits until the port is free again


def reserve(endpoint: str) -> socket.socket:
    """A socket bound to a claimed address, beside others. It gets connections when it listens.

    Raises:
        FailedPreconditionError: somebody else has it.
    """
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None:
        raise InvalidArgumentError(f"{endpoint} is not an address with a port")
    where = (match["host"], int(match["port"]))
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(where)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise in_use(endpoint) from None
        raise FailedPreconditionError(f"cannot bind {endpoint}: {error.strerror}") from None
    return made
