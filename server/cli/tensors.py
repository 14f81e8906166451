"""From what is typed at ``tensorwire predict`` to arrays of the model's dtypes, and from arrays to text."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ...rpc.errors import InvalidArgumentError
from ...rpc.types import BYTES, OBJECT_DTYPE, STRING, ModelMetadata, TensorSpec, dtype_of, name_of_dtype

Array = npt.NDArray[Any]

FORMS: Final = (
    "NAME=FILE.npy, NAME=FILE.json, NAME='[[1, 2]]' (JSON), NAME=@TEXT (one string), NAME=FILE (its content, "
    "for bytes and string inputs), or FILE.npz (every input by its name)"
)


def read_inputs(texts: Iterable[str], metadata: ModelMetadata) -> dict[str, Array]:
    """The inputs of one request.

    Raises:
        InvalidArgumentError: a value cannot be read or does not fit; says which and what is expected.
    """
    specs = {spec.name: spec for spec in metadata.inputs}
    inputs: dict[str, Array] = {}
    for name, value in _named(texts):
        if name not in specs:
            raise InvalidArgumentError(f"no input {name!r}; {expected(metadata.inputs)}")
        if name in inputs:
            raise InvalidArgumentError(f"input {name!r} was given twice")
        spec = specs[name]
        raw = _read(spec, value) if isinstance(value, str) else value
        inputs[name] = _as_row(_convert(spec, raw), spec, metadata.batched)
    missing = [spec.name for spec in metadata.inputs if not spec.optional and spec.name not in inputs]
    if missing:
        raise InvalidArgumentError(f"input {', '.join(missing)} is missing; {expected(metadata.inputs)}")
    return inputs


def expected(specs: Sequence[TensorSpec]) -> str:
    """``expected inputs: x: float32[?, 4]``."""
    listed = "; ".join(f"{spec}{' (optional)' if spec.optional else ''}" for spec in specs)
    return f"expected inputs: {listed or 'none'}"


def _named(texts: Iterable[str]) -> Iterable[tuple[str, str | Array]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if equals:
            yield name, value
        elif text.endswith(".npz"):
            with np.load(_existing(Path(text), text), allow_pickle=False) as arrays:
                yield from cast("Mapping[str, Array]", arrays).items()
        else:
            raise InvalidArgumentError(f"--input: found {text!r}; expected {FORMS}")


def _read(spec: TensorSpec, text: str) -> Any:
    """What was typed as a Python value: an array, a nested list, a scalar, text or bytes."""
    if text.startswith("@"):
        return text[1:]
    path = Path(text)
    try:
        if path.suffix == ".npy":
            return np.load(_existing(path, spec.name), allow_pickle=False)
        if path.suffix == ".json":
            return json.loads(_existing(path, spec.name).read_bytes())
    except (ValueError, EOFError) as error:
        raise InvalidArgumentError(f"input {spec.name!r}: {path} cannot be read: {error}") from None
    if spec.dtype in (BYTES, STRING) and _is_file(path):
        return path.read_bytes()
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidArgumentError(
            f"input {spec.name!r}: {text!r} is neither JSON nor a file that can be used; expected {FORMS}"
        ) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # what was typed is no path at all: too long, or with a NUL
        return False


def _existing(path: Path, name: str) -> Path:
    if not _is_file(path):
        raise InvalidArgumentError(f"input {name!r}: no such file: {path}")
    return path


def _convert(spec: TensorSpec, raw: Any) -> Array:
    if spec.dtype in (BYTES, STRING):
        return _convert_objects(spec, raw)
    target = dtype_of(spec.dtype)
    try:
        array = np.asarray(raw)
        if array.dtype.kind == "V" and array.dtype.itemsize == target.itemsize:
            # numpy.save does not know the names of bfloat16 and float8 and keeps their bytes only.
            return array.view(target)
        if array.dtype == OBJECT_DTYPE or array.dtype.kind not in "biufcV":
            raise ValueError(f"found {_brief(raw)}")
        with np.errstate(all="ignore"):
            converted = array.astype(target)
        _check_lossless(array, converted)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"input {spec.name!r}: {error}; expected {spec}") from None
    return converted


def _check_lossless(array: Array, converted: Array) -> None:
    """Refuse conversions that change values; the rounding of floating-point numbers is not one."""
    if array.dtype.kind == "c" and converted.dtype.kind != "c":
        raise ValueError("found complex numbers")
    if converted.dtype.kind in "fcV":
        lost = np.isfinite(array) & ~np.isfinite(converted)
    else:
        # Signs too: -1 survives the way to an unsigned type and back.
        lost = (converted.astype(array.dtype) != array) | ((array < 0) != (converted < 0))
    if np.any(lost):
        value: Any = array[np.asarray(lost, bool)].reshape(-1)[0]
        raise ValueError(f"{value} does not fit into {name_of_dtype(converted.dtype)}")


def _convert_objects(spec: TensorSpec, raw: Any) -> Array:
    values = np.asarray(raw, dtype=object) if isinstance(raw, list | np.ndarray) else np.array([raw], object)
    if not spec.shape and values.size == 1:
        values = values.reshape(())
    flat = np.empty(values.size, object)
    for index, value in enumerate(values.reshape(-1)):
        flat[index] = _element(spec, value)
    return flat.reshape(values.shape)


def _element(spec: TensorSpec, value: Any) -> bytes | str:
    try:
        if spec.dtype == BYTES and isinstance(value, str | bytes):
            return value.encode() if isinstance(value, str) else bytes(value)
        if spec.dtype == STRING and isinstance(value, str | bytes):
            return value if isinstance(value, str) else bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"input {spec.name!r}: the content is not UTF-8 text") from None
    raise InvalidArgumentError(f"input {spec.name!r}: found {_brief(value)}; expected {spec}")


def _as_row(array: Array, spec: TensorSpec, batched: bool) -> Array:
    """One row may be written without the batch axis."""
    if batched and array.ndim == len(spec.shape) - 1:
        return array[np.newaxis]
    return array


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------- outputs


def readable(name: str, array: Array) -> str:
    """``y: float32[1, 2]`` and the values, long ones shortened."""
    shape = ", ".join(map(str, array.shape))
    values = np.array2string(array, threshold=200, edgeitems=4, max_line_width=100)
    return f"{name}: {dtype_name(array)}[{shape}]\n{values}"


def as_json(array: Array) -> dict[str, Any]:
    """dtype, shape and nested data; bytes in base64, NaN and infinities as null."""
    data = array.tolist() if array.dtype.kind != "V" else array.astype(np.float64).tolist()
    return {"dtype": dtype_name(array), "shape": list(array.shape), "data": _plain(data)}


def dtype_name(array: Array) -> str:
    """Wire name of an array's dtype."""
    if array.dtype != OBJECT_DTYPE:
        return name_of_dtype(array.dtype)
    return BYTES if array.size and isinstance(array.flat[0], bytes) else STRING


def save(path: Path, outputs: Mapping[str, Array]) -> None:
    """Write ``.npz``; strings as fixed-width arrays, so that nothing is pickled.

    Raises:
        InvalidArgumentError: not a ``.npz`` path, it cannot be written, or a value has no form in it.
    """
    arrays: dict[str, Array] = {}
    for name, array in outputs.items():
        if array.dtype == OBJECT_DTYPE:
            fixed = array.astype(bytes if dtype_name(array) == BYTES else str)
            if not np.array_equal(fixed.astype(object), array):
                raise InvalidArgumentError(
                    f"output {name!r}: its bytes end with NUL, which .npz drops; use --json"
                )
            array = fixed
        arrays[name] = array
    try:
        # Not numpy.savez: it takes names as keywords, and an output may be called "file".
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be written: {error.strerror or error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, complex):
        return [value.real, value.imag]
    return value
