"""The pump in plain Python: always there."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy.typing as npt
import zmq

from ..errors import InvalidArgumentError, RpcError, StatusCode
from ..wire.header import Interner, Signature
from ..wire.message import INLINE_LIMIT, Buffer, answerable_ids, build_error, payload_of
from ..wire.message import build as build_message
from ..wire.prefix import MAGIC, PREFIX_SIZE, U32_MAX, VERSION, Kind, aligned
from .bundle import Slice
from .intake import Intake, unit_rows
from .interface import DRAIN_NBYTES, Counters, Drained, ReplyTemplate
from .outbox import Outbox

Array = npt.NDArray[Any]

_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_EAGAIN: Final = int(zmq.EAGAIN)
_COPIED_NBYTES: Final = 4096
#: More frames than any valid message has are read and thrown away.
_MAX_FRAMES: Final = 256
_REPLY_START: Final = MAGIC + bytes((VERSION, Kind.REPLY, 0, 0))
#: The prefix behind the id: timeout_us, count, header_len, extra_len, inline_limit; then the two times.
_REPLY_REST: Final = struct.Struct("<QIIII")
_TIMES: Final = struct.Struct("<II")
_TAILS_KEPT: Final = 256
#: What stands between the id and the times of a reply, and between those and its first tensor.
_Tail = tuple[bytes, bytes]


class PythonPump:
    """See :class:`~.interface.Pump`."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        signatures: Interner[Signature] | None = None,
        max_peer_nbytes: int = 64 << 20,
    ) -> None:
        self._socket = socket
        self._clock = clock
        self._intake = Intake(signatures or Interner(Signature))
        self.counters = Counters()
        self._outbox = Outbox(socket, self.counters, max_peer_nbytes)
        self.send = self._outbox.send
        self.flush = self._outbox.flush
        self.allow = self._outbox.allow

    def drain(self, limit: int = 1024) -> Drained:
        """See :meth:`~.interface.Pump.drain`."""
        socket = self._socket
        recv: Any = socket.recv
        add = self._intake.add
        counters = self.counters
        now = self._clock()
        received = 0
        enough = counters.bytes_received + DRAIN_NBYTES
        # An exception for "nothing there" costs as much as three looks at EVENTS: look while few
        # messages are expected, then read until the exception.
        while received < limit and counters.bytes_received < enough:
            if received < 3:
                if not socket.getsockopt(_EVENTS) & _POLLIN:  # pyright: ignore[reportOperatorIssue]
                    break
                peer = recv(_NOBLOCK)
            else:
                try:
                    peer = recv(_NOBLOCK)
                except zmq.ZMQError as error:
                    if error.errno != _EAGAIN:
                        raise
                    break
            received += 1
            frame = recv(_NOBLOCK, False, False)
            frames = self._rest() if frame.more else ()
            # Slices of bytes are cheaper than slices of a memoryview, by more than a small copy costs.
            nbytes = len(frame)
            head = frame.bytes if nbytes <= _COPIED_NBYTES else frame.buffer
            counters.bytes_received += nbytes
            try:
                counters.requests += add(peer, head, frames, now)
            except RpcError as error:
                self._malformed(peer, head, error)
        counters.messages += received
        bundles, controls = self._intake.take(now)
        return Drained(bundles, controls, received >= limit or counters.bytes_received >= enough)

    def _rest(self) -> list[memoryview]:
        """The message's further frames, however many there are: none may be left for the next message."""
        frames: list[memoryview] = []
        more = True
        while more:
            frame: Any = self._socket.recv(_NOBLOCK, copy=False, track=False)
            more = frame.more
            self.counters.bytes_received += len(frame)
            if len(frames) <= _MAX_FRAMES:
                frames.append(frame.buffer)
        return frames

    def _malformed(self, peer: bytes, head: memoryview, error: RpcError) -> None:
        ids = answerable_ids(head)
        if ids is None:
            self.counters.malformed_dropped += 1
            return
        self.counters.malformed_answered += 1
        self.send(peer, build_error(*ids, error.code, error.message))

    def reply(
        self,
        part: Slice,
        template: ReplyTemplate,
        outputs: Sequence[Array],
        row: int,
        queue_us: int,
        compute_us: int,
    ) -> None:
        """See :meth:`~.interface.Pump.reply`."""
        bundle, lo, hi = part
        layout = template.layout
        if not layout.fixed or (layout.rows and bundle.rows is not None):
            self._reply_general(part, template, outputs, row, queue_us, compute_us)
            return
        payloads = [payload_of(output) for output in outputs]
        self.counters.replies += hi - lo
        times = (min(queue_us, U32_MAX), min(compute_us, U32_MAX))
        if bundle.counts is None and len(payloads) == 1:
            tail = _tail(template, 1)
            if tail is not None:
                self._reply_singles(part, tail, times, payloads[0], layout.row_nbytes[0], row)
                return
        for peer, first_id, count, start in bundle.messages(lo, hi):
            at = row + start - lo
            tail = _tail(template, count)
            if tail is None:
                self._send_framed(peer, first_id, [1] * count, template, outputs, at, queue_us, compute_us)
            else:
                tensors = _inline_tensors(layout.row_nbytes, payloads, at, count)
                start_of = _REPLY_START + first_id.to_bytes(8, "little")
                self.send(peer, b"".join((start_of, tail[0], _TIMES.pack(*times), tail[1], *tensors)))

    def _reply_singles(
        self, part: Slice, tail: _Tail, times: tuple[int, int], payload: Buffer, nbytes: int, row: int
    ) -> None:
        """The commonest reply: single requests of one row, one output."""
        bundle, lo, hi = part
        send = self.send
        head = b"".join((tail[0], _TIMES.pack(*times), tail[1]))
        at = row * nbytes
        if hi - lo == 1:
            send(
                bundle.peers[lo],
                b"".join(
                    (
                        _REPLY_START,
                        bundle.first_ids[lo].to_bytes(8, "little"),
                        head,
                        payload if len(payload) == nbytes else payload[at : at + nbytes],
                    )
                ),
            )
            return
        # Slices of bytes are cheaper than slices of a memoryview.
        rows = bytes(payload[at : at + (hi - lo) * nbytes])
        at = 0
        for peer, first_id in zip(bundle.peers[lo:hi], bundle.first_ids[lo:hi], strict=True):
            end = at + nbytes
            send(peer, b"".join((_REPLY_START, first_id.to_bytes(8, "little"), head, rows[at:end])))
            at = end

    def _reply_general(
        self,
        part: Slice,
        template: ReplyTemplate,
        outputs: Sequence[Array],
        row: int,
        queue_us: int,
        compute_us: int,
    ) -> None:
        bundle, lo, hi = part
        at = row
        for peer, first_id, count, start in bundle.messages(lo, hi):
            rows = [1] * count if bundle.rows is None else bundle.rows[start : start + count]
            try:
                self._send_framed(peer, first_id, rows, template, outputs, at, queue_us, compute_us)
                self.counters.replies += count
            except InvalidArgumentError as error:  # an element that is no string: the model's fault
                self.counters.errors += count
                message = f"the model's output cannot be sent: {error.message}"
                self.send(peer, build_error(first_id, count, StatusCode.INTERNAL, message))
            at += sum(rows)

    def _send_framed(
        self,
        peer: bytes,
        first_id: int,
        rows: list[int],
        template: ReplyTemplate,
        outputs: Sequence[Array],
        at: int,
        queue_us: int,
        compute_us: int,
    ) -> None:
        layout = template.layout
        end = at + sum(rows)
        frames = build_message(
            Kind.REPLY,
            first_id=first_id,
            count=len(rows),
            layout=layout,
            header=template.header,
            rows=rows,
            payloads=[payload_of(output[at:end] if layout.rows else output) for output in outputs],
            queue_us=queue_us,
            compute_us=compute_us,
        )
        self._outbox.send_frames(peer, frames)

    def fail(self, part: Slice, code: int, message: str) -> None:
        """See :meth:`~.interface.Pump.fail`."""
        self.counters.errors += part.hi - part.lo
        for peer, first_id, count, _ in part.bundle.messages(part.lo, part.hi):
            self.send(peer, build_error(first_id, count, code, message))

    @property
    def holding(self) -> bool:
        """See :attr:`~.interface.Pump.holding`."""
        return self._outbox.holding


