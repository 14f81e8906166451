"""Running a batch: which calls of the servable it takes, and what their outcomes mean. No I/O.

The steps are a generator: it yields each call, is sent the outputs or thrown the error, and returns the
results. So a thread that calls the servable itself and a process that is asked to run them the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..manager.engines.base import Servable
from ..rpc.errors import InternalError, RpcError, error_from_code
from ..rpc.pump import Slice
from ..rpc.types import ModelMetadata
from .batch import (
    Batch,
    Call,
    Outcome,
    Result,
    check_count,
    check_rows,
    in_time,
    padded_size,
    pieces,
    singles,
)

Array = npt.NDArray[Any]
Outputs = Sequence[Array]
Steps = Generator[Call, Outputs, list[Result]]


def execute(batch: Batch, metadata: ModelMetadata) -> Steps:
    """Run a batch; if it fails, run its requests one by one, so that a poisonous one fails alone."""
    try:
        return [Result(batch.parts, (yield from _run(batch)))]
    except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises becomes a status here, once
        return (yield from recover(batch, metadata, error))


def plain_call(batch: Batch) -> Call | None:
    """The only call that a batch needs unless it fails; None: it needs several."""
    if batch.binding.batched and batch.rows > batch.max_batch_size:
        return None
    return _call(batch, pieces(batch.binding, batch.parts), batch.rows)


def plain_results(batch: Batch, outputs: Outputs) -> list[Result]:
    """What comes of the outputs of :func:`plain_call`.

    Raises:
        InternalError: the model gave more or less than it should.
    """
    _check(batch, outputs, batch.rows)
    return [Result(batch.parts, outputs)]


def recover(batch: Batch, metadata: ModelMetadata, error: Exception) -> Steps:
    """What becomes of a batch that failed as a whole: its requests run one by one, if there are several."""
    alone = singles(batch.parts)
    if len(alone) == 1:
        return [Result(alone, error=translated(error, metadata))]
    results: list[Result] = []
    for single in alone:
        results.append((yield from _run_single(batch, single, metadata)))  # noqa: PERF401 - it yields
    return results


def drive(steps: Steps, call: Callable[[Call], Outputs]) -> list[Result]:
    """Carry the steps out one after the other, here."""
    try:
        wanted = next(steps)
        while True:
            try:
                outputs = call(wanted)
            except Exception as error:  # noqa: BLE001 - the steps know what it means
                wanted = steps.throw(error)
            else:
                wanted = steps.send(outputs)
    except StopIteration as end:
        results: list[Result] = end.value
        return results


def called_by(servable: Servable) -> Callable[[Call], Outputs]:
    """Calls that run here, in the calling thread."""
    return lambda call: servable.run(call.assembled(), call.outputs)


def run_batch(servable: Servable, batch: Batch, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Run a batch in the calling thread, without those whose deadline has passed."""
    begin = clock()
    batch, expired = in_time(batch, begin)
    if not batch.parts:
        return Outcome([], 0.0, begin, expired)
    results = drive(execute(batch, servable.metadata), called_by(servable))
    return Outcome(results, clock() - begin, begin, expired)


def translated(error: Exception, metadata: ModelMetadata) -> RpcError:
    """A foreign exception as a status."""
    if isinstance(error, RpcError):
        # A copy: one instance must not carry the tracebacks of several calls.
        return error_from_code(error.code, error.message)
    return InternalError(
        f"model {metadata.name!r} version {metadata.version} failed: {type(error).__name__}: {error}"
    )


def _run_single(batch: Batch, single: Slice, metadata: ModelMetadata) -> Generator[Call, Outputs, Result]:
    try:
        return Result([single], (yield from _run(batch._replace(parts=[single], rows=single.rows))))
    except Exception as error:  # noqa: BLE001 - as above
        return Result([single], error=translated(error, metadata))


def _run(batch: Batch) -> Generator[Call, Outputs, Outputs]:
    call = plain_call(batch)
    if call is not None:
        outputs = yield call
        _check(batch, outputs, batch.rows)
        return outputs
    blocks = Call(pieces(batch.binding, batch.parts), 0, ()).assembled()
    columns: list[Outputs] = []
    for start in range(0, batch.rows, batch.max_batch_size):
        end = min(start + batch.max_batch_size, batch.rows)
        outputs = yield _call(
            batch, {name: [block[start:end]] for name, block in blocks.items()}, end - start
        )
        _check(batch, outputs, end - start)
        columns.append(outputs)
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


def _call(batch: Batch, inputs: dict[str, list[Array]], rows: int) -> Call:
    binding = batch.binding
    return Call(inputs, _padded(batch, rows) - rows if binding.batched else 0, binding.outputs)


def _padded(batch: Batch, rows: int) -> int:
    return padded_size(rows, batch.allowed_batch_sizes) if rows else 0


def _check(batch: Batch, outputs: Outputs, rows: int) -> None:
    check_count(batch.binding, outputs)
    if batch.binding.batched:
        check_rows(batch.binding, outputs, _padded(batch, rows))
