"""Bundles as messages to the server: any number of requests, from any number of peers, in one envelope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...rpc.pump import Bundle, Slice
from ...rpc.pump.bundle import NO_DEADLINE
from ...rpc.pump.intake import unit_rows
from ...rpc.wire.extra import PRIORITY_NORMAL, Extra, encode_body
from ...rpc.wire.message import INLINE_LIMIT, Buffer, build, payload_of
from ...rpc.wire.prefix import MAGIC, MAX_COUNT, PREFIX, PREFIX_SIZE, VERSION, Kind

_MAX_TIMEOUT_US: Final = (1 << 64) - 1
_REQUEST: Final = int(Kind.REQUEST)


class Run(NamedTuple):
    """Requests that may travel in one message: they have a deadline in common."""

    part: Slice
    deadline: float


def runs(bundle: Bundle) -> Sequence[Run]:
    """All requests of a bundle, in order, in as few messages as the protocol allows."""
    requests, deadline = bundle.requests, bundle.earliest_deadline
    max_rows = bundle.signature.layout.max_rows
    # As a rule all have the same deadline, which is found out without a look at each of them in Python.
    uniform = len(bundle.deadlines) == 1 or max(bundle.deadlines) == deadline
    if uniform and requests <= MAX_COUNT and bundle.total_rows <= max_rows:
        return (Run(Slice(bundle, 0, requests), deadline),)
    found: list[Run] = []
    lo = 0
    while lo < requests:
        hi = min(requests, lo + MAX_COUNT)
        if not uniform:
            hi, deadline = bundle.deadline_run(lo, hi)
        hi = bundle.fit(lo, hi, max_rows)
        found.append(Run(Slice(bundle, lo, hi), deadline))
        lo = hi
    return found


def encode(run: Run, first_id: int, now: float) -> Sequence[Buffer]:
    """The frames of one message; large tensors are views of the bundle's.

    Args:
        now: on the clock of the deadlines.
    """
    (bundle, lo, hi), deadline = run
    layout = bundle.signature.layout
    inputs = bundle.inputs
    if layout.rows and hi - lo != bundle.requests:
        first, last = bundle.row_start(lo), bundle.row_start(hi)
        inputs = [tensor[first:last] for tensor in inputs]
    payloads = [payload_of(tensor) for tensor in inputs]
    extra, timeout = _extra(bundle), timeout_us(deadline, now)
    if bundle.rows is None and layout.groupable and not extra:
        frame = _plain(bundle, hi - lo, first_id, timeout, payloads)
        if frame is not None:
            return (frame,)
    return build(
        Kind.REQUEST,
        first_id=first_id,
        count=hi - lo,
        layout=layout,
        header=bundle.signature.raw,
        extra=extra,
        rows=[1] * (hi - lo) if bundle.rows is None else bundle.rows[lo:hi],
        payloads=payloads,
        timeout_us=timeout,
    )


def _plain(
    bundle: Bundle, count: int, first_id: int, timeout: int, payloads: Sequence[Buffer]
) -> bytes | None:
    """What :func:`build` gives for the commonest envelope, requests of one row each; None: not all tensors
    are inline."""
    header, layout = bundle.signature.raw, bundle.signature.layout
    at = PREFIX_SIZE + len(header) + 4 * count
    places, _, framed = layout.place(count, at, INLINE_LIMIT)
    if framed:
        return None
    prefix = PREFIX.pack(
        MAGIC, VERSION, _REQUEST, 0, 0, first_id, timeout, count, len(header), 0, INLINE_LIMIT, 0, 0
    )
    parts: list[Buffer] = [prefix, header, unit_rows(count)]
    for place, payload in zip(places, payloads, strict=True):
        assert place is not None
        parts += (bytes(place.start - at), payload)
        at = place.stop
    return b"".join(parts)


def _extra(bundle: Bundle) -> bytes:
    if bundle.priority == PRIORITY_NORMAL and bundle.routing_key is None:
        return b""
    return encode_body(Extra(bundle.priority, bundle.routing_key))


def timeout_us(deadline: float, now: float) -> int:
    """What remains until a deadline as on the wire: at least 1, as 0 means that there is none."""
    if deadline == NO_DEADLINE:
        return 0
    return min(max(1, int((deadline - now) * 1e6)), _MAX_TIMEOUT_US)
