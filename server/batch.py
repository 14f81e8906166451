"""Batches: put together from slices of bundles, run by a servable, taken apart into results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..manager.engines.base import Servable
from ..rpc.errors import InternalError, RpcError, error_from_code
from ..rpc.pump import Slice
from .binding import Binding

Array = npt.NDArray[Any]


class Batch(NamedTuple):
    """One call of a servable, as the scheduler decided it."""

    binding: Binding
    parts: list[Slice]
    rows: int
    max_batch_size: int
    #: Ascending; a batch is padded up to the next of these.
    allowed_batch_sizes: tuple[int, ...]
    #: When the scheduler handed it out, on the server's clock.
    started: float


class Result(NamedTuple):
    """What became of some requests of a batch: outputs, or an error."""

    parts: list[Slice]
    outputs: Sequence[Array] = ()
    error: RpcError | None = None


class Outcome(NamedTuple):
    """What became of a batch."""

    results: list[Result]
    compute_seconds: float
    #: When it began, on the server's clock.
    begun: float
    #: Those whose deadline passed while the batch waited for its worker; they were not computed.
    expired: Sequence[Slice] = ()


def run_batch(servable: Servable, batch: Batch, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Run a batch; if it fails, run its requests one by one, so that a poisonous one fails alone."""
    begin = clock()
    batch, expired = _in_time(batch, begin)
    if not batch.parts:
        return Outcome([], 0.0, begin, expired)
    try:
        results = [Result(batch.parts, _run(servable, batch, batch.parts, batch.rows))]
    except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises becomes a status here, once
        results = after_failure(servable, batch, error)
    return Outcome(results, clock() - begin, begin, expired)


def _in_time(batch: Batch, now: float) -> tuple[Batch, Sequence[Slice]]:
    """A batch without those whose deadline has passed since it was handed out, and those."""
    if all(now < part.bundle.earliest_deadline for part in batch.parts):
        return batch, ()
    parts: list[Slice] = []
    expired: list[Slice] = []
    for bundle, lo, hi in batch.parts:
        alive, late = bundle.split_expired(lo, hi, now)
        parts += [Slice(bundle, *span) for span in alive]
        expired += [Slice(bundle, *span) for span in late]
    return batch._replace(parts=parts, rows=sum(part.rows for part in parts)), expired


def after_failure(servable: Servable, batch: Batch, error: Exception) -> list[Result]:
    """What becomes of a batch that failed as a whole: its requests run one by one, if there are several."""
    singles = [Slice(bundle, index, index + 1) for bundle, lo, hi in batch.parts for index in range(lo, hi)]
    if len(singles) == 1:
        return [Result(singles, error=translated(error, servable))]
    return [_run_single(servable, batch, single) for single in singles]


def translated(error: Exception, servable: Servable) -> RpcError:
    """A foreign exception as a status."""
    if isinstance(error, RpcError):
        # A copy: one instance must not carry the tracebacks of several calls.
        return error_from_code(error.code, error.message)
    metadata = servable.metadata
    return InternalError(
        f"model {metadata.name!r} version {metadata.version} failed: {type(error).__name__}: {error}"
    )


def _run_single(servable: Servable, batch: Batch, single: Slice) -> Result:
    try:
        return Result([single], _run(servable, batch, [single], single.rows))
    except Exception as error:  # noqa: BLE001 - as above
        return Result([single], error=translated(error, servable))


def _run(servable: Servable, batch: Batch, parts: list[Slice], rows: int) -> Sequence[Array]:
    binding = batch.binding
    if not binding.batched:
        (part,) = parts
        inputs = _inputs(part)
        if part.bundle.signature.layout.rows:
            start = part.bundle.row_start(part.lo)
            inputs = {name: block[start : start + rows] for name, block in inputs.items()}
        return _called(servable, binding, inputs)
    if rows <= batch.max_batch_size:
        return _run_rows(servable, batch, _gather(binding, parts), rows)
    inputs = _gather(binding, parts)
    pieces: list[Sequence[Array]] = []
    for start in range(0, rows, batch.max_batch_size):
        end = min(start + batch.max_batch_size, rows)
        pieces.append(
            _run_rows(
                servable, batch, {name: block[start:end] for name, block in inputs.items()}, end - start
            )
        )
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


def _inputs(part: Slice) -> dict[str, Array]:
    """A bundle's blocks by name. Not by the binding's indices: requests of one lane share one binding, and
    may name their inputs in different orders."""
    return dict(zip(part.bundle.signature.layout.names, part.bundle.inputs, strict=True))


def _gather(binding: Binding, parts: list[Slice]) -> dict[str, Array]:
    """One block per input: a view where the rows lie in one piece, else one copy."""
    if len(parts) == 1:
        bundle, lo, hi = parts[0]
        if lo == 0 and hi == bundle.requests:
            return _inputs(parts[0])
        start, end = bundle.row_start(lo), bundle.row_start(hi)
        return {name: block[start:end] for name, block in _inputs(parts[0]).items()}
    spans = [
        (_inputs(part), part.bundle.row_start(part.lo), part.bundle.row_start(part.hi)) for part in parts
    ]
    return {
        name: np.concatenate([blocks[name][lo:hi] for blocks, lo, hi in spans]) for name, _ in binding.names
    }


def _called(servable: Servable, binding: Binding, inputs: dict[str, Array]) -> Sequence[Array]:
    outputs = servable.run(inputs, binding.outputs)
    check_count(binding, outputs)
    return outputs


def check_count(binding: Binding, outputs: Sequence[Array]) -> None:
    """See that the model gave what it was asked for.

    Raises:
        InternalError: it gave more or fewer outputs.
    """
    if len(outputs) != len(binding.outputs):
        raise InternalError(f"the model gave {len(outputs)} outputs; expected {', '.join(binding.outputs)}")


def check_rows(binding: Binding, outputs: Sequence[Array], rows: int) -> None:
    """See that every output has a row for each row that went in.

    Raises:
        InternalError: one has not.
    """
    for name, output in zip(binding.outputs, outputs, strict=True):
        if not output.shape or output.shape[0] != rows:
            raise InternalError(
                f"output {name!r} has shape {list(output.shape)} for {rows} rows; "
                "set `[batching] enabled = false` in model.toml if the model has no batch axis"
            )


def _run_rows(servable: Servable, batch: Batch, inputs: dict[str, Array], rows: int) -> Sequence[Array]:
    padded = padded_size(rows, batch.allowed_batch_sizes)
    if padded > rows > 0:
        # The last row again: values that the model has seen, where zeros might be out of its domain.
        inputs = {
            name: np.concatenate((block, np.repeat(block[-1:], padded - rows, axis=0)))
            for name, block in inputs.items()
        }
    outputs = _called(servable, batch.binding, inputs)
    check_rows(batch.binding, outputs, padded if rows else 0)
    return outputs


def padded_size(rows: int, allowed: Sequence[int]) -> int:
    """The smallest allowed batch size that holds ``rows``; ``rows`` itself if none does."""
    for size in allowed:
        if size >= rows:
            return size
    return rows
