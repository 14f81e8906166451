"""Payload of tensors whose elements have variable length (``bytes`` and ``string``).

For n elements in row-major order: n lengths (u32), then the elements' bytes, back to back. The number of
elements follows from the shape in the header and the rows; strings are UTF-8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError, ProtocolError
from ..types import STRING
from .prefix import U32_MAX

ObjectArray = np.ndarray[Any, np.dtype[np.object_]]


def _element(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(f"string {value!a:.60} has no UTF-8 form: {error.reason}") from None
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    kind = type(value).__name__
    raise InvalidArgumentError(f"element {value!r:.60} of a bytes or string tensor is a {kind}")


def encode_varlen(array: npt.NDArray[Any]) -> bytes:
    """Payload of an array of ``str`` or ``bytes`` elements.

    Raises:
        InvalidArgumentError: an element is neither ``str`` nor bytes-like, has no UTF-8 form, or is 4 GiB
            or larger.
    """
    elements = [_element(value) for value in array.ravel().tolist()]
    lengths = [len(element) for element in elements]
    if lengths and max(lengths) > U32_MAX:
        raise InvalidArgumentError("an element of a bytes or string tensor is 4 GiB or larger")
    return b"".join((np.array(lengths, dtype="<u4").tobytes(), *elements))


def decode_varlen(payload: bytes | memoryview, elements: int, dtype: str) -> ObjectArray:
    """A flat object array of ``elements`` values, ``str`` for dtype ``string``, else ``bytes``.

    Raises:
        ProtocolError: the lengths do not add up to the payload, or a string is not UTF-8.
    """
    view = memoryview(payload)
    if len(view) < 4 * elements:
        raise ProtocolError(f"{dtype} tensor of {elements} elements has only {len(view)} bytes")
    lengths = np.frombuffer(view, dtype="<u4", count=elements)
    ends = np.cumsum(lengths, dtype=np.int64) + 4 * elements
    total = int(ends[-1]) if elements else 0
    if total != len(view):
        raise ProtocolError(f"{dtype} tensor: lengths add up to {total} bytes, payload has {len(view)}")
    out: ObjectArray = np.empty(elements, dtype=object)
    start = 4 * elements
    for index, end in enumerate(ends.tolist()):
        out[index] = bytes(view[start:end])
        start = end
    if dtype == STRING:
        try:
            out[:] = [value.decode() for value in out]
        except UnicodeDecodeError as error:
            raise ProtocolError(f"string tensor is not valid UTF-8: {error.reason}") from None
    return out
