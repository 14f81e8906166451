"""The test vectors, read by the library, by ``msgpack``, and by a decoder written from the docs alone."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from tensorwire.rpc.errors import ProtocolError, RpcError, StatusCode, code_name, error_from_code
from tensorwire.rpc.pump.intake import Intake
from tensorwire.rpc.types import FIXED_DTYPES
from tensorwire.rpc.wire.extra import ControlCall, decode_control, decode_error, decode_extra, encode_body
from tensorwire.rpc.wire.header import (
    Interner,
    ReplyHeader,
    ReplySignature,
    RequestHeader,
    Signature,
    TensorHeader,
    encode_header,
)
from tensorwire.rpc.wire.message import (
    answerable_ids,
    build,
    build_control,
    build_error,
    payload_of,
    read_prefix,
    read_rows,
    read_tensors,
)
from tensorwire.rpc.wire.prefix import PREFIX_SIZE, Kind
from vectors import describe, generate
from vectors.read import FOLDER, load

Vector = dict[str, Any]

TENSOR_MESSAGES = load("requests", "replies")
ERRORS = load("errors")
CONTROLS = load("controls")
MALFORMED = load("malformed")


def named(vectors: list[Vector]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[f"{v['file']}:{v['name']}" for v in vectors])


def test_the_committed_files_are_what_the_library_writes() -> None:
    for name, text in generate.files().items():
        assert (FOLDER / name).read_text() == text, f"{name} differs: run tests/vectors/generate.py"


# ------------------------------------------------- an independent decoder, after docs/protocol.md

SIZES = {
    **dict.fromkeys(("bool", "int8", "uint8"), 1),
    **dict.fromkeys(("int16", "uint16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("int32", "uint32", "float32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "complex64"), 8),
    "complex128": 16,
}
FORMATS = {
    "bool": "?", "int8": "b", "int16": "<h", "int32": "<i", "int64": "<q", "uint8": "B", "uint16": "<H",
    "uint32": "<I", "uint64": "<Q", "float16": "<e", "float32": "<f", "float64": "<d", "complex64": "<f",
    "complex128": "<d",
}  # fmt: skip
KINDS = {
    1: "REQUEST", 2: "REPLY", 3: "ERROR", 4: "CANCEL", 5: "PING", 6: "PONG", 7: "CONTROL", 8: "CONTROL_REPLY"
}  # fmt: skip
PREFIX_FIELDS = {
    "version": (4, 1), "flags": (6, 1), "status": (7, 1), "id": (8, 8), "timeout_us": (16, 8),
    "count": (24, 4), "header_len": (28, 4), "extra_len": (32, 4),
    "inline_limit": (36, 4), "queue_us": (40, 4), "compute_us": (44, 4),
}  # fmt: skip


def tiny_prefix(head: bytes) -> dict[str, Any]:
    assert head[:4] == bytes.fromhex("54574952")
    fields: dict[str, Any] = {"kind": KINDS[head[5]]}
    for name, (offset, size) in PREFIX_FIELDS.items():
        fields[name] = int.from_bytes(head[offset : offset + size], "little")
    return fields


def tiny_values(dtype: str, count: int, payload: bytes) -> list[Any] | None:
    if dtype in ("bytes", "string"):
        lengths = struct.unpack_from(f"<{count}I", payload)
        values, at = [], 4 * count
        for length in lengths:
            value = payload[at : at + length]
            values.append(value if dtype == "bytes" else value.decode())
            at += length
        assert at == len(payload)
        return values
    if dtype == "bfloat16":
        return [struct.unpack("<f", b"\0\0" + payload[i : i + 2])[0] for i in range(0, len(payload), 2)]
    if dtype not in FORMATS:
        return None  # the float8 formats are left to ml_dtypes
    flat = [value for (value,) in struct.iter_unpack(FORMATS[dtype], payload)]
    return [list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)] if "complex" in dtype else flat


def tiny_decode(frames: list[bytes]) -> dict[str, Any]:
    head, *rest = frames
    found = tiny_prefix(head)
    header_end = 48 + found["header_len"]
    at = header_end + found["extra_len"]
    header = msgpack.unpackb(head[48:header_end])
    rows = None
    if header.get("rows", True):
        rows = list(struct.unpack_from(f"<{found['count']}I", head, at))
        at += 4 * found["count"]
    tensors = []
    for name, dtype, shape, *_ in header["inputs" if found["kind"] == "REQUEST" else "outputs"]:
        whole = list(shape) if rows is None else [sum(rows), *shape]
        count = math.prod(whole)
        nbytes = count * SIZES.get(dtype, 1)
        if dtype in ("bytes", "string") or nbytes > found["inline_limit"]:
            place, payload = "frame", rest.pop(0)
        else:
            at = (at + 15) // 16 * 16
            place, payload = "inline", head[at : at + nbytes]
            at += nbytes
        tensors.append((name, dtype, whole, place, payload, tiny_values(dtype, count, payload)))
    assert at == len(head)
    assert not rest
    extra = (
        msgpack.unpackb(head[header_end : header_end + found["extra_len"]]) if found["extra_len"] else None
    )
    return {**found, "header": header, "extra": extra, "rows": rows, "tensors": tensors}


def assert_prefix(found: dict[str, Any], message: Vector) -> None:
    for name in (*PREFIX_FIELDS, "kind"):
        wanted = int(message[name]) if name in ("id", "timeout_us") else message[name]
        assert found[name] == wanted, name


@named(TENSOR_MESSAGES)
def test_a_decoder_written_from_the_docs_finds_the_same(vector: Vector) -> None:
    message = vector["message"]
    found = tiny_decode(vector["frames"])
    assert_prefix(found, message)
    for part in ("header", "extra", "rows"):
        assert describe.plain(found[part]) == message[part]
    for (name, dtype, shape, place, payload, values), wanted in zip(
        found["tensors"], message["tensors"], strict=True
    ):
        assert (name, dtype, shape, place) == tuple(
            wanted[key] for key in ("name", "dtype", "shape", "place")
        )
        assert payload.hex() == wanted["payload"]
        if values is not None:
            assert describe.plain(values) == wanted["values"]


@named(ERRORS + CONTROLS)
def test_the_docs_suffice_for_errors_and_controls(vector: Vector) -> None:
    (head,) = vector["frames"]
    message = vector["message"]
    found = tiny_prefix(head)
    assert_prefix(found, message)
    header_end = 48 + found["header_len"]
    body, extra = head[48:header_end], head[header_end : header_end + found["extra_len"]]
    assert len(head) == header_end + found["extra_len"]
    if found["kind"] == "ERROR":
        assert (msgpack.unpackb(extra).get("message", "") if extra else "") == message["text"]
    else:
        assert (describe.plain(msgpack.unpackb(body)) if body else None) == message["body"]


# ------------------------------------------------- the library


def library_prefix(head: bytes) -> dict[str, Any]:
    prefix = read_prefix(head)
    fields = {name: getattr(prefix, name) for name in PREFIX_FIELDS if name != "version"}
    return {**fields, "version": 1, "kind": Kind(prefix.kind).name}


def flat_values(array: np.ndarray, dtype: str) -> list[Any]:
    flat = array.reshape(-1)
    if dtype in ("bytes", "string"):
        return describe.plain(flat.tolist())
    if dtype.startswith("complex"):
        return [[float(v.real), float(v.imag)] for v in flat]
    if dtype == "bool" or "int" in dtype:
        return flat.tolist()
    return [float(v) for v in flat]


@named(TENSOR_MESSAGES)
def test_the_library_reads(vector: Vector) -> None:
    head, *frames = vector["frames"]
    message = vector["message"]
    assert_prefix(library_prefix(head), message)
    prefix = read_prefix(head)
    raw = head[PREFIX_SIZE : PREFIX_SIZE + prefix.header_len]
    layout = (Signature if prefix.kind == Kind.REQUEST else ReplySignature)(raw).layout
    rows, total, start = read_rows(head, prefix, layout)
    assert rows == message["rows"]
    tensors = read_tensors(head, frames, layout, total, start, prefix.inline_limit)
    for name, dtype, tensor, wanted in zip(
        layout.names, layout.dtype_names, tensors, message["tensors"], strict=True
    ):
        assert (name, dtype, list(tensor.shape)) == (wanted["name"], wanted["dtype"], wanted["shape"])
        assert flat_values(tensor, dtype) == wanted["values"]
        assert bytes(payload_of(tensor)).hex() == wanted["payload"]
        assert tensor.dtype == FIXED_DTYPES.get(dtype, np.dtype(object))


def array_of(tensor: Vector) -> np.ndarray:
    values = tensor["values"]
    if tensor["dtype"] == "bytes":
        values = [bytes.fromhex(value["hex"]) for value in values]
    elif tensor["dtype"].startswith("complex"):
        values = [complex(*value) for value in values]
    return describe.array(tensor["dtype"], tensor["shape"], values)


def unplain(value: Any) -> Any:
    if isinstance(value, dict):
        if list(value) == ["hex"]:
            return bytes.fromhex(value["hex"])
        return {key: unplain(item) for key, item in value.items()}
    return [unplain(item) for item in value] if isinstance(value, list) else value


def written(vectors: list[Vector]) -> Any:
    return named([vector for vector in vectors if "decode_only" not in vector])


@written(TENSOR_MESSAGES)
def test_the_library_writes(vector: Vector) -> None:
    message = vector["message"]
    header = dict(message["header"])
    request = message["kind"] == "REQUEST"
    key = "inputs" if request else "outputs"
    header[key] = tuple(TensorHeader(n, d, tuple(s)) for n, d, s in header[key])
    if request and "outputs" in header:
        header["outputs"] = tuple(header["outputs"])
    raw = encode_header(RequestHeader(**header) if request else ReplyHeader(**header))
    assert raw == msgpack.packb(message["header"])  # the same bytes from another library
    extra = b"" if message["extra"] is None else msgpack.packb(unplain(message["extra"]))
    if message["extra"] is not None:
        assert encode_body(decode_extra(extra)) == extra
    frames = build(
        Kind[message["kind"]],
        first_id=int(message["id"]),
        count=message["count"],
        layout=(Signature if request else ReplySignature)(raw).layout,
        header=raw,
        extra=extra,
        rows=message["rows"],
        payloads=[payload_of(array_of(tensor)) for tensor in message["tensors"]],
        timeout_us=int(message["timeout_us"]),
        inline_limit=message["inline_limit"],
        queue_us=message["queue_us"],
        compute_us=message["compute_us"],
    )
    assert [bytes(frame) for frame in frames] == vector["frames"]


@named([vector for vector in TENSOR_MESSAGES if vector["file"] == "requests"])
def test_the_pump_takes_every_request_the_short_way_and_the_long(vector: Vector) -> None:
    head, *frames = map(memoryview, vector["frames"])
    message = vector["message"]
    intake = Intake(Interner(Signature))
    for _ in range(2):  # the second time the header is known
        assert intake.add(b"peer", head, frames, 100.0) == message["count"]
        (bundle,), controls = intake.take(100.0)
        assert not controls
        assert bundle.first_ids == [int(message["id"])]
        assert bundle.requests == message["count"]
        if message["rows"] is not None:
            spans = [bundle.row_span(index, index + 1) for index in range(bundle.requests)]
            assert spans == message["rows"]
        for block, wanted in zip(bundle.inputs, message["tensors"], strict=True):
            assert list(block.shape) == wanted["shape"]
            assert flat_values(block, wanted["dtype"]) == wanted["values"]
        extra = unplain(message["extra"]) or {}
        assert bundle.priority == extra.get("priority", 0)
        assert bundle.routing_key == extra.get("routing_key")


@named(ERRORS)
def test_the_library_reads_errors(vector: Vector) -> None:
    (head,) = vector["frames"]
    message = vector["message"]
    assert_prefix(library_prefix(head), message)
    prefix = read_prefix(head)
    text = decode_error(head[PREFIX_SIZE + prefix.header_len :])
    assert text == message["text"]
    error = error_from_code(prefix.status, text)
    assert error.code == message["status"]
    assert code_name(error.code) == message["status_name"]
    if "decode_only" not in vector:
        assert build_error(prefix.id, prefix.count, prefix.status, text) == head


@named(CONTROLS)
def test_the_library_reads_and_writes_controls(vector: Vector) -> None:
    (head,) = vector["frames"]
    message = vector["message"]
    assert_prefix(library_prefix(head), message)
    prefix = read_prefix(head)
    body = b""
    if message["body"] is not None or message["header_len"]:
        body = encode_body(unplain(message["body"]))
    if message["kind"] == "CONTROL":
        call = decode_control(body)
        assert {"method": call.method, "params": call.params} == {"params": {}, **unplain(message["body"])}
        body = encode_body(ControlCall(call.method, call.params))
    kind = Kind[message["kind"]]
    assert (
        build_control(kind, prefix.id, body, timeout_us=prefix.timeout_us, count=prefix.count)
        == vector["frames"][0]
    )


# ------------------------------------------------- malformed messages


def server_outcome(intake: Intake, frames: list[bytes]) -> dict[str, Any] | None:
    """What a server does with a message; None if it takes it."""
    head, *rest = map(memoryview, frames)
    try:
        intake.add(b"peer", head, rest, 0.0)
        _, controls = intake.take(0.0)
        for control in controls:
            if control.kind == Kind.CONTROL:
                decode_control(control.body)
    except RpcError as error:
        ids = answerable_ids(head)
        if ids is None:
            return {"error": "dropped"}
        return {"error": StatusCode(error.code).name, "id": str(ids[0]), "count": ids[1]}
    return None


@named([vector for vector in MALFORMED if vector["receiver"] == "server"])
def test_a_server_refuses(vector: Vector) -> None:
    known: Interner[Signature] = Interner(Signature)
    intake = Intake(known)
    for _ in range(2):  # a refused header must not be remembered as a good one
        assert server_outcome(intake, vector["frames"]) == vector["outcome"]
        assert intake.take(0.0) == ([], [])


@named([vector for vector in MALFORMED if vector["receiver"] == "client"])
def test_a_client_refuses(vector: Vector) -> None:
    head, *frames = vector["frames"]

    def read() -> None:
        prefix = read_prefix(head)
        layout = ReplySignature(head[PREFIX_SIZE : PREFIX_SIZE + prefix.header_len]).layout
        _, total, start = read_rows(head, prefix, layout)
        read_tensors(head, frames, layout, total, start, prefix.inline_limit)

    with pytest.raises(ProtocolError):
        read()
    ids = answerable_ids(head)
    found = {"error": "dropped"} if ids is None else {"error": "failed", "id": str(ids[0]), "count": ids[1]}
    assert found == vector["outcome"]
