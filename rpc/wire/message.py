"""Whole messages: frames in, typed values out, and back. No I/O.

The pump and the clients have shortcuts for their commonest messages; what they write equals what
:func:`build` writes, byte for byte (the tests compare them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import ProtocolError, StatusCode, UnimplementedError
from ..types import OBJECT_DTYPE
from .extra import ErrorBody, encode_body
from .header import Layout
from .prefix import (
    ANSWERABLE_SIZE,
    COUNT_SPAN,
    MAGIC,
    MAX_COUNT,
    MAX_EXTRA,
    MAX_HEADER,
    MAX_ID,
    PREFIX,
    PREFIX_SIZE,
    U32_MAX,
    VERSION,
    Kind,
    Prefix,
)
from .varlen import decode_varlen, encode_varlen

Buffer = bytes | bytearray | memoryview
Array = npt.NDArray[Any]

#: Tensors of more bytes than this travel as frames of their own. docs/decisions/0003 has the measurement.
INLINE_LIMIT: Final = 65_536

_ROW_COUNT: Final = np.dtype("<u4")


def read_prefix(head: Buffer) -> Prefix:
    """The validated prefix of a head frame.

    Raises:
        UnimplementedError: another protocol version.
        ProtocolError: too short, wrong magic, or lengths that exceed the limits or the frame.
    """
    if len(head) < PREFIX_SIZE:
        raise ProtocolError(f"head frame has {len(head)} bytes; a prefix alone has {PREFIX_SIZE}")
    magic, version, *fields = PREFIX.unpack_from(head)
    if magic != MAGIC:
        raise ProtocolError(f"magic is {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise UnimplementedError(f"protocol version {version} is not supported; this peer speaks {VERSION}")
    prefix = Prefix(*fields)
    # The body of a control call or result stands in the header's place and is not interned.
    interned = prefix.kind in (Kind.REQUEST, Kind.REPLY)
    if (interned and prefix.header_len > MAX_HEADER) or prefix.extra_len > MAX_EXTRA:
        raise ProtocolError(
            f"header of {prefix.header_len} and extra of {prefix.extra_len} bytes; at most {MAX_HEADER} each"
        )
    if PREFIX_SIZE + prefix.header_len + prefix.extra_len > len(head):
        raise ProtocolError(
            f"header and extra of {prefix.header_len} + {prefix.extra_len} bytes do not fit "
            f"into a head frame of {len(head)}"
        )
    if not 1 <= prefix.count <= MAX_COUNT:
        raise ProtocolError(f"count is {prefix.count}, expected 1 to {MAX_COUNT}")
    if prefix.id + prefix.count - 1 > MAX_ID:
        raise ProtocolError(f"{prefix.count} requests from id {prefix.id} on exceed the largest id {MAX_ID}")
    return prefix


def answerable_ids(head: Buffer) -> tuple[int, int] | None:
    """First id and number of the requests of a head frame that may be malformed otherwise.

    None if there is no id to answer to. One request, if the frame ends before the count, the count cannot
    be right, or another protocol version may have it elsewhere.
    """
    if len(head) < ANSWERABLE_SIZE or bytes(head[:4]) != MAGIC:
        return None
    first_id = int.from_bytes(head[8:16], "little")
    count = int.from_bytes(head[slice(*COUNT_SPAN)], "little")
    whole = len(head) >= PREFIX_SIZE and head[4] == VERSION
    if whole and 1 <= count <= MAX_COUNT and first_id + count - 1 <= MAX_ID:
        return first_id, count
    return first_id, 1


def read_rows(head: Buffer, prefix: Prefix, layout: Layout) -> tuple[list[int] | None, int, int]:
    """Row counts of a REQUEST or REPLY.

    Returns:
        Rows per request (None where the layout has none), their sum (1 then), and the offset behind them.

    Raises:
        ProtocolError: the frame is too short, or several requests have a layout without rows.
    """
    offset = PREFIX_SIZE + prefix.header_len + prefix.extra_len
    if not layout.rows:
        if prefix.count != 1:
            raise ProtocolError(f"{prefix.count} requests in one message, but their tensors share no rows")
        return None, 1, offset
    end = offset + 4 * prefix.count
    if end > len(head):
        raise ProtocolError(f"head frame of {len(head)} bytes has no room for {prefix.count} row counts")
    if prefix.count == 1:
        total = int.from_bytes(head[offset:end], "little")
        return [total], total, end
    counts = np.frombuffer(head, dtype=_ROW_COUNT, count=prefix.count, offset=offset)
    return counts.tolist(), int(counts.sum(dtype=np.int64)), end


def read_tensors(
    head: Buffer, frames: Sequence[Buffer], layout: Layout, total_rows: int, start: int, inline_limit: int
) -> list[Array]:
    """The message's tensors, as views of ``head`` and ``frames`` (no copy) wherever that is possible.

    Args:
        total_rows: sum of the row counts; leading dimension of every tensor if the layout has rows.
        start: offset behind the row counts.

    Raises:
        ProtocolError: lengths or the number of frames do not add up.
    """
    slices, end, wanted_frames = layout.place(total_rows, start, inline_limit)
    if len(frames) != wanted_frames:
        raise ProtocolError(f"{len(frames)} tensor frames arrived, the header describes {wanted_frames}")
    if len(head) != end:
        raise ProtocolError(f"head frame has {len(head)} bytes, its contents add up to {end}")
    tensors: list[Array] = []
    framed = iter(frames)
    for index, place in enumerate(slices):
        elements = layout.row_elements[index] * total_rows
        if place is None:
            flat = _framed_tensor(next(framed), layout, index, elements)
        else:
            flat = np.frombuffer(head, dtype=layout.dtypes[index], count=elements, offset=place.start)
        shape = (total_rows, *layout.shapes[index]) if layout.rows else layout.shapes[index]
        tensors.append(flat.reshape(shape))
    return tensors


def _framed_tensor(frame: Buffer, layout: Layout, index: int, elements: int) -> Array:
    dtype = layout.dtypes[index]
    if dtype == OBJECT_DTYPE:
        return decode_varlen(memoryview(frame), elements, layout.dtype_names[index])
    nbytes = elements * dtype.itemsize
    if len(frame) != nbytes:
        raise ProtocolError(
            f"tensor {layout.names[index]!r} has {len(frame)} bytes, its shape and dtype need {nbytes}"
        )
    return np.frombuffer(frame, dtype=dtype, count=elements)


def payload_of(array: Array) -> Buffer:
    """A tensor's bytes as they travel: little-endian, row-major; a view where the array is that already."""
    if array.dtype == OBJECT_DTYPE or array.dtype.kind in "SU":
        return encode_varlen(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not _LITTLE):
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.nbytes <= _COPIED_NBYTES:
        return array.tobytes()
    # ml_dtypes' types do not export a buffer under their own name, bytes always do.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


