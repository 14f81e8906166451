"""Between a pump and the server: bundles in, envelopes out; replies in, slices out. No I/O.

What came from many peers goes on as one message with ids of the proxy's own. The answers, each about a range
of them, are cut for the peers by the pump, as those of a batch are. Nothing is decided here: the server
admits, routes, counts and refuses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from ...rpc.errors import RpcError, StatusCode
from ...rpc.pump import Bundle, ControlMessage, Drained, Pump, ReplyTemplate, Slice
from ...rpc.wire.extra import decode_control, decode_error
from ...rpc.wire.header import Interner, Layout, ReplySignature
from ...rpc.wire.message import Buffer, answerable_ids, build_control, build_error, read_tensors
from ...rpc.wire.prefix import PREFIX, PREFIX_SIZE, Kind
from . import envelopes
from .pending import Pending

Array = npt.NDArray[Any]
Send = Callable[[Sequence[Buffer]], None]

_ID: Final = slice(8, 16)
_REPLY: Final = int(Kind.REPLY)
_ERROR: Final = int(Kind.ERROR)
_INTERNAL: Final = int(StatusCode.INTERNAL)
_UNAVAILABLE: Final = int(StatusCode.UNAVAILABLE)
_UNREADABLE: Final = "the server's answer cannot be read"


def _template(raw: bytes) -> ReplyTemplate:
    return ReplyTemplate(raw, ReplySignature(raw).layout)


class _Tensors(NamedTuple):
    """Where the tensors of a reply lie."""

    head: bytes | memoryview
    frames: Sequence[memoryview]
    #: Offset of the row counts.
    at: int
    inline_limit: int

    def read(self, part: Slice, layout: Layout) -> list[Array]:
        """The outputs; their row counts are those of the requests, and need not be read.

        Raises:
            ProtocolError: lengths do not add up.
        """
        rows, start = 1, self.at
        if layout.rows:
            rows = part.rows
            start += 4 * part.requests
        return read_tensors(self.head, self.frames, layout, rows, start, self.inline_limit)


class Proxy:
    """One acceptor's requests on their way to the server and back. Used by the thread that owns the pump.

    Attributes:
        pending: what waits for an answer.
        stray: messages of the server that nobody waits for, or that cannot be read.
        down: why nothing is passed on any more; empty while it is.
    """

    def __init__(self, pump: Pump, send: Send) -> None:
        """``send``: takes the frames of one message for the server, in this order."""
        self._pump = pump
        self._send = send
        self._templates: Interner[ReplyTemplate] = Interner(_template)
        self.pending = Pending()
        self.stray = 0
        self.down = ""

    # ---------------------------------------------------------------- from peers

    def take(self, drained: Drained, now: float) -> None:
        """Pass on what has arrived; ``now`` is on the pump's clock."""
        for bundle in drained.bundles:
            self._pass_on(bundle, now)
        # After the bundles: a CANCEL may have come in together with its request.
        for message in drained.controls:
            self._control(message)

    def _pass_on(self, bundle: Bundle, now: float) -> None:
        if self.down:
            self._pump.fail(Slice(bundle, 0, bundle.requests), _UNAVAILABLE, self.down)
            return
        for run in envelopes.runs(bundle):
            self._send(envelopes.encode(run, self.pending.add(run.part), now))
        # The answers need only the columns: what is sent need not wait here, too.
        bundle.inputs = []

    def _control(self, message: ControlMessage) -> None:
        if message.kind == Kind.PING:
            self._pump.send(message.peer, build_control(Kind.PONG, message.id))
        elif message.kind == Kind.CANCEL:
            for first_id, count in self.pending.find(message.peer, message.id, message.count):
                self._send((build_control(Kind.CANCEL, first_id, count=count),))
        elif self.down:
            self._fail_call(message)
        else:
            self._call(message)

    def _call(self, message: ControlMessage) -> None:
        try:
            decode_control(message.body)
        except RpcError as error:  # malformed messages end here, as they do at the server
            self._pump.send(message.peer, build_error(message.id, 1, error.code, error.message))
            return
        call_id = self.pending.add_call(message)
        self._send((build_control(Kind.CONTROL, call_id, message.body, timeout_us=message.timeout_us),))

    # ---------------------------------------------------------------- from the server

    def receive(self, head: bytes | memoryview, frames: Sequence[memoryview]) -> None:
        """Pass an answer on. What cannot be read fails the requests that it is about, if that can be read."""
        try:
            self._receive(head, frames)
        except (RpcError, ValueError, IndexError, struct.error) as error:
            self.stray += 1
            ids = answerable_ids(head)
            part = None if ids is None else self.pending.take(*ids)
            if part is not None:
                self._pump.fail(part, _INTERNAL, f"{_UNREADABLE}: {error}")

    def _receive(self, head: bytes | memoryview, frames: Sequence[memoryview]) -> None:
        _, _, kind, _, status, first_id, _, count, header_len, extra_len, limit, queue_us, compute_us = (
            PREFIX.unpack_from(head)
        )
        end = PREFIX_SIZE + header_len
        if kind == _REPLY:
            template = self._templates.get(bytes(head[PREFIX_SIZE:end]))
            part = self.pending.take(first_id, count)
            if part is not None:
                self._reply(
                    part, template, _Tensors(head, frames, end + extra_len, limit), queue_us, compute_us
                )
                return
        elif call := self.pending.take_call(first_id):
            # The same answer, under the id that the peer knows.
            own_id = call.id.to_bytes(8, "little")
            self._pump.send(call.peer, b"".join((head[: _ID.start], own_id, head[_ID.stop :])))
            return
        elif kind == _ERROR:
            part = self.pending.take(first_id, count)
            if part is not None:
                self._pump.fail(part, status, decode_error(bytes(head[end : end + extra_len])))
                return
        self.stray += 1

    def _reply(
        self, part: Slice, template: ReplyTemplate, tensors: _Tensors, queue_us: int, compute_us: int
    ) -> None:
        try:
            outputs = tensors.read(part, template.layout)
        except RpcError as error:
            self.stray += 1
            self._pump.fail(part, _INTERNAL, f"{_UNREADABLE}: {error.message}")
            return
        self._pump.reply(part, template, outputs, 0, queue_us, compute_us)

    # ---------------------------------------------------------------- the end

    def give_up(self, reason: str) -> None:
        """The server is gone: what waits is answered with UNAVAILABLE, and so is whatever comes."""
        self.down = reason
        parts, calls = self.pending.clear()
        for part in parts:
            self._pump.fail(part, _UNAVAILABLE, reason)
        for call in calls:
            self._fail_call(call)

    def _fail_call(self, call: ControlMessage) -> None:
        self._pump.send(call.peer, build_error(call.id, 1, _UNAVAILABLE, self.down))
