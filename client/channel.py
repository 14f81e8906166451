"""What the sync and the async client share: calls in, messages out; messages in, answers out. No I/O.

The owner serialises all use (a lock, or an event loop), sends what :meth:`Channel.begin` and
:meth:`Channel.flush` give and feeds :meth:`Channel.receive` with what arrives.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..rpc.errors import (
    DeadlineExceededError,
    ProtocolError,
    RpcError,
    UnavailableError,
    error_from_code,
)
from ..rpc.wire.extra import ControlCall, decode_error, decode_result, encode_body
from ..rpc.wire.header import Interner, Layout, ReplySignature
from ..rpc.wire.message import (
    answerable_ids,
    build_control,
    read_prefix,
    read_rows,
    read_tensors,
)
from ..rpc.wire.prefix import MAGIC, MAX_COUNT, PREFIX, PREFIX_SIZE, VERSION, Kind
from .encode import rows_of, timeout_us
from .pending import ID_BITS, Call, Envelope, Pending, fail
from .requests import Template

Array = npt.NDArray[Any]

#: A message carries at most this many bytes of fused requests; more of them make several messages.
_FUSED_BYTES: Final = 1 << 20
_FUSED_CALLS: Final = min(4096, MAX_COUNT)
_REPLY: Final = int(Kind.REPLY)
_ONE_ROW: Final = b"\1\0\0\0"


class Channel:
    """Templates, open groups, pending calls and the replies' headers of one connection."""

    def __init__(self, address: str, fuse: bool) -> None:
        self._address = address
        self._fuse = fuse
        self._open: list[Envelope] = []
        #: Headers of replies that have been seen.
        self.replies: Interner[ReplySignature] = Interner(ReplySignature)
        self.pending = Pending()
        #: None while connected; else why not.
        self.down: str | None = f"no connection to {address} yet"
        #: Replies that could not be read or that nobody waits for.
        self.stray = 0

    # ---------------------------------------------------------------- out

    def enqueue(self, call: Call, template: Template, arrays: list[Array], timeout: float | None) -> Envelope:
        """Add a call to what the next :meth:`flush` sends."""
        if self._fuse and template.fusable:
            group: Envelope | None = template.group
            if (
                group is not None
                and group.timeout == timeout
                and len(group.calls) < _FUSED_CALLS
                and len(group.calls) * template.nbytes < _FUSED_BYTES
            ):
                group.calls.append(call)
                group.arrays += arrays
                return group
        group = Envelope(template, timeout)
        group.calls.append(call)
        group.arrays += arrays
        template.group = group
        self._open.append(group)
        return group

    def begin(
        self, call: Call, template: Template, arrays: list[Array], timeout: float | None, now: float
    ) -> Envelope:
        """An envelope for one call, which is pending from now on; it is to be sent at once."""
        envelope = Envelope(template, timeout)
        envelope.calls.append(call)
        envelope.arrays = arrays
        self.pending.add(envelope, now)
        return envelope

    def flush(self, now: float) -> list[Envelope]:
        """The envelopes of all calls that were added; they are pending from now on, and are to be sent."""
        opened, self._open = self._open, []
        for envelope in opened:
            envelope.template.group = None
            self.pending.add(envelope, now)
        return opened

    def drop(self, envelope: Envelope, error: RpcError) -> None:
        """Fail the calls of an envelope that could not be sent."""
        self.pending.envelopes.pop(envelope.number, None)
        fail(envelope.calls, lambda: error_from_code(error.code, error.message))

    def control(
        self, call: Call, method: str, params: dict[str, Any], timeout: float | None, now: float
    ) -> Envelope:
        """An envelope for a control call, which is pending from now on; its one frame is to be sent."""
        envelope = Envelope(None, timeout)
        envelope.calls.append(call)
        body = encode_body(ControlCall(method, params))
        first_id = self.pending.add(envelope, now)
        envelope.arrays = [build_control(Kind.CONTROL, first_id, body, timeout_us=timeout_us(timeout))]
        return envelope

    def cancel(self, envelope: Envelope, call: Call) -> bytes | None:
        """Give up a call; the CANCEL to send, or None if it was answered, or not sent, meanwhile."""
        if call not in envelope.calls:
            return None
        index = envelope.calls.index(call)
        if envelope.number not in self.pending.envelopes:
            return None
        self.pending.take(envelope, index, 1)
        return build_control(Kind.CANCEL, (envelope.number << ID_BITS) + index)

    # ---------------------------------------------------------------- in

    def receive(self, head: bytes | memoryview, frames: Sequence[memoryview]) -> None:
        """Answer the calls that a message is for. Strays and malformed messages are counted."""
        try:
            prefix = PREFIX.unpack_from(head)
            magic, version, kind, _, _, first_id, _, count, header_len, extra_len, limit, _, _ = prefix
            if kind == _REPLY and version == VERSION and magic == MAGIC and not frames and not extra_len:
                rows_at = PREFIX_SIZE + header_len
                signature = self.replies.known.get(bytes(head[PREFIX_SIZE:rows_at]))
                if signature is not None and signature.layout.groupable:
                    rows_end = rows_at + 4 * count
                    if count == 1 and head[rows_at:rows_end] == _ONE_ROW:
                        self._answer_single(signature.layout, head, first_id, rows_end, limit)
                        return
                    if 1 < count <= MAX_COUNT and bytes(head[rows_at:rows_end]) == rows_of(1, count):
                        self._answer(signature.layout, head, first_id, count, rows_end, limit)
                        return
            self._receive_general(memoryview(head), frames)
        except (RpcError, ValueError, IndexError, struct.error) as error:
            self.stray += 1
            self._fail_unreadable(head, error)

    def _answer_single(
        self, layout: Layout, head: bytes | memoryview, first_id: int, start: int, limit: int
    ) -> None:
        """A reply to one request of one row, with inline tensors, whose header is known."""
        slices, end, framed = layout.place(1, start, limit)
        if framed or end != len(head):
            raise ProtocolError(f"reply of {len(head)} bytes, its contents add up to {end}")
        found = self.pending.find(first_id, 1)
        if found is None:
            self.stray += 1
            return
        outputs = {
            name: np.ndarray((1, *shape), dtype, head, place.start if place else 0)
            for name, shape, dtype, place in zip(
                layout.names, layout.shapes, layout.dtypes, slices, strict=True
            )
        }
        (call,) = self.pending.take(*found, 1)
        if call is not None and not call.done():
            call.set_result(outputs)

    def _answer(
        self, layout: Layout, head: bytes | memoryview, first_id: int, count: int, start: int, limit: int
    ) -> None:
        """A reply to several requests of one row each, with inline tensors, whose header is known."""
        slices, end, framed = layout.place(count, start, limit)
        if framed or end != len(head):
            raise ProtocolError(f"reply of {len(head)} bytes, its contents add up to {end}")
        found = self.pending.find(first_id, count)
        if found is None:
            self.stray += 1
            return
        blocks = [
            np.frombuffer(head, dtype, elements * count, place.start if place else 0).reshape(count, *shape)
            for place, dtype, elements, shape in zip(
                slices, layout.dtypes, layout.row_elements, layout.shapes, strict=True
            )
        ]
        calls = self.pending.take(*found, count)
        if len(blocks) == 1:
            name, block = layout.names[0], blocks[0]
            for index, call in enumerate(calls):
                if call is not None and not call.done():
                    call.set_result({name: block[index : index + 1]})
            return
        for index, call in enumerate(calls):
            if call is not None and not call.done():
                call.set_result(
                    {name: block[index : index + 1] for name, block in zip(layout.names, blocks, strict=True)}
                )

    def _receive_general(self, head: memoryview, frames: Sequence[memoryview]) -> None:
        prefix = read_prefix(head)
        found = self.pending.find(prefix.id, prefix.count)
        if found is None:
            self.stray += 1
            return
        body_end = PREFIX_SIZE + prefix.header_len
        if prefix.kind == Kind.ERROR:
            message = decode_error(bytes(head[body_end : body_end + prefix.extra_len]))
            fail(self.pending.take(*found, prefix.count), lambda: error_from_code(prefix.status, message))
        elif prefix.kind == Kind.CONTROL_REPLY:
            result = decode_result(bytes(head[PREFIX_SIZE:body_end]))
            for call in self.pending.take(*found, prefix.count):
                if call is not None and not call.done():
                    call.set_result(result)
        elif prefix.kind == Kind.REPLY:
            layout = self.replies.get(bytes(head[PREFIX_SIZE:body_end])).layout
            rows, total, start = read_rows(head, prefix, layout)
            tensors = read_tensors(head, frames, layout, total, start, prefix.inline_limit)
            self._split(found, prefix.count, layout, tensors, rows)
        else:
            raise ProtocolError(f"a client does not take messages of kind {prefix.kind}")

    def _split(
        self,
        found: tuple[Envelope, int],
        count: int,
        layout: Layout,
        tensors: list[Array],
        rows: list[int] | None,
    ) -> None:
        calls = self.pending.take(*found, count)
        at = 0
        for index, call in enumerate(calls):
            if rows is None:
                outputs = dict(zip(layout.names, tensors, strict=True))
            else:
                end = at + rows[index]
                outputs = {name: tensor[at:end] for name, tensor in zip(layout.names, tensors, strict=True)}
                at = end
            if call is not None and not call.done():
                call.set_result(outputs)

    def _fail_unreadable(self, head: bytes | memoryview, error: Exception) -> None:
        """A message that cannot be read still tells whose it is: fail those calls at once."""
        ids = answerable_ids(head)
        found = None if ids is None else self.pending.find(*ids)
        if ids is not None and found is not None:
            message = f"the reply of {self._address} cannot be read: {error}"
            fail(self.pending.take(*found, ids[1]), lambda: RpcError(message))

    # ---------------------------------------------------------------- failures

    def expire(self, now: float) -> None:
        """Fail the calls whose deadline has passed."""
        for envelope in self.pending.expired(now):
            waited = f"no answer from {self._address} within {envelope.timeout} s"
            if self.down is None:
                fail(envelope.calls, lambda waited=waited: DeadlineExceededError(waited))
            else:
                message = f"{self.down}; {waited}; is the server running?"
                fail(envelope.calls, lambda message=message: UnavailableError(message))

    def connected(self) -> None:
        """The connection stands."""
        self.down = None

    def disconnected(self, reason: str) -> None:
        """The connection is gone: what waits for an answer will not get it."""
        self.down = reason
        self.fail_all(f"{reason} while the call was in flight")

    def fail_all(self, message: str) -> None:
        """Fail everything with UNAVAILABLE."""
        unsent, self._open = self._open, []
        for envelope in (*unsent, *self.pending.clear()):
            if envelope.template is not None:
                envelope.template.group = None
            fail(envelope.calls, lambda: UnavailableError(message))
