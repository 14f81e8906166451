"""What ``tensorwire tune`` sends and which settings it tries, where the operator has not said so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ...bench.tune.points import KINDS, Space
from ...bench.tune.requests import Request as Inputs
from ...bench.tune.requests import cut, described, made_up
from ...bench.tune.session import Plan
from ...client import Client
from ...rpc.errors import InternalError, InvalidArgumentError, RpcError
from ...rpc.types import ModelMetadata
from .common import USAGE, fail
from .tensors import expected, read_inputs
from .tune_machine import server_cores
from .tune_present import Present

_DELAYS: Final = (0.0, 0.001, 0.002)
_Notes = list[str]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to call, and with what: ``texts`` as for `tensorwire predict`.

    ``shapes``: of inputs that are made up. ``hint``: which option takes real ones.
    """

    model: str
    version: int | None
    label: str | None
    texts: list[str]
    rows: int | None
    shapes: dict[str, tuple[int, ...]] = {}
    hint: str = "--sample takes real requests"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The values to try, where the operator has named them."""

    kinds: list[str] | None = None
    counts: list[int] | None = None
    batches: list[int] | None = None
    delays: list[float] | None = None


def prepare_requests(
    client: Client, metadata: ModelMetadata, request: Request, notes: _Notes
) -> tuple[list[Inputs], str]:
    """The requests, which the model has been seen to answer, and how they are described."""
    choices = _choices(metadata, request)
    origin = "given"
    if not request.texts:
        origin = "made up"
        notes.append(f"the sample was made up from the metadata (open dimensions are 1); {request.hint}")
    for requests in choices[:-1]:
        try:
            client.predict(request.model, requests[0], version=request.version, label=request.label)
        except (InvalidArgumentError, InternalError):
            continue  # zeros and ones may do
        return requests, _description(requests, metadata, origin)
    try:
        client.predict(request.model, choices[-1][0], version=request.version, label=request.label)
    except (InvalidArgumentError, InternalError) as error:
        fail(f"the model does not take the sample: {error}; {expected(metadata.inputs)}")
    except RpcError as error:
        fail(f"the model does not answer the sample: {error}")
    return choices[-1], _description(choices[-1], metadata, origin)


def _choices(metadata: ModelMetadata, request: Request) -> list[list[Inputs]]:
    if not request.texts:
        return made_up(metadata, request.rows, request.shapes)
    try:
        return [cut(read_inputs(request.texts, metadata), request.rows, batched=metadata.batched)]
    except InvalidArgumentError as error:
        fail(error.message, USAGE)
    except ValueError as error:
        fail(f"--rows: {error}", USAGE)


def _description(requests: Sequence[Inputs], metadata: ModelMetadata, origin: str) -> str:
    count = f"{len(requests)} different requests" if len(requests) > 1 else "requests"
    return f"{count} of {described(requests[0], metadata)}, {origin}"


def prepare_space(present: Present, wanted: Wanted, plan: Plan, pid: int | None, notes: _Notes) -> Space:
    """What is tried: what the operator named, else what makes sense. ``pid``: of a server on this machine."""
    here = present.point
    counts = wanted.counts or _sensible_counts(here.count, pid, notes)
    batches: Sequence[int] = (here.batch,)
    delays: Sequence[float] = (here.delay,)
    if present.batched:
        batches = wanted.batches or _sensible_batches(present)
        delays = wanted.delays if wanted.delays else _sensible_delays(plan.objective, here.delay)
    elif wanted.batches or wanted.delays:
        notes.append("the model runs every request alone: --batch-sizes and --delays mean nothing to it")
    return Space.of(wanted.kinds or KINDS, counts, batches, delays)


def _sensible_counts(here: int, pid: int | None, notes: _Notes) -> list[int]:
    """Doubling, up to twice the cores."""
    cores = server_cores(pid)
    if pid is None:
        notes.append(
            f"where the server runs is not seen from here: it is taken to have {cores} cores, as this machine"
        )
    counts = {1 << power for power in range((2 * cores).bit_length())}
    return sorted({count for count in counts if count <= 2 * cores} | {2 * cores, here})


def _sensible_batches(present: Present) -> list[int]:
    """Those that need no load."""
    line = present.version
    if line.warm_sizes:
        return sorted({*line.warm_sizes, present.point.batch})
    powers = {1 << power for power in range(line.warm_rows.bit_length())}
    return sorted({*powers, line.warm_rows, present.point.batch})


def _sensible_delays(objective: float, here: float) -> list[float]:
    """Who waits for longer than half of the objective will hardly meet it."""
    return sorted({0.0, here, *(delay for delay in _DELAYS if delay <= objective / 2)})
