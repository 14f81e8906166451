"""Messages that must be refused, each with what must happen."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
from tensorwire.rpc.wire.header import Layout, RequestHeader, TensorHeader, encode_header
from tensorwire.rpc.wire.message import build
from tensorwire.rpc.wire.prefix import PREFIX, PREFIX_SIZE, Kind
from vectors.describe import Json, hex_text

ID = 77
_FIELDS = ("magic", "version", "kind", "flags", "status", "id", "timeout_us", "count", "header_len",
           "extra_len", "inline_limit", "queue_us", "compute_us")  # fmt: skip


def refused(
    name: str,
    description: str,
    frames: Sequence[bytes],
    *,
    error: str | None = None,
    count: int = 1,
    id: int = ID,
    receiver: str = "server",
) -> Json:
    """One vector; ``count`` requests from ``id`` on are answered with the error."""
    if error is None:
        error = "INVALID_ARGUMENT" if receiver == "server" else "failed"
    outcome: Json = {"error": error}
    if error != "dropped":
        outcome |= {"id": str(id), "count": count}
    return {
        "name": name,
        "description": description,
        "receiver": receiver,
        "frames": [hex_text(frame) for frame in frames],
        "outcome": outcome,
    }


def request(inputs: Sequence[tuple[str, str, tuple[int, ...]]], payloads: Sequence[bytes], *,
            rows: Sequence[int] | None = (1,), limit: int = 32_768) -> list[bytes]:  # fmt: skip
    """A valid request to be spoiled."""
    entries = tuple(TensorHeader(*item) for item in inputs)
    shared = rows is not None
    frames = build(
        Kind.REQUEST,
        first_id=ID,
        count=len(rows) if rows is not None else 1,
        layout=Layout(entries, shared),
        header=encode_header(RequestHeader("m", entries, rows=shared)),
        rows=rows,
        payloads=payloads,
        inline_limit=limit,
    )
    return [bytes(frame) for frame in frames]


def small(count: int = 1) -> bytes:
    """A valid head frame: ``count`` requests of one row of two bytes."""
    return request([("x", "uint8", (2,))], [b"\1\2" * count], rows=[1] * count)[0]


def patched(head: bytes, **changes: Any) -> bytes:
    """The head frame with other values in its prefix."""
    fields = dict(zip(_FIELDS, PREFIX.unpack_from(head), strict=True))
    return PREFIX.pack(*(fields | changes).values()) + head[PREFIX_SIZE:]


def raw_request(header: bytes, rest: bytes = b"\1\0\0\0", *, extra: bytes = b"", count: int = 1) -> bytes:
    """A request with the given header bytes."""
    return PREFIX.pack(
        b"TWIR", 1, Kind.REQUEST, 0, 0, ID, 0, count, len(header), len(extra), 32_768, 0, 0
    ) + (header + extra + rest)


def headed(header: Any, rest: bytes = b"\1\0\0\0", **options: Any) -> list[bytes]:
    """A request with the given header."""
    return [raw_request(msgpack.packb(header), rest, **options)]


def malformed() -> Iterator[Json]:
    """malformed.json."""
    yield from prefixes()
    yield from headers()
    yield from shapes()
    yield from extras()
    yield from row_counts()
    yield from tensors()
    yield from control_messages()
    yield from for_clients()


def prefixes() -> Iterator[Json]:
    """The prefix."""
    head = small()
    yield refused("empty", "An empty head frame.", [b""], error="dropped")
    yield refused("no_id", "Too short for an id.", [head[:15]], error="dropped")
    yield refused("wrong_magic", "Not this protocol.", [b"HTTP" + head[4:]], error="dropped")
    yield refused("magic_case", "The magic is exact.", [b"twir" + head[4:]], error="dropped")
    yield refused("noise", "Noise, in three frames.", [b"\xff" * 60, b"", b"\x00"], error="dropped")
    yield refused("only_id", "Ends behind the id.", [head[:16]])
    yield refused("short_prefix", "One byte short of a prefix.", [head[:47]])
    yield refused("version_0", "No such protocol version.", [patched(head, version=0)], error="UNIMPLEMENTED")
    yield refused("version_2", "A later version; of that, only magic, version and id can be relied on.",
                  [patched(small(3), version=2)], error="UNIMPLEMENTED")  # fmt: skip
    yield refused("kind_0", "No such kind.", [patched(head, kind=0)])
    yield refused("kind_99", "No such kind.", [patched(head, kind=99)])
    yield refused("kind_reply", "Servers take no REPLY.", [patched(head, kind=2)])
    yield refused("kind_error", "Servers take no ERROR.", [patched(head, kind=3)])
    yield refused("kind_pong", "Servers take no PONG.", [patched(head, kind=6)])
    yield refused("kind_control_reply", "Servers take no CONTROL_REPLY.", [patched(head, kind=8)])
    yield refused("count_0", "No requests.", [patched(head, count=0)])
    yield refused("count_65537", "Too many requests.", [patched(head, count=65_537)])
    yield refused("ids_overflow", "The second request has no id.", [patched(small(2), id=2**64 - 1)],
                  id=2**64 - 1)  # fmt: skip
    yield refused(
        "header_behind_end", "The header is longer than the frame.", [patched(head, header_len=9999)]
    )
    yield refused("header_over_limit", "A header of 65537 bytes.",
                  [patched(head, header_len=65_537) + bytes(70_000)])  # fmt: skip
    yield refused("header_len_largest", "Lengths are unsigned.", [patched(head, header_len=2**32 - 1)])
    yield refused("extra_behind_end", "The extra is longer than the frame.", [patched(head, extra_len=9999)])
    yield refused("extra_over_limit", "An extra of 65537 bytes.",
                  [patched(head, extra_len=65_537) + bytes(70_000)])  # fmt: skip


def headers() -> Iterator[Json]:
    """The header's msgpack."""
    good = {"model": "m", "inputs": []}
    yield refused("header_empty", "No header.", [raw_request(b"")])
    yield refused("header_not_msgpack", "0xc1 is never used in msgpack.", [raw_request(b"\xc1")])
    yield refused("header_truncated", "Half a header.", [raw_request(msgpack.packb(good)[:-1])])
    yield refused("header_trailing", "A byte behind the map.", [raw_request(msgpack.packb(good) + b"\xc0")])
    yield refused("header_array", "An array in the map's place.", headed(["m", []]))
    yield refused("header_deep", "Nested 30000 deep.",
                  [raw_request(b"\x83" + msgpack.packb("later") + b"\x91" * 30_000 + b"\xc0")])  # fmt: skip
    yield refused("header_claims_much", "An array that says it has 4294967295 elements.",
                  [raw_request(b"\x82" + msgpack.packb("model") + b"\xa1m" + msgpack.packb("inputs")
                               + b"\xdd\xff\xff\xff\xff")])  # fmt: skip
    yield refused("model_missing", "No model.", headed({"inputs": []}))
    yield refused("inputs_missing", "No inputs.", headed({"model": "m"}))
    yield refused("model_number", "The model is no string.", headed({**good, "model": 7}))
    yield refused("model_nil", "The model is nil.", headed({**good, "model": None}))
    yield refused("model_not_utf8", "The model's name is not UTF-8.",
                  [raw_request(b"\x82" + msgpack.packb("model") + b"\xa1\xff" + msgpack.packb("inputs")
                               + b"\x90")])  # fmt: skip
    yield refused("version_string", "The version is no integer.", headed({**good, "version": "3"}))
    yield refused("version_float", "The version is no integer.", headed({**good, "version": 3.5}))
    yield refused("version_negative", "Versions begin at 0.", headed({**good, "version": -1}))
    yield refused("version_too_large", "Versions end at 4294967295.", headed({**good, "version": 2**32}))
    yield refused("rows_number", "rows is no boolean.", headed({**good, "rows": 1}))
    yield refused("outputs_string", "outputs is no array.", headed({**good, "outputs": "y"}))
    yield refused("fused_header_refused", "All requests of a malformed envelope are answered.",
                  headed({"model": "m"}, b"\1\0\0\0" * 3, count=3), count=3)  # fmt: skip


