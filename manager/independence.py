"""Does a row's answer depend on the rows beside it? Then requests must not be put into one batch.

A model whose first dimension is really time, or that normalises over the batch, takes batches without
an error and answers wrongly. Shapes do not tell, so the warm-up tries it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ..rpc.types import BYTES, STRING, ModelMetadata, TensorSpec, dtype_of

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]
Run = Callable[[Inputs], list[Array]]

#: Largest difference that counts as rounding, relative to the largest value of the output. Wide, because
#: dynamically quantised models choose one scale for the whole batch.
_TOLERANCE: Final = 0.1


def two_rows(metadata: ModelMetadata) -> Inputs:
    """Two different rows for every input, unknown dimensions 1."""
    generator = np.random.default_rng(0)
    return {spec.name: _pair(spec, generator) for spec in metadata.inputs if not spec.optional}


def _pair(spec: TensorSpec, generator: np.random.Generator) -> Array:
    shape = (2, *(1 if dim is None else dim for dim in spec.shape[1:]))
    if spec.dtype in (BYTES, STRING):
        pair = np.empty(shape, object)
        pair[0] = b"" if spec.dtype == BYTES else ""
        pair[1] = b"1" if spec.dtype == BYTES else "1"
        return pair
    dtype = dtype_of(spec.dtype)
    if dtype.kind in "biu":
        # Small numbers: they are often indices.
        pair = np.zeros(shape, dtype)
        pair[1] = 1
        return pair
    return generator.standard_normal(shape).astype(dtype)


def dependent_output(run: Run, rows: Inputs, names: Sequence[str]) -> str | None:
    """Name of an output whose rows depend on each other; ``None`` if none is seen to.

    Args:
        run: the model.
        rows: two different rows for every input.
        names: names of the outputs that ``run`` gives.

    A model that answers the same input differently from time to time (random numbers, state) tells nothing.
    """
    first = {name: array[:1] for name, array in rows.items()}
    second = {name: array[1:] for name, array in rows.items()}
    alone, again, other, together = run(first), run(first), run(second), run(rows)
    for name, one, repeated, two, both in zip(names, alone, again, other, together, strict=True):
        if both.ndim == 0 or both.shape[0] != 2 or not _close(one, repeated):
            continue
        if not (_close(one, both[:1]) and _close(two, both[1:])):
            return name
    return None


def _close(left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype == object:
        return bool(np.all(left == right))
    numbers = np.complex128 if left.dtype.kind == "c" else np.float64
    expected, found = left.astype(numbers), right.astype(numbers)
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    if not finite.any():
        return True
    scale = float(np.abs(expected[finite]).max())
    return bool(np.abs(expected[finite] - found[finite]).max() <= _TOLERANCE * scale + 1e-6)