def _tail(template: ReplyTemplate, count: int) -> _Tail | None:
    """What is the same in all replies to ``count`` requests of one row each, or to one request of a layout
    without rows; None if not all tensors are inline."""
    try:
        return template.tails[count]
    except KeyError:
        layout, header = template.layout, template.header
        rows = unit_rows(count) if layout.rows else b""
        start = PREFIX_SIZE + len(header) + len(rows)
        tail: _Tail | None = None
        if not layout.place(count, start, INLINE_LIMIT).frames:
            rest = _REPLY_REST.pack(0, count, len(header), 0, INLINE_LIMIT)
            tail = rest, b"".join((header, rows, bytes(aligned(start) - start)))
        if len(template.tails) >= _TAILS_KEPT:
            template.tails.clear()
        template.tails[count] = tail
        return tail


def _inline_tensors(
    row_nbytes: Sequence[int], payloads: Sequence[Buffer], at: int, count: int
) -> list[Buffer]:
    """The tensors of one reply, each but the first padded to its place."""
    parts: list[Buffer] = []
    for index, (nbytes, payload) in enumerate(zip(row_nbytes, payloads, strict=True)):
        if index:
            parts.append(bytes(-len(parts[-1]) % 16))
        parts.append(payload[at * nbytes : (at + count) * nbytes])
    return parts