def shapes() -> Iterator[Json]:
    """The header's tensors."""

    def inputs(*items: Any) -> list[bytes]:
        return headed({"model": "m", "inputs": list(items)})

    yield refused("tensor_map", "A tensor is an array.", inputs({"name": "x", "dtype": "uint8", "shape": []}))
    yield refused("tensor_short", "A tensor without a shape.", inputs(["x", "uint8"]))
    yield refused("dtype_unknown", "No such dtype.", inputs(["x", "float31", []]))
    yield refused("dtype_case", "Dtypes are lower case.", inputs(["x", "Float32", []]))
    yield refused(
        "dtype_object", "NumPy's objects are no dtype of the protocol.", inputs(["x", "object", []])
    )
    yield refused("names_repeat", "Two tensors of one name.", inputs(["x", "uint8", [0]], ["x", "int8", [0]]))
    yield refused("dim_negative", "No dimension is negative.", inputs(["x", "uint8", [-1]]))
    yield refused("dim_float", "No dimension is a float.", inputs(["x", "uint8", [1.0]]))
    yield refused("dim_nil", "No dimension is open.", inputs(["x", "uint8", [None]]))
    yield refused("dim_too_large", "A dimension over 2**48.", inputs(["x", "uint8", [2**48 + 1]]))
    yield refused("shape_too_large", "2**49 bytes.", inputs(["x", "float64", [2**23, 2**23]]))
    yield refused("shape_overflows", "2**80 bytes, which is 65536 modulo 2**64.",
                  inputs(["x", "uint8", [2**40, 2**40]]))  # fmt: skip
    yield refused("shape_zero_large", "No bytes, but too large with its zero taken as one.",
                  inputs(["x", "uint8", [0, 2**40, 2**40]]))  # fmt: skip
    yield refused("rank_32", "More than 31 dimensions.", inputs(["x", "uint8", [1] * 32]))
    yield refused("tensors_257", "More than 256 tensors.",
                  inputs(*([str(index), "uint8", [0]] for index in range(257))))  # fmt: skip


