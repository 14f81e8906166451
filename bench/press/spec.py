"""What a load process of ``tensorwire press`` is told, and what it tells."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..recorder import Samples


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to call, and how often. Times are in seconds.

    Attributes:
        requests: file with the inputs of one or more requests, pickled by the process that starts this one.
        connections: clients, used in turn.
        fuse: whether calls may share messages.
        callers: in a closed loop, calls in flight; in an open loop, the most of them.
        arrivals, rate, seed, phase: see :class:`..load.Job`.
    """

    address: str
    model: str
    requests: str
    duration: float
    version: int | None = None
    label: str | None = None
    timeout: float = 1.0
    connections: int = 1
    fuse: bool = True
    callers: int = 1
    arrivals: Literal["closed", "fixed", "poisson"] = "closed"
    rate: float = 0.0
    seed: int = 0
    phase: float = 0.0


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """How far one process is; one a second, and one more at the end.

    Attributes:
        seconds: since it began.
        fresh: latencies since the last tick, native float64.
        errors: failed calls so far, by code.
        in_flight: calls that have started and not ended.
        cores: CPU seconds a second of the process, since the last tick.
        samples: everything, in the last tick: all calls have ended.
    """

    seconds: float
    fresh: bytes
    errors: dict[str, int]
    in_flight: int = 0
    cores: float = 0.0
    samples: Samples | None = None
