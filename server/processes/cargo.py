"""Tensors into messages and out of them: small ones in the message itself, others in shared memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...rpc.errors import InvalidArgumentError, ProtocolError
from ...rpc.types import BYTES, OBJECT_DTYPE, STRING, TensorSpec, dtype_of, name_of_dtype
from ...rpc.wire.header import Layout, ReplyHeader, RequestHeader, TensorHeader, encode_header
from ...rpc.wire.message import Buffer, payload_of
from ...rpc.wire.prefix import MAX_HEADER, U32_MAX, Kind
from ...rpc.wire.varlen import encode_varlen
from .arena import Allocator, Mapping, new_memory
from .framing import MAX_RETURNED, Block, Cargo, encode_tensors

Array = npt.NDArray[Any]

#: Tensors of up to so many bytes travel in the message: docs/decisions/0009 has the figures.
INLINE_LIMIT: Final = 16_384
#: If all that are so small have more bytes than this together, all go into shared memory: with the largest
#: header and cargo it still makes no message that is too long.
INLINE_TOTAL: Final = 49_152
_FORMS_KEPT: Final = 1024

#: One tensor to send: its name, and the pieces whose rows it consists of.
Named = tuple[str, Sequence[Array]]


class Form(NamedTuple):
    """What is the same for all messages with tensors of one kind."""

    header: bytes
    layout: Layout


class _Tensor:
    """One tensor that is to be sent."""

    __slots__ = ("dtype", "dtype_name", "name", "nbytes", "padding", "payload", "pieces", "shape")

    def __init__(self, name: str, pieces: Sequence[Array], padding: int, spec: TensorSpec | None) -> None:
        if not pieces:
            raise InvalidArgumentError(f"tensor {name!r} has no pieces")
        first = pieces[0]
        self.name = name
        self.pieces = pieces
        self.padding = padding
        self.dtype_name = _dtype_name(name, first, spec)
        self.dtype = dtype_of(self.dtype_name)
        self.shape = first.shape
        if padding or len(pieces) > 1:
            self.shape = self._joined_shape()
        self.payload: bytes | None = None
        if self.dtype == OBJECT_DTYPE:
            self.payload = encode_varlen(self._joined())
            self.nbytes = len(self.payload)
        else:
            self.nbytes = self.dtype.itemsize * _product(self.shape)

    def _joined_shape(self) -> tuple[int, ...]:
        first = self.pieces[0]
        if not first.shape:
            raise InvalidArgumentError(f"tensor {self.name!r} has no rows, and cannot be joined or padded")
        rows = self.padding
        for piece in self.pieces:
            if piece.shape[1:] != first.shape[1:] or piece.dtype != first.dtype:
                found = f"{piece.dtype}{list(piece.shape)} and {first.dtype}{list(first.shape)}"
                raise InvalidArgumentError(f"tensor {self.name!r} has pieces that do not match: {found}")
            rows += piece.shape[0]
        if self.padding and self.padding == rows:
            raise InvalidArgumentError(f"tensor {self.name!r} has no row that could be repeated")
        return (rows, *first.shape[1:])

    def _last_row(self) -> Array:
        return next(piece for piece in reversed(self.pieces) if piece.shape[0])[-1:]

    def _joined(self) -> Array:
        """All of it in one array; a copy where it has several parts."""
        if not self.padding and len(self.pieces) == 1:
            return self.pieces[0]
        parts = list(self.pieces)
        if self.padding:
            parts.append(np.repeat(self._last_row(), self.padding, axis=0))
        return np.concatenate(parts)

    def inline(self) -> Buffer:
        """The bytes, for a message."""
        return payload_of(self._joined())

    def write(self, target: npt.NDArray[np.uint8]) -> None:
        """Copy the bytes to where they are read, once."""
        if self.payload is not None:
            target[:] = np.frombuffer(self.payload, np.uint8)
            return
        block: Array = target.view(self.dtype).reshape(self.shape)
        if not self.padding and len(self.pieces) == 1:
            block[...] = self.pieces[0]
            return
        at = 0
        for piece in self.pieces:
            block[at : at + piece.shape[0]] = piece
            at += piece.shape[0]
        if self.padding:
            block[at:] = self._last_row()


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def _dtype_name(name: str, array: Array, spec: TensorSpec | None) -> str:
    if array.dtype == OBJECT_DTYPE or array.dtype.kind in "SU":
        if spec is None or spec.dtype not in (BYTES, STRING):
            expected = "a tensor that is known" if spec is None else str(spec)
            raise InvalidArgumentError(f"tensor {name!r} is {array.dtype}; expected {expected}")
        return spec.dtype
    return name_of_dtype(array.dtype)


class Packed(NamedTuple):
    """Tensors whose bytes lie where they are to be read: what is missing is only the message."""

    form: Form
    #: That all tensors share; 1 where they do not.
    rows: int
    payloads: list[Buffer]
    blocks: tuple[Block, ...]
    inline_limit: int
    #: Memory that goes with the message, to be closed when it has been sent; -1: none.
    fd: int

    def message(
        self,
        kind: Kind,
        call_id: int,
        returned: Sequence[int] = (),
        *,
        deadline_us: int = 0,
        compute_seconds: float = 0.0,
    ) -> bytes:
        """The head frame."""
        return encode_tensors(
            kind,
            call_id,
            self.form.header,
            self.form.layout,
            self.rows,
            self.payloads,
            Cargo(self.blocks, tuple(returned)),
            inline_limit=self.inline_limit,
            deadline_us=deadline_us,
            compute_seconds=compute_seconds,
        )


class Outbound:
    """The sender's end of one direction: owns its arena.

    Attributes:
        allocator, address: of the arena.

    Args:
        model, version: for headers.
        specs: of the tensors that are sent: which of ``bytes`` and ``string`` an object array is.
        kind: of the messages: REQUEST or REPLY.
    """

    def __init__(
        self, memory: Mapping, model: str, version: int, specs: Iterable[TensorSpec], kind: Kind
    ) -> None:
        self.allocator = Allocator(memory.nbytes)
        self.address = memory.address
        self._memory = memory
        self._model = model
        self._version = version
        self._specs = {spec.name: spec for spec in specs}
        self._kind = kind
        self._forms: dict[Hashable, Form] = {}

    def pack(self, named: Iterable[Named], padding: int = 0, wanted: tuple[str, ...] = ()) -> Packed:
        """Copy tensors to where the other side reads them.

        Args:
            padding: times that the last row is repeated.
            wanted: outputs that a call asks for.

        Raises:
            InvalidArgumentError: a tensor has no form that can be sent.
            ResourceExhaustedError: the arena is full, and there is no memory beside it.
        """
        tensors = [_Tensor(name, pieces, padding, self._specs.get(name)) for name, pieces in named]
        rows = _shared_rows(tensors)
        first = 0 if rows is None else 1
        shapes = tuple((tensor.name, tensor.dtype_name, tensor.shape[first:]) for tensor in tensors)
        form = self.form(shapes, rows is not None, wanted)
        limit = _inline_limit(tensors)
        outside = [tensor for tensor in tensors if tensor.payload is not None or tensor.nbytes > limit]
        blocks, fd = self._place(outside) if outside else ((), -1)
        inside = [
            b"" if tensor.payload is not None or tensor.nbytes > limit else tensor.inline()
            for tensor in tensors
        ]
        return Packed(form, 1 if rows is None else rows, inside, blocks, limit, fd)

    def discard(self, packed: Packed) -> None:
        """Take back what was never sent."""
        for block in packed.blocks:
            if block.own and block.nbytes:
                self.allocator.give_back(block.offset)
        if packed.fd >= 0:
            os.close(packed.fd)

    def form(
        self, tensors: tuple[tuple[str, str, tuple[int, ...]], ...], rows: bool, wanted: tuple[str, ...]
    ) -> Form:
        """The header of messages with such tensors, each a name, a dtype and a shape, which lacks the leading
        dimension if ``rows`` says that all share it.

        Raises:
            InvalidArgumentError: it is too long.
        """
        key: Hashable = (wanted, rows, tensors)
        form = self._forms.get(key)
        if form is None:
            headers = tuple(TensorHeader(*tensor) for tensor in tensors)
            if len(self._forms) >= _FORMS_KEPT:
                self._forms.clear()
            form = self._forms[key] = Form(self._header(headers, rows, wanted), Layout(headers, rows))
            if len(form.header) > MAX_HEADER:
                del self._forms[key]
                raise InvalidArgumentError(f"names and shapes take more than {MAX_HEADER} bytes")
        return form

    def _header(self, tensors: tuple[TensorHeader, ...], rows: bool, wanted: tuple[str, ...]) -> bytes:
        if self._kind is Kind.REPLY:
            return encode_header(ReplyHeader(self._model, self._version, tensors, rows))
        header = RequestHeader(self._model, tensors, self._version, outputs=wanted, rows=rows)
        return encode_header(header)

    def _place(self, tensors: Sequence[_Tensor]) -> tuple[tuple[Block, ...], int]:
        """Write to the arena what fits there, the rest into memory of its own."""
        blocks: list[Block | None] = []
        try:
            for tensor in tensors:
                blocks.append(self._into_arena(tensor))  # noqa: PERF401 - known when the next one fails
            if None not in blocks:
                return tuple(block for block in blocks if block is not None), -1
            return self._with_own_memory(tensors, blocks)
        except BaseException:
            for block in blocks:
                if block is not None and block.nbytes:
                    self.allocator.give_back(block.offset)
            raise

    def _into_arena(self, tensor: _Tensor) -> Block | None:
        if not tensor.nbytes:
            return Block(True, 0, 0)
        offset = self.allocator.take(tensor.nbytes)
        if offset is None:
            return None
        try:
            tensor.write(self._memory.bytes[offset : offset + tensor.nbytes])
        except BaseException:
            self.allocator.give_back(offset)
            raise
        return Block(True, offset, tensor.nbytes)

    def _with_own_memory(
        self, tensors: Sequence[_Tensor], blocks: Sequence[Block | None]
    ) -> tuple[tuple[Block, ...], int]:
        left = [tensor for tensor, block in zip(tensors, blocks, strict=True) if block is None]
        packing = Allocator(sum(tensor.nbytes + 64 for tensor in left))
        placed = [Block(False, packing.take(tensor.nbytes) or 0, tensor.nbytes) for tensor in left]
        fd = new_memory(max(block.offset + block.nbytes for block in placed), reserve=True)
        try:
            memory = Mapping(fd, writable=True)
            for tensor, block in zip(left, placed, strict=True):
                tensor.write(memory.bytes[block.offset : block.offset + block.nbytes])
        except BaseException:
            os.close(fd)
            raise
        rest = iter(placed)
        return tuple(next(rest) if block is None else block for block in blocks), fd


def _shared_rows(tensors: Sequence[_Tensor]) -> int | None:
    """The leading dimension, if all have the same."""
    if not tensors or not tensors[0].shape:
        return None
    rows = tensors[0].shape[0]
    shared = rows <= U32_MAX and all(tensor.shape[:1] == (rows,) for tensor in tensors)
    return rows if shared else None


def _inline_limit(tensors: Sequence[_Tensor]) -> int:
    small = sum(tensor.nbytes for tensor in tensors if tensor.nbytes <= INLINE_LIMIT)
    return INLINE_LIMIT if small <= INLINE_TOTAL else 0


class Inbound:
    """The receiver's end of one direction: knows what of the sender's arena is still in use here.

    Attributes:
        address, bytes: of the arena.
        returned: offsets of blocks that nobody here uses any more.
    """

    def __init__(self, memory: Mapping) -> None:
        self._memory = memory
        self.address = memory.address
        self.bytes = memory.bytes
        self.returned: deque[int] = deque()

    def frames(self, cargo: Cargo, fd: int) -> list[Buffer | Array]:
        """The bytes of the tensors that lie outside the message, read-only. Closes ``fd``.

        Raises:
            ProtocolError: a block is not where one can be.
        """
        if fd < 0:
            return [self._frame(block, None) for block in cargo.blocks]
        try:
            own = Mapping(fd, writable=False)
        finally:
            os.close(fd)
        return [self._frame(block, own) for block in cargo.blocks]

    def _frame(self, block: Block, own: Mapping | None) -> Buffer | Array:
        if not block.nbytes:
            return b""
        if block.own:
            return self._memory.lend(block.offset, block.nbytes, self.returned)
        if own is None:
            raise ProtocolError("a block lies in memory that did not come with the message")
        return own.lend(block.offset, block.nbytes)

    def take_returned(self) -> list[int]:
        """Offsets that the sender may use again, as many as one message holds."""
        found: list[int] = []
        try:
            while len(found) < MAX_RETURNED:
                found.append(self.returned.popleft())
        except IndexError:
            pass
        return found
