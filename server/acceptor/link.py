"""An acceptor's connection to the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from ...rpc.ends import Deliver, make_receiver, make_sender
from ...rpc.transport import AnyContext, connect, descriptor, new_dealer, plain_send, readable
from ...rpc.wire.message import Buffer

#: Messages that wait in libzmq on each side. While no more fit, requests gather at the pump, and those that
#: come together travel together: a long queue here would only keep them apart.
WAITING: Final = 64
_NOBLOCK: Final = int(zmq.NOBLOCK)
_SEND_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
#: pyzmq copies shorter frames anyway.
_ZERO_COPY_NBYTES: Final = 65_536


class Link:
    """A DEALER with its monitor. Used by one thread.

    Attributes:
        fd, monitor_fd: edge-triggered.
        up: the connection stands.
        lost: it stood once, and does not any more.
    """

    def __init__(self, context: AnyContext, address: str, identity: bytes) -> None:
        """``identity``: by which the server knows who it is."""
        self._socket = new_dealer(context)
        self._socket.setsockopt(zmq.ROUTING_ID, identity)
        self._socket.setsockopt(zmq.SNDHWM, WAITING)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(int(events))
        self._send = plain_send(self._socket)
        self._receiver = make_receiver(self._socket)
        self._large = make_sender(self._socket)
        #: Large frames were sent, and their memory may be kept still.
        self._unsettled = False
        self._unsent: deque[Sequence[Buffer]] = deque()
        self.fd = descriptor(self._socket)
        self.monitor_fd = descriptor(self._monitor)
        self.up = False
        self.lost = False
        # Only now: a monitor that is made later can miss that the connection stands.
        connect(self._socket, address)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send one message, or keep it until there is room."""
        if self._unsent or not self._try(frames):
            self._unsent.append(frames)

    def flush(self) -> bool:
        """Send what is kept; whether there is room for more."""
        while self._unsent:
            if not self._try(self._unsent[0]):
                return False
            self._unsent.popleft()
        return True

    @property
    def kept(self) -> int:
        """Messages for which there was no room."""
        return len(self._unsent)

    def _try(self, frames: Sequence[Buffer]) -> bool:
        try:
            self._push(frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EAGAIN:
                raise
            return False  # of the first frame: libzmq takes whole messages
        return True

    def _push(self, frames: Sequence[Buffer]) -> None:
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            flags = _NOBLOCK if index == last else _SEND_MORE
            if len(frame) < _ZERO_COPY_NBYTES:
                self._send(frame, flags)
            else:
                self._large.send(frame, flags)
                self._unsettled = True

    def receive(self, deliver: Deliver) -> None:
        """Read all messages that are there: after every send, too, which can swallow the edge."""
        self._receiver.all(deliver)
        if self._unsettled:
            self._unsettled = self._large.settle()

    def observe(self) -> None:
        """Take note of what has happened to the connection."""
        while readable(self._monitor):
            event = parse_monitor_message(self._monitor.recv_multipart(_NOBLOCK))
            self.up = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.lost = self.lost or not self.up

    def close(self) -> None:
        """Close the sockets."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._large.settle()
