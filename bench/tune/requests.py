"""What is sent: requests cut from a sample, or made up from a model's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ...rpc.types import BYTES, STRING, ModelMetadata, TensorSpec, dtype_of

Array = np.ndarray[Any, Any]
Request = dict[str, Array]

#: Different requests that are made up or cut, at most.
_MOST: Final = 64
_MADE: Final = 16
#: Integers that are made up are below this: they are often indices.
_SMALL: Final = 2


def cut(inputs: Mapping[str, Array], rows: int | None, *, batched: bool) -> list[Request]:
    """One request as it is, or, with ``rows``, as many requests of so many rows as there are.

    Raises:
        ValueError: the inputs cannot be cut so.
    """
    whole = dict(inputs)
    if rows is None:
        return [whole]
    if not batched:
        raise ValueError("the model takes single requests; there are no rows to choose")
    lengths = {name: len(array) if array.ndim else 0 for name, array in whole.items()}
    length = min(lengths.values())
    if len(set(lengths.values())) != 1 or length < 1:
        raise ValueError(f"the inputs have different numbers of rows: {lengths}")
    if length < rows:
        # Too few for one request: they are repeated.
        return [{name: array[np.arange(rows) % length] for name, array in whole.items()}]
    count = min(_MOST, length // rows)
    return [
        {name: array[number * rows : (number + 1) * rows] for name, array in whole.items()}
        for number in range(count)
    ]


def made_up(
    metadata: ModelMetadata, rows: int | None, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[list[Request]]:
    """Requests from the metadata alone, in the order in which to try them: random numbers, zeros, ones.

    Open dimensions are 1, except in ``shapes``: by name, whole shapes.
    """
    generator = np.random.default_rng(0)
    rows = (rows or 1) if metadata.batched else None

    def request(fill: int | None) -> Request:
        return {
            spec.name: _array(spec, (shapes or {}).get(spec.name) or _shape(spec, rows), generator, fill)
            for spec in metadata.inputs
            if not spec.optional or (shapes and spec.name in shapes)
        }

    return [[request(None) for _ in range(_MADE)], [request(0)], [request(1)]]


def described(request: Mapping[str, Array], metadata: ModelMetadata) -> str:
    """``x float32[1, 4]``."""
    specs = {spec.name: spec for spec in metadata.inputs}
    return ", ".join(
        f"{name} {specs[name].dtype}[{', '.join(map(str, array.shape))}]" for name, array in request.items()
    )


def _shape(spec: TensorSpec, rows: int | None) -> tuple[int, ...]:
    shape = tuple(1 if dim is None else dim for dim in spec.shape)
    return shape if rows is None else (rows, *shape[1:])


def _array(
    spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator, fill: int | None
) -> Array:
    if spec.dtype in (BYTES, STRING):
        text = "" if fill == 0 else "1"
        full = np.empty(shape, object)
        full.fill(text.encode() if spec.dtype == BYTES else text)
        return full
    dtype = dtype_of(spec.dtype)
    if fill is not None:
        return np.full(shape, fill, dtype)
    if dtype.kind in "biu":
        return generator.integers(0, _SMALL, shape).astype(dtype)
    return generator.random(shape).astype(dtype)
