"""Warm-up: run a freshly loaded version at every batch size before it serves, and measure what a run costs.

It fails here rather than at the first request; first runs, which allocate and tune, happen here too.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np

from ..rpc.errors import AbortedError, InvalidArgumentError, RpcError
from ..rpc.types import BYTES, OBJECT_DTYPE, STRING, ModelMetadata, TensorSpec, dtype_of
from .independence import dependent_output, two_rows

if TYPE_CHECKING:
    from .engines.base import Servable

_log = logging.getLogger("tensorwire.manager")

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]

WARMUP_NAME: Final = "warmup.npz"
#: Batches with more input than this are not run: they would cost more memory than they save time.
_MAX_BYTES: Final = 64 << 20
_REPEATS: Final = 3
#: Runs longer than this (seconds) are measured once.
_SLOW: Final = 0.2
#: Between 1 and the largest batch this many sizes are run when the configuration lists none.
_MAX_SIZES: Final = 32


class NotBatchable(InvalidArgumentError):
    """The model takes single requests but not batches of them."""


def batch_sizes(max_batch_size: int, allowed: Sequence[int]) -> tuple[int, ...]:
    """Sizes to run: the allowed ones, or 1 and the largest; always ascending, with 1."""
    if allowed:
        sizes = sorted(set(allowed))
        return tuple(sizes if len(sizes) <= _MAX_SIZES else [*sizes[: _MAX_SIZES - 1], sizes[-1]])
    return tuple(sorted({1, max_batch_size}))


def load_samples(directory: Path, metadata: ModelMetadata) -> Inputs | None:
    """Inputs from ``warmup.npz`` in the version directory; ``None`` where there is none.

    Raises:
        InvalidArgumentError: not an npz file, or its arrays are not this model's inputs.
    """
    path = directory / WARMUP_NAME
    try:
        # Opened here, because np.load leaves its own file open when the contents are bad.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            samples: Inputs = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, BadZipFile, TypeError, AttributeError) as error:
        raise InvalidArgumentError(f"{WARMUP_NAME}: cannot be read as an npz file: {error}") from error
    specs = {spec.name: spec for spec in metadata.inputs}
    missing = [spec.name for spec in metadata.inputs if spec.name not in samples and not spec.optional]
    unknown = [name for name in samples if name not in specs]
    if missing or unknown:
        raise InvalidArgumentError(
            f"{WARMUP_NAME}: found arrays {sorted(samples)}; expected the model's inputs {sorted(specs)}"
        )
    return {name: _check_sample(array, specs[name], metadata.batched) for name, array in samples.items()}


def _check_sample(array: Array, spec: TensorSpec, batched: bool) -> Array:
    if spec.dtype == BYTES and array.dtype.kind in "SU":
        encoded: Array = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        array = encoded.astype(object)
    elif spec.dtype == STRING and array.dtype.kind in "SU":
        decoded: Array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        array = decoded.astype(object)
    elif array.dtype != dtype_of(spec.dtype):
        raise InvalidArgumentError(f"{WARMUP_NAME}: {spec.name} is {array.dtype}; expected {spec}")
    fits = array.ndim == len(spec.shape) and all(
        want is None or have == want
        for axis, (have, want) in enumerate(zip(array.shape, spec.shape, strict=True))
        if axis or not batched
    )
    if not fits or (batched and not array.shape[0]):
        raise InvalidArgumentError(f"{WARMUP_NAME}: {spec.name} has shape {array.shape}; expected {spec}")
    return array


def make_inputs(metadata: ModelMetadata, rows: int | None, fill: int) -> Inputs:
    """Inputs of the declared shapes: all ``fill`` (0 or 1), unknown dimensions 1, ``rows`` in front."""
    return {spec.name: _make_input(spec, rows, fill) for spec in metadata.inputs if not spec.optional}


def _make_input(spec: TensorSpec, rows: int | None, fill: int) -> Array:
    shape = tuple(1 if dim is None else dim for dim in spec.shape)
    if rows is not None:
        shape = (rows, *shape[1:])
    if spec.dtype in (BYTES, STRING):
        text = "1" if fill else ""
        full = np.empty(shape, OBJECT_DTYPE)
        full.fill(text.encode() if spec.dtype == BYTES else text)
        return full
    return np.full(shape, fill, dtype_of(spec.dtype))


def _resize(samples: Inputs, rows: int | None) -> Inputs:
    if rows is None:
        return dict(samples)
    return {name: array[np.arange(rows) % array.shape[0]] for name, array in samples.items()}


def _bytes_per_row(metadata: ModelMetadata) -> int:
    size = 0
    for spec in metadata.inputs:
        dtype = dtype_of(spec.dtype)
        size += dtype.itemsize * math.prod(1 if dim is None else dim for dim in spec.shape[1:])
    return size


class WarmUp:
    """The warm-up of one servable.

    Args:
        servable: the loaded model.
        samples: contents of ``warmup.npz``, or ``None`` for generated inputs.
        stop: asked between runs; true ends the warm-up.
        timer: seconds, for measuring.
    """

    def __init__(
        self,
        servable: Servable,
        samples: Inputs | None,
        *,
        stop: Callable[[], bool] = lambda: False,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._servable = servable
        self._samples = samples
        self._stop = stop
        self._timer = timer
        self._outputs = [spec.name for spec in servable.metadata.outputs]

    def run_single(self) -> Mapping[int, float]:
        """Run an unbatched model; gives ``{1: seconds}``.

        Raises:
            RpcError: the model failed; the message says with which inputs.
        """
        _, seconds = self._run(None)
        return {1: seconds}

    def run_batches(self, sizes: Sequence[int]) -> Mapping[int, float]:
        """Run a batched model at each size; gives rows -> seconds.

        Raises:
            NotBatchable: one size works and a larger one does not, or the outputs do not have as many rows
                as the inputs.
            RpcError: the model failed at the smallest size.
        """
        costs: dict[int, float] = {}
        row_bytes = _bytes_per_row(self._servable.metadata)
        for rows in sizes:
            if costs and rows * row_bytes > _MAX_BYTES:
                _log.info("%s: no warm-up of %d rows (over %d MiB)", self._name, rows, _MAX_BYTES >> 20)
                continue
            try:
                outputs, costs[rows] = self._run(rows)
            except AbortedError:
                raise
            except RpcError as error:
                if not costs:
                    raise
                raise NotBatchable(
                    f"works with {min(costs)} rows but not with {rows}: {error.message}"
                ) from error
            self._check_rows(outputs, rows)
        return costs

    def check_independence(self) -> None:
        """Run two rows together and apart.

        Raises:
            NotBatchable: a row's answer depends on the row beside it.
        """
        samples = self._samples
        rows = two_rows(self._servable.metadata) if samples is None else _resize(samples, 2)
        try:
            name = dependent_output(lambda inputs: self._timed(inputs)[0], rows, self._outputs)
        except AbortedError:
            raise
        except RpcError as error:
            # Generated rows need not be valid; whether the model works at all is for the batches to tell.
            _log.debug("%s: independence of rows not checked: %s", self._name, error.message)
            return
        if name is not None:
            raise NotBatchable(
                f"a row of output {name} changes with the other rows of its batch "
                "(if that is intended, set `[batching] enabled = true` in model.toml)"
            )

    @property
    def _name(self) -> str:
        metadata = self._servable.metadata
        return f"{metadata.name}:{metadata.version}"

    def _check_rows(self, outputs: Sequence[Array], rows: int) -> None:
        for name, array in zip(self._outputs, outputs, strict=True):
            if array.ndim == 0 or array.shape[0] != rows:
                raise NotBatchable(f"output {name} has shape {array.shape} for {rows} rows of input")

    def _run(self, rows: int | None) -> tuple[list[Array], float]:
        inputs = self._first_inputs(rows)
        outputs, best = self._timed(inputs)
        for _ in range(_REPEATS if best < _SLOW else 0):
            outputs, seconds = self._timed(inputs)
            best = min(best, seconds)
        return outputs, best

    def _first_inputs(self, rows: int | None) -> Inputs:
        """Inputs that the model takes, having run it once: the samples, else zeros, else ones."""
        if self._samples is not None:
            inputs = _resize(self._samples, rows)
            self._timed(inputs)
            return inputs
        metadata = self._servable.metadata
        inputs = make_inputs(metadata, rows, 0)
        try:
            self._timed(inputs)
        except AbortedError:
            raise
        except RpcError as error:
            # Zeros can be wrong where ones are right: lengths, divisors.
            inputs = make_inputs(metadata, rows, 1)
            try:
                self._timed(inputs)
            except RpcError:
                raise type(error)(
                    f"{error.message} (inputs were generated; put real ones into {WARMUP_NAME} if this model "
                    "cannot take zeros or ones)",
                    error.code,
                ) from error
        return inputs

    def _timed(self, inputs: Inputs) -> tuple[list[Array], float]:
        if self._stop():
            raise AbortedError("the load was cancelled")
        begun = self._timer()
        outputs = self._servable.run(inputs, self._outputs)
        return outputs, self._timer() - begun
