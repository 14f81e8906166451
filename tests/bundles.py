"""Bundles and their slices, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorwire.rpc.pump import Bundle, Slice, whole
from tensorwire.rpc.wire.header import RequestHeader, Signature, TensorHeader, encode_header

Array = np.ndarray[Any, Any]
NEVER = float("inf")

#: One request as the tests name it: who asks, and its number.
Name = tuple[bytes, int]


def signature(
    *tensors: tuple[str, str, tuple[int, ...]],
    model: str = "m",
    outputs: tuple[str, ...] | None = None,
    rows: bool = True,
) -> Signature:
    """What a client's header decodes to; tensors are ``(name, dtype, shape without the row count)``."""
    headers = tuple(TensorHeader(*tensor) for tensor in tensors)
    return Signature(encode_header(RequestHeader(model, headers, outputs=outputs, rows=rows)))


NOTHING = signature()


def bundle(
    *ids: int,
    peer: bytes = b"a",
    rows: Sequence[int] | None = None,
    deadline: float | Sequence[float] = NEVER,
    priority: int = 0,
    envelope: bool = False,
    inputs: Sequence[Array] = (),
    of: Signature = NOTHING,
    nbytes: int = 0,
) -> Bundle:
    """A bundle of single requests, or (``envelope``) of one message with consecutive ids."""
    messages = 1 if envelope else len(ids)
    return Bundle(
        of,
        priority=priority,
        routing_key=None,
        peers=[peer] * messages,
        first_ids=[ids[0]] if envelope else list(ids),
        counts=[len(ids)] if envelope else None,
        deadlines=[deadline] * messages if isinstance(deadline, int | float) else list(deadline),
        rows=None if rows is None else list(rows),
        total_rows=len(ids) if rows is None else sum(rows),
        inputs=list(inputs),
        received=0.0,
        nbytes=nbytes,
    )


def part(*ids: int, **options: Any) -> Slice:
    """All of a new :func:`bundle`."""
    return whole(bundle(*ids, **options))


def names(parts: Sequence[Slice]) -> list[Name]:
    """Who is in these slices, in order."""
    return [
        (message.peer, message.first_id + index)
        for bundle, lo, hi in parts
        for message in bundle.messages(lo, hi)
        for index in range(message.requests)
    ]


def ids(parts: Sequence[Slice]) -> list[int]:
    """The request numbers in these slices, in order."""
    return [number for _, number in names(parts)]
