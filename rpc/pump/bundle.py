"""Bundles: any number of requests with one signature, from any number of peers, held as columns.

A *message* is what a peer sent (a single request or a fused envelope); a *request* is one id. Columns that
are the same for a whole message are kept per message. Nothing here is an object per request.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from ..wire.header import Signature

Array = npt.NDArray[Any]

NO_DEADLINE: Final = float("inf")


class MessageSlice(NamedTuple):
    """Consecutive requests of one message: what one reply answers."""

    peer: bytes
    first_id: int
    requests: int
    #: Index, in the bundle, of the first of these requests.
    start: int


class Bundle:
    """Requests with one signature, as columns.

    Attributes:
        signature: what they ask for.
        priority, routing_key: shared by all of them.
        peers, first_ids, counts, deadlines: per message; deadlines are times of the pump's clock.
        rows: rows per request; None when each has exactly one row.
        inputs: per tensor of the signature, one block ``[total_rows, ...]``; for a layout without rows,
            the tensor itself (such a bundle has one request).
        received: when the bundle was drained, on the pump's clock.
        nbytes: bytes of all inputs.
        mirrored: a copy for a shadow version: it is run, and nobody is answered.
    """

    __slots__ = (
        "_row_starts",
        "_starts",
        "counts",
        "deadlines",
        "earliest_deadline",
        "first_ids",
        "inputs",
        "mirrored",
        "nbytes",
        "peers",
        "priority",
        "received",
        "requests",
        "routing_key",
        "rows",
        "signature",
        "total_rows",
    )

    def __init__(
        self,
        signature: Signature,
        *,
        priority: int,
        routing_key: bytes | None,
        peers: list[bytes],
        first_ids: list[int],
        counts: list[int] | None,
        deadlines: list[float],
        rows: list[int] | None,
        total_rows: int,
        inputs: list[Array],
        received: float,
        nbytes: int,
    ) -> None:
        """``counts`` None: every message is a single request."""
        self.signature = signature
        self.priority = priority
        self.routing_key = routing_key
        self.peers = peers
        self.first_ids = first_ids
        self.counts = counts
        self.deadlines = deadlines
        self.rows = rows
        self.total_rows = total_rows
        self.inputs = inputs
        self.received = received
        self.nbytes = nbytes
        self.mirrored = False
        self.requests = len(peers) if counts is None else sum(counts)
        self.earliest_deadline = min(deadlines)
        self._starts: list[int] | None = None
        self._row_starts: list[int] | None = None

    def mirror(self) -> Bundle:
        """A copy for a shadow version; the tensors are shared."""
        twin = copy.copy(self)
        twin.mirrored = True
        return twin

    def single(self, request: int) -> Bundle:
        """One request by itself, and as one row, however many it has: for models that take it as a whole."""
        (message,) = self.messages(request, request + 1)
        start, end = self.row_start(request), self.row_start(request + 1)
        alone = copy.copy(self)
        alone.peers, alone.first_ids, alone.counts = [message.peer], [message.first_id], None
        alone.deadlines = [self.deadline_run(request, request + 1)[1]]
        alone.earliest_deadline = alone.deadlines[0]
        alone.inputs = [block[start:end] for block in self.inputs]
        alone.nbytes = sum(block.nbytes for block in alone.inputs)
        alone.rows, alone.total_rows, alone.requests = None, 1, 1
        alone._starts = alone._row_starts = None
        return alone

    def _message_starts(self) -> list[int]:
        """First request of each message, and the end."""
        if self._starts is None:
            counts = self.counts
            self._starts = (
                list(range(self.requests + 1)) if counts is None else list(accumulate(counts, initial=0))
            )
        return self._starts

    def row_start(self, request: int) -> int:
        """First row of a request (``requests`` gives the end of the last)."""
        if self.rows is None:
            return request
        if self._row_starts is None:
            self._row_starts = list(accumulate(self.rows, initial=0))
        return self._row_starts[request]

    def row_span(self, lo: int, hi: int) -> int:
        """Rows of the requests ``lo`` to ``hi`` (exclusive)."""
        return hi - lo if self.rows is None else self.row_start(hi) - self.row_start(lo)

    def fit(self, lo: int, hi: int, max_rows: int) -> int:
        """The largest end in ``[lo, hi]`` so that the requests from ``lo`` have at most ``max_rows`` rows."""
        if self.rows is None:
            return min(hi, lo + max_rows)
        limit = self.row_start(lo) + max_rows
        assert self._row_starts is not None
        return max(lo, min(hi, bisect_right(self._row_starts, limit) - 1))

    def messages(self, lo: int, hi: int) -> Iterator[MessageSlice]:
        """The messages, or parts of messages, that the requests ``lo`` to ``hi`` came in."""
        if self.counts is None:
            for index in range(lo, hi):
                yield MessageSlice(self.peers[index], self.first_ids[index], 1, index)
            return
        starts = self._message_starts()
        message = bisect_right(starts, lo) - 1
        while lo < hi:
            end = min(starts[message + 1], hi)
            yield MessageSlice(
                self.peers[message], self.first_ids[message] + lo - starts[message], end - lo, lo
            )
            lo = end
            message += 1

    def overlaps(self, lo: int, hi: int, peer: bytes, first_id: int, count: int) -> list[tuple[int, int]]:
        """Ranges of requests within ``[lo, hi)`` whose ids are among ``count`` ids of ``peer`` from
        ``first_id`` on, in ascending order."""
        if peer not in self.peers:
            return []
        found: list[tuple[int, int]] = []
        for message in self.messages(lo, hi):
            if message.peer == peer:
                begin = max(first_id, message.first_id)
                end = min(first_id + count, message.first_id + message.requests)
                if begin < end:
                    shift = message.start - message.first_id
                    found.append((begin + shift, end + shift))
        return found

    def deadline_run(self, lo: int, hi: int) -> tuple[int, float]:
        """The end, at most ``hi``, of the messages from request ``lo`` on that share a deadline, and that."""
        starts, deadlines = self._message_starts(), self.deadlines
        message = bisect_right(starts, lo) - 1
        deadline = deadlines[message]
        while message < len(deadlines) and starts[message] < hi and deadlines[message] == deadline:
            message += 1
        return min(hi, starts[message]), deadline

    def split_expired(
        self, lo: int, hi: int, now: float
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Ranges of requests within ``[lo, hi)`` that are still in time, and of those that are not."""
        if now < self.earliest_deadline:
            return [(lo, hi)], []
        alive: list[tuple[int, int]] = []
        expired: list[tuple[int, int]] = []
        starts = self._message_starts()
        message = bisect_right(starts, lo) - 1
        while lo < hi:
            end = min(starts[message + 1], hi)
            ranges = alive if now < self.deadlines[message] else expired
            if ranges and ranges[-1][1] == lo:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((lo, end))
            lo = end
            message += 1
        return alive, expired


class Slice(NamedTuple):
    """The requests ``lo`` to ``hi`` (exclusive) of a bundle: what queues hold and batches are made of."""

    bundle: Bundle
    lo: int
    hi: int

    @property
    def requests(self) -> int:
        """Number of requests."""
        return self.hi - self.lo

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.bundle.row_span(self.lo, self.hi)


def whole(bundle: Bundle) -> Slice:
    """All requests of a bundle."""
    return Slice(bundle, 0, bundle.requests)
