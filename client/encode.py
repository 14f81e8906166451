"""Calls as messages: what the bytes of an envelope are. Equal to what ``wire.message.build`` gives."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy.typing as npt

from ..rpc.wire.message import INLINE_LIMIT, Buffer, build
from ..rpc.wire.prefix import MAGIC, PREFIX_SIZE, VERSION, Kind, aligned
from .pending import ID_BITS, Envelope
from .requests import Template

Array = npt.NDArray[Any]

_REQUEST: Final = int(Kind.REQUEST)
_REQUEST_START: Final = MAGIC + bytes((VERSION, _REQUEST, 0, 0))
#: The prefix behind the id: timeout_us, count and the lengths, up to queue_us and compute_us.
_REQUEST_REST: Final = struct.Struct("<QIIIIII")
#: A client that varies its timeouts costs encoding, never memory.
_TAILS_KEPT: Final = 16
#: Timeouts that do not fit are as good as none.
_MAX_TIMEOUT: Final = 1e12
_unit_rows: dict[tuple[int, int], bytes] = {}


def timeout_us(timeout: float | None) -> int:
    """A timeout in seconds as on the wire: microseconds, 0 for none, at least 1 otherwise."""
    if timeout is None or timeout >= _MAX_TIMEOUT:
        return 0
    return max(1, int(timeout * 1e6))


def rows_of(rows: int, count: int) -> bytes:
    """The row counts of so many requests that have as many rows each."""
    key = (rows, count)
    found = _unit_rows.get(key)
    if found is None:
        if len(_unit_rows) > 8192:
            _unit_rows.clear()
        found = _unit_rows[key] = rows.to_bytes(4, "little") * count
    return found


def tail_of(template: Template, timeout: float | None) -> bytes:
    """See :attr:`Template.tails`.

    Raises:
        ValueError, OverflowError: the timeout cannot be sent.
    """
    tail = template.tails.get(timeout)
    if tail is None:
        tail = _tail(template, timeout)
        if len(template.tails) >= _TAILS_KEPT:
            template.tails.clear()
        template.tails[timeout] = tail
    return tail


def _tail(template: Template, timeout: float | None) -> bytes:
    layout = template.layout
    if not layout.rows or len(layout.names) != 1 or not template.plain:
        return b""
    header, extra = template.header, template.extra
    start = PREFIX_SIZE + len(header) + len(extra) + 4
    rest = _REQUEST_REST.pack(timeout_us(timeout), 1, len(header), len(extra), INLINE_LIMIT, 0, 0)
    rows = template.rows.to_bytes(4, "little")
    gap = aligned(start) - start if template.nbytes <= INLINE_LIMIT else 0
    return b"".join((rest, header, extra, rows, bytes(gap)))


def encode(envelope: Envelope) -> Sequence[Buffer]:
    """The frames of an envelope that has its number.

    Raises:
        InvalidArgumentError: an element of a bytes or string tensor cannot be sent.
    """
    template: Template = envelope.template
    arrays: list[Array] = envelope.arrays
    count = len(envelope.calls)
    if template.nbytes * count <= INLINE_LIMIT or count == 1:
        tail = tail_of(template, envelope.timeout)
        if tail and all(array.flags.c_contiguous for array in arrays):
            return _encode_plain(envelope, tail)
    per_call = len(template.layout.names)
    payloads: list[Any] = []
    for index in range(per_call):
        column = arrays[index::per_call]
        payloads.append(template.payloads(column)[0] if count == 1 else b"".join(template.payloads(column)))
    return build(
        Kind.REQUEST,
        first_id=envelope.number << ID_BITS,
        count=count,
        layout=template.layout,
        header=template.header,
        extra=template.extra,
        rows=[template.rows] * count,
        payloads=payloads,
        timeout_us=timeout_us(envelope.timeout),
    )


def _encode_plain(envelope: Envelope, tail: bytes) -> Sequence[Buffer]:
    """One call, or several whose tensors fit into the head frame; see :attr:`Template.tails`."""
    template: Template = envelope.template
    count = len(envelope.calls)
    begin = _REQUEST_START + (envelope.number << ID_BITS).to_bytes(8, "little")
    if count == 1:
        tensor: Any = envelope.arrays[0]
        if template.nbytes <= INLINE_LIMIT:
            return (b"".join((begin, tail, tensor)),)
        return begin + tail, memoryview(tensor).cast("B")
    # Between the timeout and the row counts only the number of requests differs.
    meta = PREFIX_SIZE - len(begin) + len(template.header) + len(template.extra)
    start = len(begin) + meta + 4 * count
    parts: list[Any] = [begin, tail[:8], count.to_bytes(4, "little"), tail[12:meta]]
    parts += (rows_of(template.rows, count), bytes(aligned(start) - start), *envelope.arrays)
    return (b"".join(parts),)