def extras() -> Iterator[Json]:
    """The extra part."""

    def with_extra(extra: bytes) -> list[bytes]:
        return headed({"model": "m", "inputs": []}, extra=extra)

    yield refused("extra_not_msgpack", "0xc1 is never used in msgpack.", with_extra(b"\xc1"))
    yield refused("extra_trailing", "A byte behind the map.", with_extra(b"\x80\xc0"))
    yield refused("extra_array", "An array in the map's place.", with_extra(b"\x90"))
    yield refused("priority_unknown", "No such priority.", with_extra(msgpack.packb({"priority": 2})))
    yield refused("priority_negative", "No such priority.", with_extra(msgpack.packb({"priority": -1})))
    yield refused(
        "trace_number", "trace maps strings to strings.", with_extra(msgpack.packb({"trace": {"a": 1}}))
    )
    yield refused("metadata_array", "metadata is a map.", with_extra(msgpack.packb({"metadata": []})))


def row_counts() -> Iterator[Json]:
    """Row counts."""
    header = {"model": "m", "inputs": [["x", "uint8", [0]]]}
    yield refused("rows_missing", "No row count.", headed(header, b""))
    yield refused("rows_short", "One and a half row counts for two requests.",
                  headed(header, b"\1\0\0\0\1\0", count=2), count=2)  # fmt: skip
    head = small()
    at = PREFIX_SIZE + PREFIX.unpack_from(head)[8]
    two = head[:at] + b"\2\0\0\0" + head[at + 4 :]
    yield refused("rows_disagree", "The rows say two, the tensor has one.", [two])
    yield refused("no_rows_fused", "Two requests that have no rows in common.",
                  headed({**header, "rows": False}, b"", count=2), count=2)  # fmt: skip
    wide = {"model": "m", "inputs": [["x", "uint8", [0, 2**24]]]}
    gap = bytes(-(PREFIX_SIZE + len(msgpack.packb(wide)) + 4) % 16)
    yield refused("rows_too_many", "2**32 - 1 rows: 2**56 bytes, if the zero in the shape were a one.",
                  headed(wide, b"\xff\xff\xff\xff" + gap))  # fmt: skip


def _gap() -> int:
    """Padding in front of the tensor of :func:`small`."""
    head = small()
    header_len = PREFIX.unpack_from(head)[8]
    return len(head) - 2 - (PREFIX_SIZE + header_len + 4)


def tensors() -> Iterator[Json]:
    """Tensors and frames."""
    head = small()
    yield refused("inline_short", "The inline tensor lacks a byte.", [head[:-1]])
    yield refused("inline_long", "A byte behind the inline tensor.", [head + b"\0"])
    yield refused("inline_absent", "Nothing behind the row counts.", [head[: -2 - _gap()]])
    yield refused("frame_too_many", "A frame, where all tensors are inline.", [head, b"\1\2"])
    yield refused("frame_empty_too_many", "An empty frame, where all tensors are inline.", [head, b""])
    framed = request([("a", "uint8", (4,)), ("b", "uint8", (5,))], [b"\1" * 4, b"\2" * 5], limit=2)
    yield refused("frame_missing", "One frame of two.", framed[:2])
    yield refused("frames_missing", "No frame of two.", framed[:1])
    yield refused("frames_300", "300 frames for two tensors.", framed[:1] + [b"\1"] * 300)
    yield refused("frames_swapped", "Frames in the wrong order have the wrong lengths.",
                  [framed[0], framed[2], framed[1]])  # fmt: skip
    yield refused("frame_short", "A frame lacks a byte.", [*framed[:2], framed[2][:-1]])
    yield refused("frame_long", "A frame has a byte too many.", [*framed[:2], framed[2] + b"\0"])
    yield refused("framed_and_inline", "A framed tensor that is inline as well.",
                  [framed[0] + b"\1" * 4, *framed[1:]])  # fmt: skip
    fused = request([("a", "uint8", (4,))], [b"\1" * 8], rows=[1, 1], limit=2)
    yield refused("fused_frame_short", "All requests of the envelope are answered.",
                  [fused[0], fused[1][:-1]], count=2)  # fmt: skip
    scalar = request([("a", "float32", ())], [b"\0\0\0\0"], rows=None)
    yield refused("scalar_short", "A 0-d tensor lacks a byte.", [scalar[0][:-1]])
    yield from varlen()


