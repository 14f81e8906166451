"""What worker processes and their parent say to each other: bytes in, typed values out, and back. No I/O.

Calls and answers are head frames of the wire protocol (REQUEST, REPLY, ERROR). In place of the frames that
follow a head there, the head's extra says where those tensors lie (:class:`Cargo`). What the protocol has no
kind for is the body of a CONTROL frame (:data:`Control`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy.typing as npt

from ...manager.config import ModelConfig
from ...rpc.errors import ProtocolError, RpcError, error_from_code
from ...rpc.types import ModelMetadata
from ...rpc.wire.extra import decode_error
from ...rpc.wire.header import Layout, ReplySignature, Signature
from ...rpc.wire.message import (
    Buffer,
    build_control,
    build_error,
    read_prefix,
    read_rows,
    read_tensors,
)
from ...rpc.wire.prefix import MAGIC, PREFIX, PREFIX_SIZE, U32_MAX, VERSION, Kind, Prefix

Array = npt.NDArray[Any]

#: Bytes of a whole message. The kernel's default for a socket's buffer is 212,992, and a message must fit.
MAX_MESSAGE: Final = 196_608
#: Blocks that one message tells to be free again, at most.
MAX_RETURNED: Final = 256

_MICROSECONDS: Final = 1_000_000


class ChildSpec(msgspec.Struct, frozen=True):
    """Everything that a worker process needs in order to load a version.

    ``batch_sizes``: it runs batches of these sizes before it says that it is ready; empty: none. ``device``:
    the GPU that it sees; None: what the server sees.
    """

    model: str
    version: int
    directory: str
    config: ModelConfig = ModelConfig()
    batch_sizes: tuple[int, ...] = ()
    log_level: int = 0
    device: str | None = None


class Load(msgspec.Struct, frozen=True, tag=True):
    """Parent to child, first of all."""

    spec: ChildSpec
    #: Where the parent finds modules: the model's code may rely on it.
    sys_path: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """Child to parent: calls may come. An ERROR in its place: it could not load."""

    metadata: ModelMetadata
    releases_gil: bool
    concurrent: bool


class Returned(msgspec.Struct, frozen=True, tag=True):
    """To who owns the arena: these blocks are free again."""

    offsets: tuple[int, ...]


class Expired(msgspec.Struct, frozen=True, tag=True):
    """Child to parent, in place of an answer: the call's deadline passed before it began; it was not run."""

    call_id: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Parent to child: end."""


Control = Load | Loaded | Returned | Expired | Stop


class Block(NamedTuple):
    """Where a tensor lies: in the sender's arena, or in the memory that came with the message."""

    own: bool
    offset: int
    nbytes: int


class Cargo(msgspec.Struct, frozen=True, array_like=True):
    """The extra of a call and of its answer: its tensors outside the message, and what is free again."""

    blocks: tuple[Block, ...] = ()
    returned: tuple[int, ...] = ()


class Message(NamedTuple):
    """A head frame, read as far as it says what it is."""

    prefix: Prefix
    head: bytes
    cargo: Cargo


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_CARGO: Final = msgspec.msgpack.Decoder(Cargo)
_CONTROL: Final = msgspec.msgpack.Decoder(Control)
_NO_CARGO: Final = Cargo()
# Plain numbers, because comparing those takes less time.
_REQUEST, _REPLY, _ERROR, _CONTROL_KIND = map(int, (Kind.REQUEST, Kind.REPLY, Kind.ERROR, Kind.CONTROL))
_BAD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, RpcError)


def encode_control(body: Control) -> bytes:
    """The message of a control body.

    Raises:
        ProtocolError: it would be too long for one message, or holds a number that has no form.
    """
    try:
        message = build_control(Kind.CONTROL, 0, _ENCODE(body))
    except (OverflowError, TypeError, ValueError) as error:
        raise ProtocolError(f"{type(body).__name__} cannot be sent: {error}") from error
    if len(message) > MAX_MESSAGE:
        raise ProtocolError(f"{type(body).__name__} has {len(message)} bytes; at most {MAX_MESSAGE} fit")
    return message


