"""Value types that every part of tensorwire shares: dtypes by name, tensor and model descriptions."""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import msgspec
import numpy as np

from .errors import InvalidArgumentError

BYTES: Final = "bytes"
STRING: Final = "string"

_ML_DTYPES = (
    "bfloat16",
    "float8_e3m4",
    "float8_e4m3",
    "float8_e4m3b11fnuz",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
_NUMPY_DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)

#: Wire name -> little-endian NumPy dtype, for every fixed-size dtype.
FIXED_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    **{name: np.dtype(name).newbyteorder("<") for name in _NUMPY_DTYPES},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _ML_DTYPES},
}
#: Every dtype name of the protocol. ``bytes`` and ``string`` have elements of variable length and are
#: NumPy object arrays in memory: of ``bytes``, and of ``str`` (UTF-8 on the wire).
DTYPE_NAMES: Final[frozenset[str]] = frozenset((*FIXED_DTYPES, BYTES, STRING))
OBJECT_DTYPE: Final = np.dtype(object)

_NAME_OF_DTYPE: Final[dict[np.dtype[Any], str]] = {dtype: name for name, dtype in FIXED_DTYPES.items()}


def dtype_of(name: str) -> np.dtype[Any]:
    """NumPy dtype for a wire name; ``object`` for ``bytes`` and ``string``.

    Raises:
        InvalidArgumentError: the name is not one of :data:`DTYPE_NAMES`.
    """
    dtype = FIXED_DTYPES.get(name)
    if dtype is not None:
        return dtype
    if name in (BYTES, STRING):
        return OBJECT_DTYPE
    raise InvalidArgumentError(f"unknown dtype {name!r}; expected one of {', '.join(sorted(DTYPE_NAMES))}")


def name_of_dtype(dtype: np.dtype[Any]) -> str:
    """Wire name of a fixed-size NumPy dtype in either byte order.

    Raises:
        InvalidArgumentError: the dtype (object, structured, datetime, ...) has no fixed-size wire form.
    """
    name = _NAME_OF_DTYPE.get(dtype)
    if name is None and dtype.kind in "biufc":
        name = _NAME_OF_DTYPE.get(dtype.newbyteorder("<"))
    if name is None:
        raise InvalidArgumentError(
            f"dtype {dtype} cannot be sent; expected one of {', '.join(sorted(DTYPE_NAMES))}"
        )
    return name


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """Name, dtype and shape of one tensor of a model.

    ``None`` in ``shape`` is a dimension of any size. ``shape`` includes the batch dimension where the
    model has one. ``optional`` inputs may be left out of a request.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    optional: bool = False

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to know in order to call one version of a model."""

    name: str
    version: int
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    #: First axis of every input and output is the batch: requests may be concatenated along it.
    batched: bool
    max_batch_size: int | None = None
    description: str = ""


class VersionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table that ``tensorwire models`` prints."""

    model: str
    version: int
    state: str
    labels: tuple[str, ...] = ()
    #: Whether a request that names neither version nor label goes here.
    default: bool = False
    workers: int = 0
    ram_bytes: int = 0
    #: Why the version failed or waits; empty otherwise.
    reason: str = ""
    #: The state of what is to take its place, the same version under other settings; empty if nothing is.
    replacement: str = ""