def varlen() -> Iterator[Json]:
    """Elements of variable length."""
    good = request([("s", "string", (2,))], [struct.pack("<2I", 1, 2) + b"abc"])[0]
    yield refused("varlen_no_frame", "Elements of variable length always have a frame.", [good])
    yield refused("varlen_no_lengths", "Not even the lengths.", [good, b"\1\0\0\0\1\0\0"])
    yield refused("varlen_short", "The lengths say three bytes, two are there.",
                  [good, struct.pack("<2I", 1, 2) + b"ab"])  # fmt: skip
    yield refused("varlen_long", "The lengths say three bytes, four are there.",
                  [good, struct.pack("<2I", 1, 2) + b"abcd"])  # fmt: skip
    yield refused("varlen_overflows", "Lengths that add up to 2**32 + 1.",
                  [good, struct.pack("<2I", 2**32 - 1, 2) + b"a"])  # fmt: skip
    yield refused("varlen_not_utf8", "A string that is not UTF-8.",
                  [good, struct.pack("<2I", 1, 1) + b"a\xff"])  # fmt: skip
    yield refused("varlen_split_character", "Every element by itself is UTF-8.",
                  [good, struct.pack("<2I", 1, 1) + "\u00e9".encode()])  # fmt: skip
    yield refused("varlen_many", "2**40 elements in a few bytes.",
                  [*headed({"model": "m", "inputs": [["s", "bytes", [2**40]]]}), b"\0\0\0\0"])  # fmt: skip


def control_messages() -> Iterator[Json]:
    """Messages without tensors."""

    def control(kind: int, body: bytes = b"", extra: int = 0) -> bytes:
        return PREFIX.pack(b"TWIR", 1, kind, 0, 0, ID, 0, 1, len(body), extra, 0, 0, 0) + body

    yield refused("ping_frames", "A PING is one frame.", [control(5), b""])
    yield refused("ping_long", "A byte behind the PING.", [control(5) + b"\0"])
    yield refused("cancel_long", "A byte behind the CANCEL.", [control(4) + b"\0"])
    yield refused("control_short", "A CONTROL that lacks a byte.", [control(7, b"\x80")[:-1]])
    yield refused("control_empty", "A CONTROL without a call.", [control(7)])
    yield refused("control_array", "A call is a map.", [control(7, b"\x90")])
    yield refused("control_no_method", "A call has a method.", [control(7, msgpack.packb({"params": {}}))])
    yield refused("control_params_array", "params is a map.",
                  [control(7, msgpack.packb({"method": "health", "params": []}))])  # fmt: skip


def for_clients() -> Iterator[Json]:
    """What a client may get from a server that is wrong."""

    def reply(header: Any, rest: bytes = b"\1\0\0\0", count: int = 1) -> list[bytes]:
        raw = msgpack.packb(header)
        return [PREFIX.pack(b"TWIR", 1, 2, 0, 0, ID, 0, count, len(raw), 0, 32_768, 0, 0) + raw + rest]

    good = {"model": "m", "version": 1, "outputs": []}
    yield refused("reply_short_prefix", "Less than a prefix.", [reply(good)[0][:20]], receiver="client")
    yield refused("reply_header", "The header is not a map.", reply([]), receiver="client")
    yield refused("reply_no_version", "Every reply names its version.", reply({"model": "m", "outputs": []}),
                  receiver="client")  # fmt: skip
    yield refused(
        "reply_long", "A byte behind the row counts.", reply(good, b"\1\0\0\0\0"), receiver="client"
    )
    yield refused("reply_frames", "A frame too many.", [*reply(good), b""], receiver="client")
    yield refused("reply_fused", "The answers to all of the envelope's requests are lost.",
                  reply(good, b"\1\0\0\0", count=2), count=2, receiver="client")  # fmt: skip
    yield refused("reply_dropped", "No id to find a call by.", [b"TWI"], error="dropped", receiver="client")
