"""Which requests run together, where and when: pure decisions, no I/O, no clock of its own.

One :class:`Scheduler` per model version. Events in: a part of a bundle arrived, a worker became idle or is
gone, a request was cancelled. Decisions out of :meth:`Scheduler.decide`: run these slices on that worker,
these expired, look again at that time.

Continuous batching: a worker that becomes idle takes what has queued, up to ``max_batch_size`` rows. With
``max_queue_delay`` 0 nothing ever waits for company. Requests wait in *lanes*, one per batch key (names,
dtypes, trailing shapes, wanted outputs), because only equal keys can share a batch; no lane blocks another.

Under overload a worker holds one full batch *ahead*, so that it goes on at once when it has finished one: the
way to the front end and back takes as long as a short batch there, because the front end is busy refusing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, KeysView
from typing import Final, NamedTuple

import msgspec

from ..rpc.pump import Slice

#: A normal request that has waited this long, in seconds, competes with the high ones.
AGING: Final = 0.1
_NEVER: Final = float("inf")
#: Batches are handed out ahead while so many for each worker would still be left: whoever becomes idle first
#: must find something to do, and nobody waits behind a batch in hand while another worker is idle.
_LEFT: Final = 2


class BatchPolicy(msgspec.Struct, frozen=True):
    """What a batch may be."""

    #: Rows.
    max_batch_size: int
    #: Seconds an incomplete batch may wait for company.
    max_queue_delay: float = 0.0


class Run(NamedTuple):
    """Run these slices, in this order, as one batch."""

    worker: int
    key: Hashable
    parts: list[Slice]
    rows: int


class Decision(NamedTuple):
    """What to do now."""

    runs: list[Run]
    #: Their deadline passed while they waited; they were not run.
    expired: list[Slice]
    #: Look again at this time even if nothing happens; None: no need to.
    wake_at: float | None


class _Waiting(NamedTuple):
    part: Slice
    since: float


class _Lane:
    """Requests with one batch key, by priority class."""

    __slots__ = ("classes", "key", "rows", "together")

    def __init__(self, key: Hashable, together: bool) -> None:
        self.key = key
        #: Whether several requests may share a batch.
        self.together = together
        #: Index 0: normal, 1: high.
        self.classes: tuple[deque[_Waiting], deque[_Waiting]] = (deque(), deque())
        self.rows = 0

    def __bool__(self) -> bool:
        return bool(self.classes[0] or self.classes[1])

    def oldest(self) -> float:
        """Since when the longest-waiting request waits."""
        return min(queue[0].since for queue in self.classes if queue)

    def turn(self, now: float) -> tuple[int, float]:
        """Sort key: whose turn it is; the smallest goes first."""
        normal, high = self.classes
        if normal and now - normal[0].since >= AGING:
            aged = normal[0].since
            return (0, min(aged, high[0].since) if high else aged)
        return (0, high[0].since) if high else (1, normal[0].since)

    def next_queue(self, now: float) -> deque[_Waiting]:
        """The class whose head is to run next."""
        normal, high = self.classes
        if not high or not normal:
            return high or normal
        aged = now - normal[0].since >= AGING and normal[0].since <= high[0].since
        return normal if aged else high


class Scheduler:
    """Queue and workers of one model version."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        #: Whether workers may hold a batch ahead.
        self.ahead = False
        #: How many workers may have batches at once; others need the cores, too.
        self.limit = math.inf
        self._lanes: dict[Hashable, _Lane] = {}
        self._idle: list[int] = []
        #: How many batches the others have in hand; those who have one only, the longest first.
        self._in_hand: dict[int, int] = {}
        self._with_one: list[int] = []
        self._expired: list[Slice] = []
        #: Rows and requests that wait.
        self.queued_rows = 0
        self.queued_requests = 0

    @property
    def keys(self) -> KeysView[Hashable]:
        """The batch keys of what waits."""
        return self._lanes.keys()

    @property
    def held_back(self) -> bool:
        """Requests wait for nothing but the limit."""
        return bool(self._lanes and self._idle) and len(self._in_hand) >= self.limit

    @property
    def idle_workers(self) -> int:
        """Workers without a batch."""
        return len(self._idle)

    def add(self, part: Slice, key: Hashable, now: float, *, together: bool = True) -> None:
        """A part of a bundle arrived.

        Args:
            key: equal keys may share a batch.
            together: False for requests that have no batch axis: they run one at a time. The same for all
                requests with one key.
        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, together)
        lane.classes[part.bundle.priority].append(_Waiting(part, now))
        self._count(lane, part, 1)

    def worker_idle(self, worker: int) -> None:
        """A worker has joined or finished a batch."""
        left = self._in_hand.get(worker, 0) - 1
        if left > 0:
            self._in_hand[worker] = left
            self._with_one.append(worker)
            return
        self._forget(worker)
        self._idle.append(worker)

    def is_idle(self, worker: int) -> bool:
        """Whether a worker has nothing in hand."""
        return worker in self._idle

    def worker_lost(self, worker: int) -> bool:
        """A worker has left, or is to leave.

        Returns:
            Whether it was idle. What a busy one was running is the caller's to queue again with :meth:`add`.
        """
        self._forget(worker)
        if worker not in self._idle:
            return False
        self._idle.remove(worker)
        return True

    def _forget(self, worker: int) -> None:
        """Drop the note of what a worker has in hand."""
        if self._in_hand.pop(worker, 0) == 1:
            self._with_one.remove(worker)

    def cancel(self, peer: bytes, first_id: int, count: int) -> list[Slice]:
        """Take requests out of the queue.

        Returns:
            Those that were found waiting; the others run already or never arrived.
        """
        found: list[Slice] = []
        for lane in self._lanes.values():
            for queue in lane.classes:
                for _ in range(len(queue)):
                    waiting = queue.popleft()
                    taken = waiting.part.bundle.overlaps(*waiting.part[1:], peer, first_id, count)
                    queue.extend(self._without(lane, waiting, taken) if taken else (waiting,))
                    found += [Slice(waiting.part.bundle, lo, hi) for lo, hi in taken]
        self._drop_empty_lanes()
        return found

    def clear(self) -> list[Slice]:
        """Take everything out of the queue."""
        parts = [waiting.part for lane in self._lanes.values() for queue in lane.classes for waiting in queue]
        self._lanes.clear()
        self.queued_rows = self.queued_requests = 0
        return parts

    def decide(self, now: float) -> Decision:
        """What to do at time ``now``. Each decision is carried out by the caller before the next call."""
        runs: list[Run] = []
        wake_at = _NEVER
        held: set[Hashable] = set()
        while self._idle and len(self._lanes) > len(held) and len(self._in_hand) < self.limit:
            lane = self._next_lane(held, now)
            ready_at = self._ready_at(lane)
            if ready_at > now:
                wake_at = min(wake_at, ready_at)
                held.add(lane.key)
                continue
            parts, rows = self._take_batch(lane, now)
            if not lane:
                del self._lanes[lane.key]
            if parts:
                # The worker that was busy last has warm caches.
                worker = self._idle.pop()
                self._in_hand[worker] = 1
                self._with_one.append(worker)
                runs.append(Run(worker, lane.key, parts, rows))
        if self.ahead:
            self._decide_ahead(runs, now)
        expired, self._expired = self._expired, []
        # Without an idle worker the next one that becomes idle is the reason to look again.
        return Decision(runs, expired, wake_at if self._idle and wake_at != _NEVER else None)

    def _decide_ahead(self, runs: list[Run], now: float) -> None:
        """Give full batches to workers that have one in hand, as long as enough is left for whoever is idle
        first."""
        size = self.policy.max_batch_size
        enough = (_LEFT * (len(self._idle) + len(self._in_hand)) + 1) * size
        while self._with_one and self.queued_rows >= enough:
            lane = self._next_lane(set(), now)
            if lane.together and lane.rows < size:
                return
            parts, rows = self._take_batch(lane, now)
            if not lane:
                del self._lanes[lane.key]
            if parts:
                worker = self._with_one.pop(0)
                self._in_hand[worker] = 2
                runs.append(Run(worker, lane.key, parts, rows))

    def _next_lane(self, held: set[Hashable], now: float) -> _Lane:
        lanes = self._lanes
        if len(lanes) == 1:
            (lane,) = lanes.values()
            return lane
        return min((lane for lane in lanes.values() if lane.key not in held), key=lambda lane: lane.turn(now))

    def _ready_at(self, lane: _Lane) -> float:
        policy = self.policy
        if not policy.max_queue_delay or not lane.together or lane.rows >= policy.max_batch_size:
            return 0.0
        return lane.oldest() + policy.max_queue_delay

    def _take_batch(self, lane: _Lane, now: float) -> tuple[list[Slice], int]:
        """Fill one batch from a lane; what has expired goes to ``_expired`` instead."""
        parts: list[Slice] = []
        rows = 0
        while lane:
            queue = lane.next_queue(now)
            part, since = queue[0]
            bundle, lo, hi = part
            if now >= bundle.earliest_deadline:
                alive, expired = bundle.split_expired(lo, hi, now)
                if expired:
                    self._replace_head(lane, queue, [Slice(bundle, *span) for span in alive], since)
                    self._expired += [Slice(bundle, *span) for span in expired]
                    continue
            end = self._end_of_batch(lane, part, rows, bool(parts))
            if end == lo:
                break
            taken = Slice(bundle, lo, end)
            parts.append(taken)
            rows += taken.rows
            self._replace_head(lane, queue, [Slice(bundle, end, hi)] if end < hi else [], since)
            if not lane.together or rows >= self.policy.max_batch_size:
                break
        return parts, rows

    def _end_of_batch(self, lane: _Lane, part: Slice, rows: int, started: bool) -> int:
        """Up to which request ``part`` fits into a batch that has ``rows`` rows already."""
        bundle, lo, hi = part
        if not lane.together:
            return lo + 1
        end = bundle.fit(lo, hi, self.policy.max_batch_size - rows)
        # A request that is larger than any batch runs alone; the worker splits it.
        return lo + 1 if end == lo and not started else end

    def _replace_head(self, lane: _Lane, queue: deque[_Waiting], parts: list[Slice], since: float) -> None:
        head = queue.popleft()
        self._count(lane, head.part, -1)
        for part in reversed(parts):
            queue.appendleft(_Waiting(part, since))
            self._count(lane, part, 1)

    def _without(self, lane: _Lane, waiting: _Waiting, taken: list[tuple[int, int]]) -> list[_Waiting]:
        """What is left of a waiting part when the ranges ``taken``, in ascending order, leave it."""
        bundle, start, end = waiting.part
        rest: list[_Waiting] = []
        self._count(lane, waiting.part, -1)
        for lo, hi in (*taken, (end, end)):
            if start < lo:
                rest.append(_Waiting(Slice(bundle, start, lo), waiting.since))
                self._count(lane, rest[-1].part, 1)
            start = hi
        return rest

    def _count(self, lane: _Lane, part: Slice, sign: int) -> None:
        rows = part.rows * sign
        lane.rows += rows
        self.queued_rows += rows
        self.queued_requests += (part.hi - part.lo) * sign

    def _drop_empty_lanes(self) -> None:
        for key in [key for key, lane in self._lanes.items() if not lane]:
            del self._lanes[key]
