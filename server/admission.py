"""Admission control: how many more requests may come in, decided before anything is queued."""

from __future__ import annotations

import math
from enum import IntEnum

from ..rpc.errors import ResourceExhaustedError, RpcError
from ..rpc.pump import Bundle, Slice
from .config import ServingConfig

#: A request is refused if the queue before it is expected to take this share of its remaining time: the
#: estimate errs, and an answer that comes too late has cost a worker's time for nothing.
_PATIENCE = 0.5


class _Limit(IntEnum):
    """What a request can be over."""

    SERVER_ROWS = 0
    MODEL_ROWS = 1
    TIMEOUT = 2
    SERVER_REQUESTS = 3
    MODEL_REQUESTS = 4
    SERVER_BYTES = 5


class Load:
    """What one model version has to do; kept up to date by its runtime."""

    __slots__ = (
        "in_flight",
        "max_in_flight",
        "max_queued_rows",
        "queued_rows",
        "row_seconds",
        "subject",
        "workers",
    )

    def __init__(
        self, subject: str, *, max_queued_rows: int = 1, max_in_flight: int = 1, workers: int = 1
    ) -> None:
        """``subject``: how error messages call the version."""
        self.subject = subject
        self.max_queued_rows = max_queued_rows
        self.max_in_flight = max_in_flight
        self.workers = workers
        self.queued_rows = 0
        self.in_flight = 0
        #: Seconds that one row takes one worker, from recent batches; 0 until something is known.
        self.row_seconds = 0.0

    def rows_in_time(self, seconds: float) -> float:
        """How many more rows may queue so that the last is still run within a share of ``seconds``."""
        if not self.row_seconds:
            return math.inf
        return seconds * _PATIENCE * self.workers / self.row_seconds - self.queued_rows


class Admission:
    """Server-wide limits, and the rule that joins them with those of a model version."""

    def __init__(self, config: ServingConfig) -> None:
        self.config = config
        self.queued_rows = 0
        self.in_flight = 0
        self.queued_bytes = 0

    def admit(self, bundle: Bundle, lo: int, hi: int, load: Load, now: float) -> tuple[int, RpcError | None]:
        """How many of the requests ``lo`` to ``hi`` of a bundle may come in.

        Returns:
            The end of the admitted range, and why what follows was refused: that holds for requests with the
            same deadline. None where the rest has another deadline, and is to be asked for by itself.
        """
        config = self.config
        rows = bundle.row_span(lo, hi)
        if (
            # The common case, without a division: far from every limit.
            self.queued_rows + rows <= config.max_queued_rows
            and load.queued_rows + rows <= load.max_queued_rows
            and self.in_flight + hi - lo <= config.max_in_flight
            and load.in_flight + hi - lo <= load.max_in_flight
            and self.queued_bytes + bundle.nbytes <= config.max_queued_bytes
            and (load.queued_rows + rows) * load.row_seconds
            <= (bundle.earliest_deadline - now) * _PATIENCE * load.workers
        ):
            return hi, None
        return self._admit_some(bundle, lo, hi, load, now)

    def _admit_some(
        self, bundle: Bundle, lo: int, hi: int, load: Load, now: float
    ) -> tuple[int, RpcError | None]:
        config = self.config
        # A peer in a hurry must not have the others of its bundle refused.
        hi, deadline = bundle.deadline_run(lo, hi)
        server_room = config.max_queued_rows - self.queued_rows
        room, limit = min(
            (server_room, _Limit.SERVER_ROWS),
            (load.max_queued_rows - load.queued_rows, _Limit.MODEL_ROWS),
            (load.rows_in_time(deadline - now), _Limit.TIMEOUT),
        )
        end = hi if room >= bundle.row_span(lo, hi) else bundle.fit(lo, hi, max(0, int(room)))
        if (
            end == lo
            and not load.queued_rows
            and (not self.queued_rows or bundle.row_span(lo, lo + 1) <= server_room)
        ):
            # An empty queue refuses nobody: a request that is larger than the limit would never come in, and
            # one that is expected to be late may well be in time.
            end = lo + 1
        for free, of in (
            (config.max_in_flight - self.in_flight, _Limit.SERVER_REQUESTS),
            (load.max_in_flight - load.in_flight, _Limit.MODEL_REQUESTS),
        ):
            if end - lo > free:
                end, limit = lo + max(0, free), of
        if self.queued_bytes + bundle.nbytes > config.max_queued_bytes and self.queued_bytes:
            end, limit = lo, _Limit.SERVER_BYTES
        if end == hi:
            return hi, None
        reason = self._describe(limit, load)
        return end, ResourceExhaustedError(f"over {reason}; retry later or against another server")

    def _describe(self, limit: _Limit, load: Load) -> str:
        config = self.config
        match limit:
            case _Limit.SERVER_ROWS:
                return f"the server's limit of {config.max_queued_rows} queued rows"
            case _Limit.MODEL_ROWS:
                return f"{load.subject}'s limit of {load.max_queued_rows} queued rows"
            case _Limit.TIMEOUT:
                wait = load.queued_rows * load.row_seconds / load.workers * 1e3
                return f"the timeout: {load.queued_rows} rows wait for {load.subject}, about {wait:.0f} ms"
            case _Limit.SERVER_REQUESTS:
                return f"the server's limit of {config.max_in_flight} requests in flight"
            case _Limit.MODEL_REQUESTS:
                return f"{load.subject}'s limit of {load.max_in_flight} requests in flight"
            case _Limit.SERVER_BYTES:
                return f"the server's limit of {config.max_queued_bytes} bytes in flight"

    def enter(self, part: Slice, load: Load) -> None:
        """Requests were admitted and queued."""
        rows, requests = part.rows, part.hi - part.lo
        self.queued_rows += rows
        load.queued_rows += rows
        self.in_flight += requests
        load.in_flight += requests
        self.queued_bytes += _share(part)

    def start(self, rows: int, load: Load) -> None:
        """Rows left the queue, to be run or not."""
        self.queued_rows -= rows
        load.queued_rows -= rows

    def return_to_queue(self, part: Slice, load: Load) -> None:
        """Requests that had left the queue are back in it."""
        self.queued_rows += part.rows
        load.queued_rows += part.rows

    def leave(self, part: Slice, load: Load) -> None:
        """Requests were answered."""
        requests = part.hi - part.lo
        self.in_flight -= requests
        load.in_flight -= requests
        self.queued_bytes -= _share(part)


def _share(part: Slice) -> int:
    """The bytes of a part of a bundle; the shares of a bundle's parts add up to its bytes."""
    bundle, lo, hi = part
    if hi - lo == bundle.requests:
        return bundle.nbytes
    return bundle.nbytes * hi // bundle.requests - bundle.nbytes * lo // bundle.requests