def encode_tensors(
    kind: Kind,
    call_id: int,
    header: bytes,
    layout: Layout,
    rows: int,
    payloads: Sequence[Buffer],
    cargo: Cargo,
    *,
    inline_limit: int,
    deadline_us: int = 0,
    compute_seconds: float = 0.0,
) -> bytes:
    """A REQUEST or REPLY. Payloads of tensors over ``inline_limit`` do not count: ``cargo`` has them.

    ``deadline_us`` stands where requests of clients have the time that they leave: here it is a time of the
    clock that all processes of a machine share (``time.monotonic``), so that waiting in the socket counts. 0:
    there is none.

    Equals what ``build`` of the wire protocol gives, which takes much longer over a message of one request.
    """
    extra = _ENCODE(cargo)
    microseconds = min(round(compute_seconds * _MICROSECONDS), U32_MAX)
    prefix = PREFIX.pack(
        MAGIC,
        VERSION,
        kind,
        0,
        0,
        call_id,
        deadline_us,
        1,
        len(header),
        len(extra),
        inline_limit,
        0,
        microseconds,
    )
    parts: list[Buffer] = [prefix, header, extra]
    at = PREFIX_SIZE + len(header) + len(extra)
    if layout.rows:
        parts.append(rows.to_bytes(4, "little"))
        at += 4
    for place, payload in zip(layout.place(rows, at, inline_limit).slices, payloads, strict=True):
        if place is not None:
            parts += (bytes(place.start - at), payload)
            at = place.stop
    return b"".join(parts)


def encode_error(call_id: int, error: RpcError, compute_seconds: float = 0.0) -> bytes:
    """An ERROR."""
    frame = build_error(call_id, 1, error.code, error.message)
    microseconds = min(round(compute_seconds * _MICROSECONDS), U32_MAX)
    prefix = msgspec.structs.replace(read_prefix(frame), compute_us=microseconds)
    return prefix.pack() + frame[PREFIX_SIZE:]


def read(head: bytes) -> Message:
    """Read a head frame's prefix and cargo.

    Raises:
        ProtocolError: it is none of the kinds that are spoken here, or not well formed.
    """
    try:
        prefix = read_prefix(head)
    except RpcError as error:
        raise ProtocolError(error.message) from error
    if prefix.kind in (_ERROR, _CONTROL_KIND):
        return Message(prefix, head, _NO_CARGO)
    if prefix.kind not in (_REQUEST, _REPLY) or prefix.count != 1:
        raise ProtocolError(f"kind {prefix.kind} with a count of {prefix.count} has no meaning here")
    start = PREFIX_SIZE + prefix.header_len
    try:
        cargo = _CARGO.decode(head[start : start + prefix.extra_len])
    except _BAD as error:
        raise ProtocolError(f"extra is not valid: {error}") from None
    return Message(prefix, head, cargo)


def raw_header(message: Message) -> bytes:
    """The header's bytes, which are what signatures are known by."""
    return message.head[PREFIX_SIZE : PREFIX_SIZE + message.prefix.header_len]


def tensors(
    message: Message, signature: Signature | ReplySignature, frames: Sequence[Buffer | Array]
) -> list[Array]:
    """The tensors of a REQUEST or REPLY, as views of the message and of ``frames``.

    Raises:
        ProtocolError: lengths or the number of frames do not add up.
    """
    layout = signature.layout
    _, total, start = read_rows(message.head, message.prefix, layout)
    try:
        return read_tensors(
            message.head,
            frames,  # pyright: ignore[reportArgumentType]  # flat arrays of bytes are read like bytes
            layout,
            total,
            start,
            message.prefix.inline_limit,
        )
    except ValueError as error:  # NumPy refuses shapes that no layout check knows of
        raise ProtocolError(str(error)) from error


def read_control(message: Message) -> Control:
    """Raises ProtocolError if it is no control message of this protocol."""
    try:
        return _CONTROL.decode(raw_header(message))
    except _BAD as error:
        raise ProtocolError(f"control message is not valid: {error}") from None


def read_error(message: Message) -> RpcError:
    """The error that an ERROR tells of."""
    start = PREFIX_SIZE + message.prefix.header_len
    text = decode_error(message.head[start : start + message.prefix.extra_len])
    return error_from_code(message.prefix.status, text)


def has_expired(message: Message, now_us: int) -> bool:
    """Whether a call's deadline has passed at this time of the clock that all processes share."""
    return 0 < message.prefix.timeout_us <= now_us


def compute_seconds(message: Message) -> float:
    """What the model took, in seconds."""
    return message.prefix.compute_us / _MICROSECONDS
