"""The socket between a worker process and its parent: whole messages, in order, each with at most one
descriptor. One system call to send and one to receive, without a thread between."""

from __future__ import annotations

import array
import os
import socket
from typing import Final, NamedTuple

from ...rpc.errors import ProtocolError
from .framing import MAX_MESSAGE

UNFIT: Final = "a message is too long, or came with several descriptors"

#: Room for a few more descriptors than are ever sent: what comes in must be closed, too.
_ANCILLARY: Final = socket.CMSG_SPACE(4 * 4)
# Plain numbers: arithmetic with enums takes longer than a system call.
_CUT: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_DONTWAIT: Final = int(socket.MSG_DONTWAIT)


class Closed(Exception):
    """The other side is gone, or has closed its end."""


class Received(NamedTuple):
    """One message. ``fd`` is the receiver's to close; -1: none came."""

    head: bytes
    fd: int


class Link:
    """One end of the pair. ``blocking`` is how :meth:`receive` and :meth:`send` wait."""

    def __init__(self, sock: socket.socket, *, blocking: bool) -> None:
        self._socket = sock
        self._flags = 0 if blocking else _DONTWAIT
        self._buffer = bytearray(MAX_MESSAGE + 1)
        self._buffers = [self._buffer]
        self._view = memoryview(self._buffer)

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, head: bytes, fd: int = -1) -> bool:
        """Send a message; False if there is no room at the moment. ``fd`` remains the caller's.

        Raises:
            Closed: nobody is there to read it.
        """
        try:
            if fd < 0:
                self._socket.send(head, self._flags)
            else:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
                self._socket.sendmsg([head], [rights], self._flags)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Closed from error
        return True

    def receive(self) -> Received | None:
        """The next message; None if there is none at the moment.

        Raises:
            Closed: there will be none any more.
            ProtocolError: it was longer than any message may be, or came with more than one descriptor.
        """
        try:
            nbytes, ancillary, came, _ = self._socket.recvmsg_into(
                self._buffers, _ANCILLARY, self._flags | _CLOEXEC
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # The other side went without reading everything. What it sent before is still to be read.
            return self.receive()
        except OSError as error:
            raise Closed from error
        if not nbytes:
            raise Closed
        fds = _descriptors(ancillary) if ancillary else []
        if came & _CUT or len(fds) > 1:
            for fd in fds:
                os.close(fd)
            raise ProtocolError(UNFIT)
        return Received(bytes(self._view[:nbytes]), fds[0] if fds else -1)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
