"""Batches: put together from slices of bundles, and what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..rpc.errors import InternalError, RpcError
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
    #: Its requests were run when a worker died, and are run once more.
    again: bool = False


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


class Call(NamedTuple):
    """One call of a servable that a batch needs.

    Attributes:
        inputs: per input, the pieces whose rows make its block, one behind the other; or the tensor itself.
        padding: so many times the last row again.
        outputs: names of those wanted.
    """

    inputs: dict[str, list[Array]]
    padding: int
    outputs: Sequence[str]

    def assembled(self) -> dict[str, Array]:
        """The inputs as blocks: the piece itself where there is one, else one copy."""
        if self.padding:
            # Values that the model has seen, where zeros might be out of its domain.
            return {
                name: np.concatenate((*pieces, np.repeat(pieces[-1][-1:], self.padding, axis=0)))
                for name, pieces in self.inputs.items()
            }
        return {
            name: pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            for name, pieces in self.inputs.items()
        }


def in_time(batch: Batch, now: float) -> tuple[Batch, Sequence[Slice]]:
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


def earliest_deadline(batch: Batch) -> float:
    """When the first of a batch's requests expires."""
    earliest = math.inf
    for bundle, lo, hi in batch.parts:
        if lo == 0 and hi == bundle.requests:
            earliest = min(earliest, bundle.earliest_deadline)
            continue
        at = lo
        while at < hi:
            at, deadline = bundle.deadline_run(at, hi)
            earliest = min(earliest, deadline)
    return earliest


def singles(parts: Sequence[Slice]) -> list[Slice]:
    """Each request by itself."""
    return [Slice(bundle, index, index + 1) for bundle, lo, hi in parts for index in range(lo, hi)]


def pieces(binding: Binding, parts: Sequence[Slice]) -> dict[str, list[Array]]:
    """Per input, the rows of some requests where they lie."""
    found: dict[str, list[Array]] = {name: [] for name, _ in binding.names}
    for bundle, lo, hi in parts:
        # By name, not by the binding's indices: requests of one lane share one binding, and may name their
        # inputs in different orders.
        layout = bundle.signature.layout
        blocks = zip(layout.names, bundle.inputs, strict=True)
        if not layout.rows or (lo == 0 and hi == bundle.requests):
            for name, block in blocks:
                found[name].append(block)
        else:
            start, end = bundle.row_start(lo), bundle.row_start(hi)
            for name, block in blocks:
                found[name].append(block[start:end])
    return found


def padded_size(rows: int, allowed: Sequence[int]) -> int:
    """The smallest allowed batch size that holds ``rows``; ``rows`` itself if none does."""
    for size in allowed:
        if size >= rows:
            return size
    return rows


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
