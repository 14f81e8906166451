"""Just enough of ZMTP 3.0 over a plain TCP socket to break off wherever a proof wants to.

See https://rfc.zeromq.org/spec/23/: a greeting of 64 bytes, a READY command, then frames.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_COMMAND: Final = 0x04
_LONG: Final = 0x02
_MORE: Final = 0x01
_TIMEOUT: Final = 10.0
#: Closing sends a reset, as if the process had been killed with data unread.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def ready(socket_type: bytes = b"DEALER") -> bytes:
    """The READY command that ends the handshake."""
    name = b"Socket-Type"
    body = b"\x05READY" + bytes((len(name),)) + name + struct.pack(">I", len(socket_type)) + socket_type
    return bytes((_COMMAND, len(body))) + body


def encode(frames: Sequence[bytes]) -> bytes:
    """A multipart message as it travels."""
    parts: list[bytes] = []
    for index, frame in enumerate(frames):
        more = 0 if index == len(frames) - 1 else _MORE
        parts += (bytes((more | _LONG,)), struct.pack(">Q", len(frame)), frame)
    return b"".join(parts)


def connect(address: str, *, handshake: bool = True) -> socket.socket:
    """A TCP connection to ``tcp://HOST:PORT``; after the handshake unless told otherwise."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=_TIMEOUT)
    if handshake:
        connection.sendall(GREETING + ready())
        _read(connection, len(GREETING))
        header = _read(connection, 2)
        _read(connection, header[1])
    return connection


def vanish(connection: socket.socket) -> None:
    """Close at once, unread answers and all."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    connection.close()


def _read(connection: socket.socket, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        piece = connection.recv(nbytes - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection during the handshake")
        data += piece
    return data
