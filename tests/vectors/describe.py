"""Builds messages with the library and describes them for a test vector."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import numpy as np
from tensorwire.rpc.types import BYTES, FIXED_DTYPES, STRING
from tensorwire.rpc.wire.extra import Extra, encode_body
from tensorwire.rpc.wire.header import Layout, ReplyHeader, RequestHeader, TensorHeader, encode_header
from tensorwire.rpc.wire.message import build, payload_of
from tensorwire.rpc.wire.prefix import PREFIX, PREFIX_SIZE, Kind

Json = dict[str, Any]


def hex_text(data: bytes) -> str:
    """Hexadecimal digits; more than 1000 equal bytes in a row as ``00*1234``, between commas."""
    parts: list[str] = []
    end = 0
    for run in re.finditer(rb"(.)\1{1000,}", data, re.DOTALL):
        parts += [data[end : run.start()].hex(), f"{run[1].hex()}*{len(run[0])}"]
        end = run.end()
    return ",".join(part for part in (*parts, data[end:].hex()) if part)


def plain(value: Any) -> Any:
    """JSON for a decoded msgpack value: byte strings become ``{"hex": ...}``."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def array(dtype: str, shape: Sequence[int], values: Sequence[Any]) -> np.ndarray:
    """An array of a wire dtype."""
    if dtype in FIXED_DTYPES:
        return np.array(values, dtype=FIXED_DTYPES[dtype]).reshape(shape)
    flat = np.empty(len(values), dtype=object)
    flat[:] = values
    return flat.reshape(shape)


class Tensor:
    """One tensor of a message, with its whole shape."""

    def __init__(self, name: str, dtype: str, shape: Sequence[int], values: Sequence[Any] | None = None):
        self.name, self.dtype, self.shape = name, dtype, list(shape)
        size = int(np.prod(shape, dtype=int))
        if values is None:
            values = [b"%d" % i for i in range(size)] if dtype == BYTES else list(range(1, size + 1))
        self.array = array(dtype, shape, values)

    def header(self, rows: bool) -> TensorHeader:
        """Its entry in a header."""
        return TensorHeader(self.name, self.dtype, tuple(self.shape[1:] if rows else self.shape))

    def describe(self, framed: bool) -> Json:
        """What a decoder must find."""
        entry: Json = {
            "name": self.name,
            "dtype": self.dtype,
            "shape": self.shape,
            "place": "frame" if framed else "inline",
            "payload": bytes(payload_of(self.array)).hex(),
        }
        flat = self.array.reshape(-1)
        if self.dtype in (BYTES, STRING):
            entry["values"] = plain(flat.tolist())
        elif self.dtype.startswith("complex"):
            entry["values"] = [[float(v.real), float(v.imag)] for v in flat]
        elif self.dtype == "bool" or "int" in self.dtype:
            entry["values"] = flat.tolist()
        else:
            entry["values"] = [float(v) for v in flat]
        return entry


def tensor_message(
    name: str,
    description: str,
    tensors: Sequence[Tensor] = (),
    *,
    kind: Kind = Kind.REQUEST,
    id: int = 1,
    rows: Sequence[int] | None = (1,),
    limit: int = 32_768,
    extra: Extra | None = None,
    timeout_us: int = 0,
    queue_us: int = 0,
    compute_us: int = 0,
    model: str = "m",
    **header: Any,
) -> Json:
    """A REQUEST or REPLY; ``rows`` None: its header says ``rows: false``."""
    shared = rows is not None
    entries = tuple(tensor.header(shared) for tensor in tensors)
    if kind is Kind.REQUEST:
        raw = encode_header(RequestHeader(model, entries, rows=shared, **header))
    else:
        raw = encode_header(ReplyHeader(model, header.get("version", 3), entries, rows=shared))
    layout = Layout(entries, shared)
    raw_extra = b"" if extra is None else encode_body(extra)
    counts = list(rows) if rows is not None else [1]
    frames = build(
        kind,
        first_id=id,
        count=len(counts),
        layout=layout,
        header=raw,
        extra=raw_extra,
        rows=rows,
        payloads=[payload_of(tensor.array) for tensor in tensors],
        timeout_us=timeout_us,
        inline_limit=limit,
        queue_us=queue_us,
        compute_us=compute_us,
    )
    start = PREFIX_SIZE + len(raw) + len(raw_extra) + (4 * len(counts) if shared else 0)
    places = layout.place(sum(counts) if shared else 1, start, limit)
    message = {
        **prefix_of(bytes(frames[0])),
        "header": plain(msgpack.unpackb(raw)),
        "extra": plain(msgpack.unpackb(raw_extra)) if raw_extra else None,
        "rows": counts if shared else None,
        "tensors": [t.describe(place is None) for t, place in zip(tensors, places.slices, strict=True)],
    }
    return entry(name, description, [bytes(frame) for frame in frames], message)


def prefix_of(head: bytes) -> Json:
    """The prefix's fields; 64-bit ones as strings, which every JSON reader keeps exact."""
    _, version, kind, flags, status, first_id, timeout, count, header, extra, limit, queue, compute = (
        PREFIX.unpack_from(head)
    )
    return {
        "version": version,
        "kind": Kind(kind).name,
        "flags": flags,
        "status": status,
        "id": str(first_id),
        "timeout_us": str(timeout),
        "count": count,
        "header_len": header,
        "extra_len": extra,
        "inline_limit": limit,
        "queue_us": queue,
        "compute_us": compute,
    }


def entry(name: str, description: str, frames: Sequence[bytes], message: Json) -> Json:
    """One vector."""
    return {
        "name": name,
        "description": description,
        "frames": [frame.hex() for frame in frames],
        "message": message,
    }


def other_bytes(vector: Json, name: str, description: str, change: Callable[[bytes], bytes]) -> Json:
    """The same message as another sender may write it: to be read, not to be written."""
    head = change(bytes.fromhex(vector["frames"][0]))
    message = {**vector["message"], **prefix_of(head)}
    return {
        **entry(name, description, [head], message),
        "frames": [head.hex(), *vector["frames"][1:]],
        "decode_only": True,
    }


def with_header(head: bytes, raw: bytes, rest: bytes | None = None) -> bytes:
    """A head frame with another header; ``rest``: what follows it."""
    fields = list(PREFIX.unpack_from(head))
    if rest is None:
        rest = head[PREFIX_SIZE + fields[8] :]
    fields[8] = len(raw)
    return PREFIX.pack(*fields) + raw + rest
