"""Headers: what is the same for every request of one kind, decoded once and interned by its bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np

from ..errors import InvalidArgumentError, ProtocolError
from ..types import OBJECT_DTYPE, dtype_of
from .prefix import MAX_RANK, MAX_TENSORS, U32_MAX, aligned

#: Tensors larger than this can exist nowhere; keeps size arithmetic far from overflow.
MAX_TENSOR_NBYTES: Final = 1 << 48
#: Slices kept per layout: a peer that varies rows or limits costs arithmetic, never memory.
_SLICES_KEPT: Final = 256
_PLACES_KEPT: Final = 64


class TensorHeader(msgspec.Struct, frozen=True, array_like=True):
    """One tensor in a header: ``[name, dtype, shape]``."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class RequestHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """Header of a REQUEST: a msgpack map; keys with default values are left out."""

    model: str
    inputs: tuple[TensorHeader, ...]
    version: int | None = None
    label: str | None = None
    #: Names of the outputs wanted, in this order; None: all.
    outputs: tuple[str, ...] | None = None
    #: True: shapes lack the leading row count, which every tensor of the request shares.
    rows: bool = True


class ReplyHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """Header of a REPLY."""

    model: str
    version: int
    outputs: tuple[TensorHeader, ...]
    rows: bool = True


class Places(NamedTuple):
    """Where the tensors of one message lie."""

    #: Per tensor its place in the head frame; None if it has a frame of its own.
    slices: tuple[slice | None, ...]
    #: The exact length of the head frame.
    end: int
    #: The number of tensor frames.
    frames: int


class Layout:
    """Decoded, validated tensor list of a header: what is needed to find tensors in a message.

    Attributes:
        names, dtypes, dtype_names, shapes: per tensor; shapes as in the header.
        rows: whether shapes lack the leading row count.
        row_nbytes: bytes per row (``rows``) or of the whole tensor; 0 for variable-length tensors.
        row_elements: elements per row, or of the whole tensor.
        fixed: whether there is at least one tensor, and all have elements of fixed size.
        groupable: whether small messages of this layout may share a block: they are fixed and have rows.
        max_rows: so many rows may a message have.
    """

    __slots__ = (
        "_places",
        "_places_kept",
        "_row_extent",
        "dtype_names",
        "dtypes",
        "fixed",
        "groupable",
        "max_rows",
        "names",
        "row_elements",
        "row_nbytes",
        "rows",
        "shapes",
    )

    def __init__(self, tensors: tuple[TensorHeader, ...], rows: bool) -> None:
        if len(tensors) > MAX_TENSORS:
            raise ProtocolError(f"{len(tensors)} tensors in one message; at most {MAX_TENSORS} are allowed")
        self.names = tuple(tensor.name for tensor in tensors)
        if len(set(self.names)) != len(self.names):
            raise ProtocolError(f"tensor names repeat: {', '.join(self.names)}")
        self.rows = rows
        self.dtype_names = tuple(tensor.dtype for tensor in tensors)
        self.dtypes: tuple[np.dtype[Any], ...] = tuple(_checked_dtype(tensor) for tensor in tensors)
        self.shapes = tuple(_checked_shape(tensor) for tensor in tensors)
        self.row_elements = tuple(math.prod(shape) for shape in self.shapes)
        self.fixed = bool(tensors) and OBJECT_DTYPE not in self.dtypes
        self.groupable = self.fixed and rows
        self.row_nbytes = tuple(
            0 if dtype == OBJECT_DTYPE else elements * dtype.itemsize
            for dtype, elements in zip(self.dtypes, self.row_elements, strict=True)
        )
        # NumPy refuses shapes that were too large if their zeros were ones: so are they here.
        self._row_extent = max(
            (
                dtype.itemsize * math.prod(dim or 1 for dim in shape)
                for dtype, shape in zip(self.dtypes, self.shapes, strict=True)
            ),
            default=0,
        )
        self._check_extent(1)
        self.max_rows = MAX_TENSOR_NBYTES // max(1, self._row_extent)
        self._places: dict[tuple[int, int, int], Places] = {}
        self._places_kept = min(_PLACES_KEPT, max(2, _SLICES_KEPT // max(1, len(tensors))))

    def _check_extent(self, total_rows: int) -> None:
        if self._row_extent * total_rows > MAX_TENSOR_NBYTES:
            raise ProtocolError(f"a tensor's shape is larger than any message ({total_rows} rows)")

    def place(self, total_rows: int, start: int, inline_limit: int) -> Places:
        """Where each tensor lies in a message.

        Args:
            total_rows: rows of the whole message (1 where the layout has no rows).
            start: length of prefix, header, extra and row counts.
            inline_limit: tensors of more bytes than this travel as frames of their own.

        Raises:
            ProtocolError: so many rows that a tensor would be larger than any message.
        """
        key = (total_rows, start, inline_limit)
        placed = self._places.get(key)
        if placed is None:
            placed = self._place(total_rows, start, inline_limit)
            if len(self._places) >= self._places_kept:
                self._places.clear()
            self._places[key] = placed
        return placed

    def _place(self, total_rows: int, start: int, inline_limit: int) -> Places:
        self._check_extent(total_rows)
        slices: list[slice | None] = []
        end = start
        frames = 0
        for dtype, row_nbytes in zip(self.dtypes, self.row_nbytes, strict=True):
            nbytes = row_nbytes * total_rows
            if dtype == OBJECT_DTYPE or nbytes > inline_limit:
                slices.append(None)
                frames += 1
            else:
                begin = aligned(end)
                end = begin + nbytes
                slices.append(slice(begin, end))
        return Places(tuple(slices), end, frames)


class Signature:
    """A request header, decoded once: the layout of its inputs and which model it asks for."""

    __slots__ = ("header", "layout", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.header = _decode(_REQUEST, raw)
        if self.header.version is not None and not 0 <= self.header.version <= U32_MAX:
            raise ProtocolError(f"version {self.header.version} is out of range")
        self.layout = Layout(self.header.inputs, self.header.rows)


class ReplySignature:
    """A reply header, decoded once."""

    __slots__ = ("header", "layout", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.header = _decode(_REPLY, raw)
        self.layout = Layout(self.header.outputs, self.header.rows)


def _checked_dtype(tensor: TensorHeader) -> np.dtype[Any]:
    try:
        return dtype_of(tensor.dtype)
    except InvalidArgumentError as error:
        raise ProtocolError(f"tensor {tensor.name!r}: {error.message}") from None


def _checked_shape(tensor: TensorHeader) -> tuple[int, ...]:
    if len(tensor.shape) >= MAX_RANK:
        raise ProtocolError(
            f"tensor {tensor.name!r} has {len(tensor.shape)} dimensions; at most {MAX_RANK - 1} are allowed"
        )
    if any(not 0 <= dim <= MAX_TENSOR_NBYTES for dim in tensor.shape):
        raise ProtocolError(f"tensor {tensor.name!r} has an impossible shape {list(tensor.shape)}")
    return tensor.shape


HeaderT = TypeVar("HeaderT", RequestHeader, ReplyHeader)
SignatureT = TypeVar("SignatureT")

_REQUEST: Final = msgspec.msgpack.Decoder(RequestHeader)
_REPLY: Final = msgspec.msgpack.Decoder(ReplyHeader)
_ENCODER: Final = msgspec.msgpack.Encoder()


def _decode(decoder: msgspec.msgpack.Decoder[HeaderT], raw: bytes) -> HeaderT:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"header is not valid: {error}") from None


def encode_header(header: RequestHeader | ReplyHeader) -> bytes:
    """msgpack bytes of a header."""
    return _ENCODER.encode(header)


class Interner(Generic[SignatureT]):
    """Bounded map from raw header bytes to their decoded form.

    When it is full, by entries or by bytes, the older half goes: a peer that sends ever new headers costs
    decoding, never memory (a decoded header takes up to some 50 times its bytes).
    """

    def __init__(
        self, decode: Callable[[bytes], SignatureT], limit: int = 4096, limit_nbytes: int = 4 << 20
    ) -> None:
        self._decode = decode
        self._limit = limit
        self._limit_nbytes = limit_nbytes
        self._nbytes = 0
        #: Read directly on the hot path.
        self.known: dict[bytes, SignatureT] = {}

    def get(self, raw: bytes) -> SignatureT:
        """The decoded header.

        Raises:
            ProtocolError: the bytes are not a valid header; nothing is cached then.
        """
        found = self.known.get(raw)
        if found is None:
            found = self._decode(raw)
            if len(self.known) >= self._limit or self._nbytes + len(raw) > self._limit_nbytes:
                self._forget_older_half()
            self.known[raw] = found
            self._nbytes += len(raw)
        return found

    def _forget_older_half(self) -> None:
        for stale in list(self.known):
            if len(self.known) <= self._limit // 2 and self._nbytes <= self._limit_nbytes // 2:
                break
            del self.known[stale]
            self._nbytes -= len(stale)
