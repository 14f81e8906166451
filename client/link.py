"""A DEALER with its monitor: what both clients send and receive through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from ..rpc.ends import Exchange, make_exchange, make_poster, make_receiver, make_sender
from ..rpc.errors import RpcError
from ..rpc.transport import AnyContext, connect, descriptor, new_dealer, plain_send, readable
from ..rpc.wire.message import INLINE_LIMIT, Buffer
from .channel import Channel
from .encode import encode, tail_of
from .pending import Call, Envelope
from .requests import Array, Template

_NOBLOCK: Final = int(zmq.NOBLOCK)
_SEND_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
#: pyzmq copies shorter frames anyway.
_ZERO_COPY_NBYTES: Final = 65_536
#: So many messages may wait for a connection before those that nobody waits for any more are looked for.
_SWEEP_FROM: Final = 64


class Link:
    """The sockets of one client. Every use is serialised by the owner."""

    def __init__(self, context: AnyContext, address: str, channel: Channel) -> None:
        """``channel``: whose calls are sent and answered here."""
        self._address = address
        self._channel = channel
        self._deliver = channel.receive
        self._socket = new_dealer(context)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        events |= zmq.EVENT_CONNECT_RETRIED
        self._monitor: zmq.Socket[bytes] = self._socket.get_monitor_socket(int(events))
        self._send = plain_send(self._socket)
        self._receiver = make_receiver(self._socket, channel.replies, channel.pending)
        self._large = make_sender(self._socket)
        self._poster = make_poster(self._socket)
        #: Large frames were sent, and their memory may be kept still.
        self._unsettled = False
        #: What waits for a connection. In ZeroMQ's own queue it would outlive its timeout, and a server that
        #: comes back would be asked for all that nobody waits for any more.
        self._held: list[Envelope] = []
        self._sweep_at = _SWEEP_FROM
        self.fd = descriptor(self._socket)
        self.monitor_fd = descriptor(self._monitor)
        try:
            # Only now: a monitor that is made later can miss that the connection stands.
            connect(self._socket, address)
        except BaseException:
            self.close()
            raise

    def exchange(self, spin: float) -> Exchange | None:
        """What a caller that is alone sends, waits and reads with; None where there is no such thing."""
        return make_exchange(self._socket, self.fd, self._channel.replies, spin)

    def lent(self) -> None:
        """The socket was used by an exchange, which may have sent large frames."""
        self._unsettled = True

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send one message. Never blocks: the pipe has no limit, what is pending is bounded by timeouts."""
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            flags = _NOBLOCK if index == last else _SEND_MORE
            if len(frame) < _ZERO_COPY_NBYTES:
                self._send(frame, flags)
            else:
                self._large.send(frame, flags)
                self._unsettled = True

    def single(
        self, call: Call, template: Template, arrays: list[Array], timeout: float | None, now: float
    ) -> Envelope:
        """Send one call in a message of its own.

        Raises:
            InvalidArgumentError: an element of a bytes or string tensor cannot be sent; nothing was.
        """
        envelope = self._channel.begin(call, template, arrays, timeout, now)
        try:
            self._dispatch(envelope)
        except RpcError:
            # Anything else, as what a signal handler raises, can come when it has been sent.
            self._channel.pending.take(envelope, 0, 1)
            raise
        return envelope

    def control(
        self, call: Call, method: str, params: dict[str, Any], timeout: float | None, now: float
    ) -> None:
        """Send a control call."""
        self._dispatch(self._channel.control(call, method, params, timeout, now))

    def cancel(self, envelope: Envelope, call: Call) -> bool:
        """Give up a call; whether a message was sent."""
        frame = self._channel.cancel(envelope, call)
        # Without a connection what is pending has not been sent.
        if frame is None or self._channel.down is not None:
            return False
        self.send((frame,))
        return True

    def flush(self, now: float) -> None:
        """Send all calls that were added to the channel."""
        channel = self._channel
        for envelope in channel.flush(now):
            self._dispatch_or_drop(envelope)

    def _dispatch_or_drop(self, envelope: Envelope) -> None:
        try:
            self._dispatch(envelope)
        except RpcError as error:
            # An element of a bytes or string tensor can be wrong; nothing of the message was sent.
            self._channel.drop(envelope, error)

    def _dispatch(self, envelope: Envelope) -> None:
        if self._channel.down is not None:
            self._hold(envelope)
            return
        template: Template | None = envelope.template
        try:
            if template is None:
                self.send(envelope.arrays)
                return
            if self._poster is not None:
                tail = tail_of(template, envelope.timeout)
                if tail and self._poster.post(envelope.number, tail, template.nbytes, envelope.arrays):
                    # A large tensor is kept until it has left.
                    self._unsettled = self._unsettled or template.nbytes > INLINE_LIMIT
                    return
            self.send(encode(envelope))
        finally:
            envelope.arrays = []

    def _hold(self, envelope: Envelope) -> None:
        """Keep a message until there is a connection."""
        if len(self._held) >= self._sweep_at:
            waiting = self._channel.pending.envelopes
            self._held = [held for held in self._held if held.number in waiting]
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._held))
        if envelope.template is not None:
            # Whoever has called may write into them before they are sent.
            envelope.arrays = [array.copy() for array in envelope.arrays]
        self._held.append(envelope)

    def _release(self) -> None:
        """Send what was kept and is still waited for, with what is left of its time."""
        held, self._held = self._held, []
        waiting, now = self._channel.pending.envelopes, time.monotonic()
        for envelope in held:
            if envelope.number not in waiting:
                continue
            timeout = envelope.timeout
            if timeout is not None:
                envelope.timeout = max(0.0, envelope.deadline - now)
            self._dispatch_or_drop(envelope)
            envelope.timeout = timeout
        self.receive()

    def receive_one(self) -> bool:
        """Read one message if there is one, and answer its calls; whether there was."""
        found = self._receiver.one(self._deliver)
        if self._unsettled:
            self._settle()
        return found

    def receive(self) -> None:
        """Read all messages that are there, and answer their calls.

        The descriptor is edge-triggered and sending can swallow the edge: call this after every send and
        whenever the descriptor becomes readable.
        """
        self._receiver.all(self._deliver)
        if self._unsettled:
            self._settle()

    def _settle(self) -> None:
        # Where an answer is, its request has left.
        self._unsettled = self._large.settle()

    def observe(self) -> None:
        """Tell the channel what has happened to the connection, and what had come before it was lost."""
        channel = self._channel
        while readable(self._monitor):
            event = parse_monitor_message(self._monitor.recv_multipart(_NOBLOCK))
            kind = event["event"]
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                channel.connected()
                self._release()
            elif kind == zmq.EVENT_DISCONNECTED:
                # A server that stops answers what is in flight and closes: both may be here to be read.
                self.receive()
                channel.disconnected(f"the connection to {self._address} was lost")
            elif channel.down is not None:
                channel.down = f"cannot connect to {self._address}"

    def close(self) -> None:
        """Close the sockets; unsent messages are dropped."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._large.settle()