_LITTLE: Final = np.dtype("<u2").isnative
#: Copying so few bytes takes less time than making a view of them.
_COPIED_NBYTES: Final = 4096


def build(
    kind: Kind,
    *,
    first_id: int,
    count: int = 1,
    layout: Layout | None = None,
    header: bytes = b"",
    extra: bytes = b"",
    rows: Sequence[int] | None = None,
    payloads: Sequence[Buffer] = (),
    timeout_us: int = 0,
    status: int = 0,
    inline_limit: int = INLINE_LIMIT,
    queue_us: int = 0,
    compute_us: int = 0,
) -> list[Buffer]:
    """The frames of one message: the head frame, then one frame per tensor that is not inline.

    Args:
        rows: rows per request, where ``layout`` has rows.
        payloads: one per tensor of ``layout``, from :func:`payload_of`, all requests concatenated.
    """
    prefix = Prefix(
        kind,
        0,
        status,
        first_id,
        timeout_us,
        count,
        len(header),
        len(extra),
        inline_limit,
        min(queue_us, U32_MAX),
        min(compute_us, U32_MAX),
    )
    parts: list[Buffer] = [prefix.pack(), header, extra]
    frames: list[Buffer] = []
    if layout is not None:
        total = 1
        if layout.rows:
            counts = np.array(rows, dtype=_ROW_COUNT)
            total = int(counts.sum(dtype=np.int64))
            parts.append(counts.tobytes())
        at = sum(map(len, parts))
        for place, payload in zip(layout.place(total, at, inline_limit).slices, payloads, strict=True):
            if place is None:
                frames.append(payload)
            else:
                parts += (bytes(place.start - at), payload)
                at = place.stop
    return [b"".join(parts), *frames]


def build_error(first_id: int, count: int, code: int, message: str) -> bytes:
    """The single frame of an ERROR for ``count`` consecutive requests.

    Codes that do not fit into a byte, and OK, become UNKNOWN: they come from a model's own exceptions.
    """
    # An over-long message would be refused as an over-long extra; nobody reads more than this anyway.
    text = message[:4096]
    try:
        body = encode_body(ErrorBody(text))
    except UnicodeEncodeError:  # lone surrogates, as in the name of a file that is not UTF-8
        body = encode_body(ErrorBody(text.encode(errors="replace").decode()))
    if not 0 < code <= 255:
        code = StatusCode.UNKNOWN
    return Prefix(Kind.ERROR, 0, code, first_id, 0, count, 0, len(body), 0, 0, 0).pack() + body


def build_control(
    kind: Kind, request_id: int, body: bytes = b"", *, timeout_us: int = 0, count: int = 1
) -> bytes:
    """The single frame of a CONTROL, CONTROL_REPLY, PING, PONG or CANCEL."""
    return Prefix(kind, 0, StatusCode.OK, request_id, timeout_us, count, len(body), 0, 0, 0, 0).pack() + body
