"""Bundles as messages to the server: any number of requests, from any number of peers, in one envelope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ...rpc.pump import Bundle, Slice
from ...rpc.pump.bundle import NO_DEADLINE
from ...rpc.wire.extra import PRIORITY_NORMAL, Extra, encode_body
from ...rpc.wire.message import Buffer, build, payload_of
from ...rpc.wire.prefix import MAX_COUNT, Kind

_MAX_TIMEOUT_US: Final = (1 << 64) - 1


class Run(NamedTuple):
    """Requests that may travel in one message: they have a deadline in common."""

    part: Slice
    deadline: float


def runs(bundle: Bundle) -> Iterator[Run]:
    """All requests of a bundle, in order, in as few messages as the protocol allows."""
    lo, requests = 0, bundle.requests
    max_rows = bundle.signature.layout.max_rows
    # As a rule all have the same deadline, which is found out without a look at each of them in Python.
    uniform = max(bundle.deadlines) == bundle.earliest_deadline
    while lo < requests:
        hi, deadline = min(requests, lo + MAX_COUNT), bundle.earliest_deadline
        if not uniform:
            hi, deadline = bundle.deadline_run(lo, hi)
        hi = bundle.fit(lo, hi, max_rows)
        yield Run(Slice(bundle, lo, hi), deadline)
        lo = hi


def encode(run: Run, first_id: int, now: float) -> Sequence[Buffer]:
    """The frames of one message; large tensors are views of the bundle's.

    Args:
        now: on the clock of the deadlines.
    """
    bundle, lo, hi = run.part
    layout = bundle.signature.layout
    inputs = bundle.inputs
    if layout.rows and hi - lo != bundle.requests:
        first, last = bundle.row_start(lo), bundle.row_start(hi)
        inputs = [tensor[first:last] for tensor in inputs]
    return build(
        Kind.REQUEST,
        first_id=first_id,
        count=hi - lo,
        layout=layout,
        header=bundle.signature.raw,
        extra=_extra(bundle),
        rows=[1] * (hi - lo) if bundle.rows is None else bundle.rows[lo:hi],
        payloads=[payload_of(tensor) for tensor in inputs],
        timeout_us=timeout_us(run.deadline, now),
    )


def _extra(bundle: Bundle) -> bytes:
    if bundle.priority == PRIORITY_NORMAL and bundle.routing_key is None:
        return b""
    return encode_body(Extra(bundle.priority, bundle.routing_key))


def timeout_us(deadline: float, now: float) -> int:
    """What remains until a deadline as on the wire: at least 1, as 0 means that there is none."""
    if deadline == NO_DEADLINE:
        return 0
    return min(max(1, int((deadline - now) * 1e6)), _MAX_TIMEOUT_US)
