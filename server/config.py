"""What the serving half of the server can be told; frozen, validated when it is read."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]


class ServingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Transport and limits of one front end.

    All limits hold for the whole server; each model has its own in ``model.toml`` (``[limits]``).
    """

    bind: str = "tcp://127.0.0.1:8700"
    #: Processes that accept clients at that address, this one among them.
    front_ends: Annotated[int, Meta(ge=1, le=64)] = 1
    #: Rows that wait in all queues together.
    max_queued_rows: Positive = 65_536
    #: Requests that wait or run.
    max_in_flight: Positive = 131_072
    #: Bytes of the inputs of all requests that wait or run.
    max_queued_bytes: Positive = 1 << 30
    #: Largest frame that a peer may send; a larger one closes its connection.
    max_frame_bytes: Positive = 1 << 30
    #: Bytes of replies kept for one peer that does not read them.
    max_peer_bytes: Positive = 64 << 20
    #: Seconds that requests in flight have to finish when the server stops.
    grace: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    #: Batches that take at most this long, in seconds, run in the front-end thread itself (0: none do).
    inline_budget: Annotated[float, Meta(ge=0, le=0.01)] = 0.0005
    #: Seconds for which requests may gather when the last ones were refused for overload (0: none). To be
    #: woken for each of them costs more than to refuse it, and the models need that time.
    refusal_pause: Annotated[float, Meta(ge=0, le=0.1)] = 0.001
