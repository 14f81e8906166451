"""Requests as templates: what is the same for every call with the same names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..rpc.errors import InvalidArgumentError
from ..rpc.types import BYTES, OBJECT_DTYPE, STRING, dtype_of, name_of_dtype
from ..rpc.wire.extra import PRIORITY_HIGH, PRIORITY_NORMAL, Extra, encode_body
from ..rpc.wire.header import Layout, RequestHeader, TensorHeader, encode_header
from ..rpc.wire.message import payload_of

Array = npt.NDArray[Any]
Inputs = Mapping[str, npt.ArrayLike]

#: Requests with more bytes than this travel alone.
FUSE_LIMIT: Final = 16_384
_TEMPLATES_KEPT: Final = 4096
_NDARRAY: Final = np.ndarray


class Options:
    """What a call asks for besides its tensors; one object for all calls that ask for the same."""

    __slots__ = ("extra", "label", "model", "outputs", "version")

    def __init__(
        self,
        model: str,
        version: int | None,
        label: str | None,
        outputs: tuple[str, ...] | None,
        extra: bytes,
    ) -> None:
        if version is not None and label is not None:
            raise InvalidArgumentError(
                f"got version {version} and label {label!r}; give one of them or neither"
            )
        self.model = model
        self.version = version
        self.label = label
        self.outputs = outputs
        self.extra = extra


class Template:
    """Everything about a request but its id, timeout and values.

    Attributes:
        header, extra: bytes on the wire.
        layout: of the inputs.
        rows: rows per request; 1 where the inputs share none.
        plain: whether a C-contiguous array is its own payload.
        fusable: whether several such requests may travel in one message.
        nbytes: bytes of all inputs of one request (of fixed-size dtypes).
        group: the calls of this kind that wait to be sent; owned by the channel.
        tails: by timeout, what follows the id in the head frame of one such request, up to the tensor;
            empty where it needs more than that.
    """

    __slots__ = ("extra", "fusable", "group", "header", "layout", "nbytes", "plain", "rows", "tails")

    def __init__(self, options: Options, names: Sequence[str], arrays: Sequence[Array]) -> None:
        shared = _shared_rows(arrays)
        self.rows = 1 if shared is None else shared
        tensors = tuple(
            TensorHeader(name, _wire_dtype(name, array), array.shape if shared is None else array.shape[1:])
            for name, array in zip(names, arrays, strict=True)
        )
        self.layout = Layout(tensors, shared is not None)
        self.header = encode_header(
            RequestHeader(
                options.model, tensors, options.version, options.label, options.outputs, shared is not None
            )
        )
        self.extra = options.extra
        self.nbytes = sum(self.layout.row_nbytes) * self.rows
        self.plain = all(_exports_buffer(array) for array in arrays)
        self.fusable = self.layout.groupable and self.nbytes <= FUSE_LIMIT
        self.group: Any = None
        self.tails: dict[float | None, bytes] = {}

    def payloads(self, arrays: Sequence[Array]) -> list[Any]:
        """The inputs as they travel."""
        return [payload_of(array) for array in arrays]


class Templates:
    """Bounded cache of templates; the common call costs one tuple and one look-up."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Template] = {}
        #: By model its last call of one input and without options: name, dtype, shape, template.
        self._last: dict[str, tuple[str, np.dtype[Any], tuple[int, ...], Template]] = {}

    def get(
        self,
        model: str,
        inputs: Inputs,
        version: int | None,
        label: str | None,
        outputs: Sequence[str] | None,
        extra: bytes,
    ) -> tuple[Template, list[Array]]:
        """The template of a call and its inputs as arrays.

        Raises:
            InvalidArgumentError: an input cannot be sent, or the options contradict each other.
        """
        plain = version is None and label is None and outputs is None and not extra and len(inputs) == 1
        last = self._last.get(model) if plain else None
        if last is not None:
            name, dtype, shape, template = last
            array = inputs.get(name)
            if type(array) is _NDARRAY and array.dtype is dtype and array.shape == shape:
                return template, [array]
        arrays = [array if type(array) is _NDARRAY else as_array(array) for array in inputs.values()]
        wanted = None if outputs is None else tuple(outputs)
        key: tuple[Any, ...]
        if len(arrays) == 1:
            (name,) = inputs
            array = arrays[0]
            key = (model, name, array.dtype, array.shape, version, label, wanted, extra)
        else:
            key = (model, version, label, wanted, extra, *inputs, *[(a.dtype, a.shape) for a in arrays])
        template = self._known.get(key)
        if template is None:
            template = Template(Options(model, version, label, wanted, extra), list(inputs), arrays)
            if any(array.dtype == OBJECT_DTYPE for array in arrays):
                # Whether its elements are text or bytes is in the values, not in the key.
                return template, arrays
            if len(self._known) >= _TEMPLATES_KEPT:
                self._known.clear()
            self._known[key] = template
        if plain:
            if len(self._last) >= _TEMPLATES_KEPT:
                self._last.clear()
            self._last[model] = (next(iter(inputs)), arrays[0].dtype, arrays[0].shape, template)
        return template, arrays


def encode_extra(routing_key: bytes | str | None, priority: int, metadata: Mapping[str, Any] | None) -> bytes:
    """The extra part of a request; empty if everything has its default.

    Raises:
        InvalidArgumentError: the priority is not known or the metadata cannot be encoded.
    """
    if routing_key is None and not priority and metadata is None:
        return b""
    if priority not in (PRIORITY_NORMAL, PRIORITY_HIGH):
        raise InvalidArgumentError(f"priority is {priority}, expected 0 (normal) or 1 (high)")
    key = routing_key.encode() if isinstance(routing_key, str) else routing_key
    try:
        return encode_body(Extra(priority, key, None, None if metadata is None else dict(metadata)))
    except TypeError as error:
        raise InvalidArgumentError(f"metadata cannot be encoded: {error}") from None


def as_array(value: npt.ArrayLike) -> Array:
    """A value as an array.

    Raises:
        InvalidArgumentError: it is ragged or of a kind that cannot be sent.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind in "SU" and not isinstance(value, np.ndarray | np.generic):
            # NumPy's text of fixed width drops zero bytes at the end and takes numbers for text.
            array = np.asarray(value, dtype=OBJECT_DTYPE)
    except ValueError as error:
        raise InvalidArgumentError(f"input is not an array: {error}") from None
    return array


def _shared_rows(arrays: Sequence[Array]) -> int | None:
    """The leading dimension that all tensors share; None if there is none."""
    leading = {array.shape[0] if array.ndim else None for array in arrays}
    return leading.pop() if len(leading) == 1 else None


def _wire_dtype(name: str, array: Array) -> str:
    kind = array.dtype.kind
    if kind == "U":
        return STRING
    if kind == "S":
        return BYTES
    if kind == "O":
        first = next(iter(array.flat), "")
        if isinstance(first, str):
            return STRING
        if isinstance(first, bytes | bytearray):
            return BYTES
        raise InvalidArgumentError(
            f"input {name!r} is an object array of {type(first).__name__}; expected str or bytes elements"
        )
    try:
        return name_of_dtype(array.dtype)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"input {name!r}: {error.message}") from None


def _exports_buffer(array: Array) -> bool:
    """Whether the buffer protocol gives an array's bytes as they travel."""
    return (
        array.dtype.kind in "biufc" and array.dtype == dtype_of(name_of_dtype(array.dtype)) and array.ndim > 0
    )
