"""Recorded requests in a file, for ``tensorwire press --dump``.

One record after the other, so a file grows by appending: a length in four bytes, little-endian, and then as
many bytes of msgpack, ``{"inputs": [{"name", "dtype", "shape", "data"}, ...]}``. ``data`` is the elements in
C order: raw little-endian bytes, or for ``bytes`` and ``string`` tensors a list.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ...rpc.errors import InvalidArgumentError
from ...rpc.types import BYTES, OBJECT_DTYPE, STRING, dtype_of, name_of_dtype

Array = np.ndarray[Any, Any]

_LENGTH: Final = struct.Struct("<I")


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: list[int]
    data: bytes | list[Any]


class _Record(msgspec.Struct, frozen=True):
    inputs: list[_Tensor]


_decode: Final = msgspec.msgpack.Decoder(_Record).decode


def record(path: Path, inputs: Mapping[str, Array]) -> None:
    """Append one request.

    Raises:
        OSError: the file cannot be written.
    """
    body = msgspec.msgpack.encode(_Record([_tensor(name, array) for name, array in inputs.items()]))
    with path.open("ab") as file:
        file.write(_LENGTH.pack(len(body)) + body)


def read(path: Path) -> list[dict[str, Array]]:
    """The requests of a file, in their order.

    Raises:
        ValueError: it holds none, or something else; says where.
        OSError: it cannot be read.
    """
    requests = list(_records(path.read_bytes()))
    if not requests:
        raise ValueError("it holds no request")
    return requests


def _records(content: bytes) -> Iterator[dict[str, Array]]:
    offset = number = 0
    while offset < len(content):
        number += 1
        try:
            (length,) = _LENGTH.unpack_from(content, offset)
            body = content[offset + _LENGTH.size : offset + _LENGTH.size + length]
            if len(body) < length:
                raise ValueError(f"found {len(body)} bytes; expected {length}")
            yield {tensor.name: _array(tensor) for tensor in _decode(body).inputs}
        except (struct.error, msgspec.MsgspecError, ValueError, InvalidArgumentError) as error:
            raise ValueError(f"request {number}, at byte {offset}: {error}") from None
        offset += _LENGTH.size + length


def _tensor(name: str, array: Array) -> _Tensor:
    shape = list(array.shape)
    if array.dtype == OBJECT_DTYPE:
        elements = array.reshape(-1).tolist()
        dtype = BYTES if elements and isinstance(elements[0], bytes) else STRING
        return _Tensor(name, dtype, shape, elements)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return _Tensor(name, name_of_dtype(array.dtype), shape, little.tobytes())


def _array(tensor: _Tensor) -> Array:
    if isinstance(tensor.data, bytes):
        dtype = dtype_of(tensor.dtype)
        if dtype == OBJECT_DTYPE:
            raise ValueError(f"{tensor.name}: found raw bytes; expected a list of elements")
        return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)
    kind = {BYTES: bytes, STRING: str}.get(tensor.dtype)
    if kind is None or not all(isinstance(element, kind) for element in tensor.data):
        raise ValueError(f"{tensor.name}: the elements of the list are not {tensor.dtype}")
    array = np.empty(len(tensor.data), OBJECT_DTYPE)
    array[:] = tensor.data
    return array.reshape(tensor.shape)
