"""Valid messages of every kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
from tensorwire.rpc.errors import StatusCode
from tensorwire.rpc.types import BYTES, FIXED_DTYPES, STRING
from tensorwire.rpc.wire.extra import ControlCall, Extra, encode_body
from tensorwire.rpc.wire.message import build_control, build_error
from tensorwire.rpc.wire.prefix import PREFIX, PREFIX_SIZE, Kind, Prefix
from vectors.describe import Json, Tensor, entry, other_bytes, plain, prefix_of, tensor_message, with_header

_VALUES: dict[str, list[Any]] = {
    "bool": [True, False, True],
    "int8": [-128, 0, 127],
    "int16": [-32768, 0, 32767],
    "int32": [-(2**31), 0, 2**31 - 1],
    "int64": [-(2**53), 0, 2**53],
    "uint8": [0, 1, 255],
    "uint16": [0, 1, 65535],
    "uint32": [0, 1, 2**32 - 1],
    "uint64": [0, 1, 2**53],
    "complex64": [1 + 2j, -0.5j, 0],
    "complex128": [1 + 2j, -0.5j, 0],
    "float8_e8m0fnu": [0.5, 1.0, 4.0],
    BYTES: [b"", b"\x00\xff", b"abc"],
    STRING: ["", "h\u00e9llo", "\u6f22\U0001f600"],
}


def requests() -> Iterator[Json]:
    """requests.json."""
    row = Tensor("x", "float32", [1, 2], [1.5, -2.0])
    yield tensor_message(
        "single", "One request of one row, one small tensor.", [row], id=7, timeout_us=250_000
    )
    yield tensor_message(
        "single_several_rows", "One request of three rows.", [Tensor("x", "int16", [3, 2])], rows=[3]
    )
    yield tensor_message(
        "fused",
        "Three requests, ids 10 to 12, of one row each.",
        [Tensor("x", "float32", [3, 2])],
        id=10,
        rows=[1, 1, 1],
        timeout_us=1,
    )
    yield tensor_message(
        "fused_uneven",
        "Requests of 2, 0 and 1 rows with two tensors.",
        [Tensor("a", "uint8", [3, 3]), Tensor("b", "int64", [3])],
        rows=[2, 0, 1],
    )
    for dtype in [*FIXED_DTYPES, BYTES, STRING]:
        values = _VALUES.get(dtype, [-1.5, 0.0, 2.0] if "fnuz" not in dtype else [-1.5, 0.0, 1.0])
        yield tensor_message(
            f"dtype_{dtype}", f"Three rows of {dtype}.", [Tensor("x", dtype, [3], values)], rows=[3]
        )
    yield from request_places()
    yield from request_headers()
    yield from request_extras()
    yield from request_foreign()


def request_places() -> Iterator[Json]:
    """Where tensors lie."""
    yield tensor_message(
        "inline_aligned",
        "Inline tensors begin at multiples of 16 from the start of the head frame; the gaps are zero.",
        [Tensor("a", "uint8", [1, 3]), Tensor("b", "uint16", [1, 9]), Tensor("c", "bool", [1])],
    )
    yield tensor_message(
        "limit_boundary",
        "inline_limit 16: 16 bytes are inline, 17 have their own frame.",
        [Tensor("a", "uint8", [1, 16]), Tensor("b", "uint8", [1, 17])],
        limit=16,
    )
    yield tensor_message(
        "mixed_order",
        "Frames follow in the order of the framed tensors; inline tensors stand between them in the header.",
        [Tensor(n, "uint8", [1, size]) for n, size in (("a", 5), ("b", 2), ("c", 4), ("d", 1))],
        limit=3,
    )
    yield tensor_message(
        "limit_zero",
        "inline_limit 0: every tensor that is not empty has its own frame.",
        [Tensor("a", "int8", [1, 1]), Tensor("b", "float64", [1, 0])],
        limit=0,
    )
    yield tensor_message(
        "limit_counts_all_rows",
        "The limit is compared with the tensor of the whole message: 2 requests of 8 bytes, limit 15.",
        [Tensor("a", "int64", [2])],
        rows=[1, 1],
        limit=15,
    )
    yield tensor_message("empty_rows", "A request of no rows.", [Tensor("x", "float32", [0, 4])], rows=[0])
    yield tensor_message(
        "empty_tensor",
        "Two rows of empty tensors: no bytes, but padding as before any inline tensor.",
        [Tensor("a", "float32", [2, 0, 3]), Tensor("b", "uint8", [2])],
        rows=[2],
    )
    yield tensor_message("no_tensors", "A model without inputs; the row count is there all the same.", [])
    yield tensor_message(
        "no_rows",
        "Tensors without a common first axis: whole shapes, no row counts.",
        [Tensor("a", "float32", [2, 2]), Tensor("b", "int32", [3])],
        rows=None,
    )
    yield tensor_message(
        "zero_dimensional", "0-d tensors have the shape [].", [Tensor("a", "float64", [], [0.25])], rows=None
    )
    yield tensor_message(
        "no_rows_framed",
        "Without rows, with a frame.",
        [Tensor("a", "uint8", [2, 3]), Tensor("b", "int8", [])],
        rows=None,
        limit=4,
    )
    yield tensor_message(
        "varlen_fused",
        "Elements of variable length, two requests of 2 and 1 rows of 2 elements.",
        [Tensor("s", STRING, [3, 2], ["a", "", "ccc", "\u00e9", "e", "ff"]), Tensor("n", "uint8", [3])],
        rows=[2, 1],
    )
    yield tensor_message(
        "varlen_empty", "No elements: the frame is there and empty.", [Tensor("b", BYTES, [0])], rows=[0]
    )
    yield tensor_message(
        "varlen_zero_dimensional", "One element.", [Tensor("b", BYTES, [], [b"\x00one"])], rows=None
    )


def request_headers() -> Iterator[Json]:
    """Keys of the header."""
    x = Tensor("x", "uint8", [1])
    yield tensor_message("version", "A version by number.", [x], version=4_294_967_295)
    yield tensor_message("label", "A version by label.", [x], label="canary")
    yield tensor_message("outputs", "Some outputs, in this order.", [x], outputs=("b", "a"))
    yield tensor_message(
        "names", "Names are UTF-8.", [Tensor("\u00e9/x:0", "uint8", [1])], model="mod\u00e8le"
    )
    yield tensor_message(
        "rank_31", "The largest number of dimensions in a header.", [Tensor("x", "uint8", [1] * 32)]
    )
    yield tensor_message("largest_id", "The largest id and timeout.", [x], id=2**64 - 1, timeout_us=2**64 - 1)


def request_extras() -> Iterator[Json]:
    """Keys of the extra part."""
    x = Tensor("x", "uint8", [1])
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
    yield tensor_message("priority", "High priority.", [x], extra=Extra(priority=1))
    yield tensor_message("routing_key", "A routing key.", [x], extra=Extra(routing_key=b"user\x00\xff"))
    yield tensor_message("trace", "W3C trace context.", [x], extra=Extra(trace=trace))
    yield tensor_message(
        "metadata",
        "Metadata of the user, with a framed tensor.",
        [Tensor("x", "uint8", [1, 5])],
        extra=Extra(metadata={"tenant": "t1", "n": -3, "list": [1.5, None, True], "raw": b"\x01"}),
        limit=4,
    )
    yield tensor_message("extra_empty", "An empty map is as good as none.", [x], extra=Extra())


def request_foreign() -> Iterator[Json]:
    """Bytes that this library would not write and everyone has to read."""
    plain_one = tensor_message("", "", [Tensor("x", "uint8", [1], [9])], version=2)
    header = {"rows": True, "version": 2, "outputs": None, "inputs": [["x", "uint8", []]], "model": "m"}
    start = 48 + len(msgpack.packb(header)) + 4
    tail = (1).to_bytes(4, "little") + bytes(-start % 16) + b"\x09"
    vector = other_bytes(
        plain_one,
        "header_other_order",
        "Keys in another order; keys that have their default value.",
        lambda head: with_header(head, msgpack.packb(header), tail),
    )
    yield {**vector, "message": {**vector["message"], "header": header}}
    future = {"model": "m", "inputs": [["x", "uint8", [], "later"]], "version": 2, "later": {"a": [1]}}
    start = 48 + len(msgpack.packb(future)) + 4
    future_tail = (1).to_bytes(4, "little") + bytes(-start % 16) + b"\x09"
    vector = other_bytes(
        plain_one,
        "header_unknown_keys",
        "Unknown keys, and unknown elements behind a tensor's shape, are ignored.",
        lambda head: with_header(head, msgpack.packb(future), future_tail),
    )
    yield {**vector, "message": {**vector["message"], "header": future}}
    yield other_bytes(
        plain_one, "unknown_flags", "Flags are ignored.", lambda head: head[:6] + b"\xa5\x63" + head[8:]
    )
    padded = tensor_message("", "", [Tensor("x", "uint8", [1], [9])])
    yield other_bytes(
        padded,
        "padding_not_zero",
        "Senders write zeros into the gaps; receivers do not look.",
        lambda head: head[:-2] + b"\xee" + head[-1:],
    )


def replies() -> Iterator[Json]:
    """replies.json."""

    def reply(name: str, description: str, tensors: Sequence[Tensor], **options: Any) -> Json:
        return tensor_message(name, description, tensors, kind=Kind.REPLY, **options)

    yield reply(
        "single",
        "The answer to one request, with the server's times.",
        [Tensor("y", "float32", [1, 2], [0.5, 0.25])],
        id=7,
        queue_us=120,
        compute_us=3400,
    )
    yield reply(
        "fused",
        "The answers to the ids 10 to 12 in one message.",
        [Tensor("y", "int32", [3]), Tensor("z", "uint8", [3, 2])],
        id=10,
        rows=[1, 1, 1],
        queue_us=2**32 - 1,
        compute_us=2**32 - 1,
    )
    yield reply("partial", "The answers to some of them: 11 and 12.", [Tensor("y", "int32", [2])], id=11,
                rows=[1, 1])  # fmt: skip
    yield reply("uneven", "Requests of 2, 0 and 1 rows.", [Tensor("y", "uint16", [3])], rows=[2, 0, 1])
    yield reply("framed", "A large output.", [Tensor("y", "uint8", [2, 9])], rows=[2], limit=16)
    yield reply(
        "no_rows",
        "Outputs without a common first axis.",
        [Tensor("y", "float64", []), Tensor("z", "int8", [2])],
        rows=None,
    )
    yield reply("strings", "Strings.", [Tensor("y", STRING, [2], ["cat", "\u00e9"])], rows=[1, 1], id=5)
    yield reply("no_outputs", "A model without outputs.", [])
    yield reply("version", "The version that answered.", [Tensor("y", "bool", [1], [True])], version=20240131)
    header = {"later": 1, "outputs": [["y", "uint8", [], 0]], "version": 3, "model": "m"}
    start = 48 + len(msgpack.packb(header)) + 4
    tail = (1).to_bytes(4, "little") + bytes(-start % 16) + b"\x01"
    vector = other_bytes(
        reply("", "", [Tensor("y", "uint8", [1])]),
        "unknown_keys",
        "Unknown keys are ignored.",
        lambda head: with_header(head, msgpack.packb(header), tail),
    )
    yield {**vector, "message": {**vector["message"], "header": header}}


def errors() -> Iterator[Json]:
    """errors.json."""

    def error(name: str, description: str, head: bytes, text: str, canonical: bool = True) -> Json:
        code = head[7]
        known = code in tuple(StatusCode)
        message = {
            **prefix_of(head),
            "status_name": StatusCode(code).name if known else f"CODE_{code}",
            "text": text,
        }
        vector = entry(name, description, [head], message)
        return vector if canonical else {**vector, "decode_only": True}

    for code in StatusCode:
        if code is not StatusCode.OK:
            text = f"what was wrong ({code.name})"
            yield error(f"code_{code.name}", "One request failed.", build_error(3, 1, code, text), text)
    yield error("range", "The ids 20 to 24 failed.", build_error(20, 5, 14, "worker lost"), "worker lost")
    yield error(
        "unknown_code", "A code that is not known yet is preserved.", build_error(1, 1, 99, "later"), "later"
    )
    yield error("largest_code", "The largest code.", build_error(1, 1, 255, "\u00e9"), "\u00e9")

    def raw(body: bytes) -> bytes:
        return Prefix(Kind.ERROR, 0, 5, 4, 0, 1, 0, len(body), 0, 0, 0).pack() + body

    yield error("no_text", "No body at all: the code counts.", raw(b""), "", canonical=False)
    yield error("empty_map", "An empty text is left out.", raw(b"\x80"), "")
    future = msgpack.packb({"details": [1, {"a": None}], "message": "gone"})
    yield error("unknown_keys", "Unknown keys are ignored.", raw(future), "gone", canonical=False)


def controls() -> Iterator[Json]:
    """controls.json."""

    def control(name: str, description: str, frame: bytes) -> Json:
        length = PREFIX.unpack_from(frame)[8]
        body = frame[PREFIX_SIZE : PREFIX_SIZE + length]
        message = {**prefix_of(frame), "body": plain(msgpack.unpackb(body)) if body else None}
        return entry(name, description, [frame], message)

    yield control("cancel", "Give request 7 up.", build_control(Kind.CANCEL, 7))
    yield control("cancel_range", "Give the requests 10 to 12 up.", build_control(Kind.CANCEL, 10, count=3))
    yield control("ping", "Is anybody there?", build_control(Kind.PING, 99))
    yield control("pong", "The answer, with the same id.", build_control(Kind.PONG, 99))
    yield control(
        "control_without_params",
        "A call without parameters, with a timeout.",
        build_control(Kind.CONTROL, 5, encode_body(ControlCall("health")), timeout_us=1_000_000),
    )
    params = {"model": "m", "label": "canary", "version": 3}
    yield control(
        "control_with_params",
        "A call with parameters.",
        build_control(Kind.CONTROL, 6, encode_body(ControlCall("models.label", params))),
    )
    result = {"status": "SERVING", "list": [1, None, True, 2.5, "s", b"\x00"]}
    yield control("control_reply", "A result.", build_control(Kind.CONTROL_REPLY, 6, encode_body(result)))
    yield control("control_reply_nil", "A result of nothing.", build_control(Kind.CONTROL_REPLY, 6, b"\xc0"))
