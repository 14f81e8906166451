"""The scheduler: every event in every state, and random sequences of events; time is a number here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from bundles import NEVER, Name, bundle, ids, names, part
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tensorwire.rpc.pump import Slice
from tensorwire.server.scheduler import AGING, BatchPolicy, Decision, Scheduler


def scheduler(max_batch_size: int = 4, delay: float = 0.0, workers: int = 0) -> Scheduler:
    made = Scheduler(BatchPolicy(max_batch_size, delay))
    for worker in range(workers):
        made.worker_idle(worker)
    return made


def runs(decision: Decision) -> list[tuple[int, list[int]]]:
    return [(run.worker, ids(run.parts)) for run in decision.runs]


def batches(decision: Decision) -> list[list[int]]:
    return [ids(run.parts) for run in decision.runs]


# ---------------------------------------------------------------- the table


def bare() -> Scheduler:
    """No workers, nothing waits."""
    return scheduler()


def idle() -> Scheduler:
    """Worker 0 has nothing to do."""
    return scheduler(workers=1)


def busy() -> Scheduler:
    """Two requests wait for the worker to finish its batch."""
    made = scheduler()
    made.add(part(1, 2), "k", 0.0)
    return made


def holding() -> Scheduler:
    """Worker 0 is idle, and two requests wait for company until t = 10."""
    made = scheduler(delay=10.0, workers=1)
    made.add(part(1, 2), "k", 0.0)
    assert made.decide(0.0) == Decision([], [], 10.0)
    return made


def overdue() -> Scheduler:
    """Two requests wait whose deadline, t = 4, has passed."""
    made = scheduler()
    made.add(part(1, 2, deadline=4.0), "k", 0.0)
    return made


EVENTS: dict[str, Callable[[Scheduler], Any]] = {
    "bundle": lambda s: s.add(part(3), "k", 5.0),
    "worker idle": lambda s: s.worker_idle(9),
    "idle worker lost": lambda s: s.worker_lost(0),
    "busy worker lost": lambda s: s.worker_lost(7),
    "cancel": lambda s: ids(s.cancel(b"a", 1, 1)),
    "cancel all": lambda s: sorted(ids(s.cancel(b"a", 0, 100))),
    "cancel unknown": lambda s: ids(s.cancel(b"a", 99, 1)),
    "cancel of another peer": lambda s: ids(s.cancel(b"b", 1, 2)),
    "clear": lambda s: ids(s.clear()),
    "tick": lambda s: None,
}


class Then(NamedTuple):
    """What the event returns, and what is decided at t = 5."""

    returns: Any = None
    runs: list[tuple[int, list[int]]] = []  # noqa: RUF012
    expired: list[int] = []  # noqa: RUF012
    wake_at: float | None = None
    queued: int = 0
    idle: int = 0


TABLE: dict[Callable[[], Scheduler], dict[str, Then]] = {
    bare: {
        "bundle": Then(queued=1),
        "worker idle": Then(idle=1),
        "idle worker lost": Then(False),
        "busy worker lost": Then(False),
        "cancel": Then([]),
        "cancel all": Then([]),
        "cancel unknown": Then([]),
        "cancel of another peer": Then([]),
        "clear": Then([]),
        "tick": Then(),
    },
    idle: {
        "bundle": Then(runs=[(0, [3])]),
        "worker idle": Then(idle=2),
        "idle worker lost": Then(True),
        "busy worker lost": Then(False, idle=1),
        "cancel": Then([], idle=1),
        "cancel all": Then([], idle=1),
        "cancel unknown": Then([], idle=1),
        "cancel of another peer": Then([], idle=1),
        "clear": Then([], idle=1),
        "tick": Then(idle=1),
    },
    busy: {
        "bundle": Then(queued=3),
        "worker idle": Then(runs=[(9, [1, 2])]),
        "idle worker lost": Then(False, queued=2),
        "busy worker lost": Then(False, queued=2),
        "cancel": Then([1], queued=1),
        "cancel all": Then([1, 2]),
        "cancel unknown": Then([], queued=2),
        "cancel of another peer": Then([], queued=2),
        "clear": Then([1, 2]),
        "tick": Then(queued=2),
    },
    holding: {
        "bundle": Then(queued=3, idle=1, wake_at=10.0),
        "worker idle": Then(queued=2, idle=2, wake_at=10.0),
        "idle worker lost": Then(True, queued=2),
        "busy worker lost": Then(False, queued=2, idle=1, wake_at=10.0),
        "cancel": Then([1], queued=1, idle=1, wake_at=10.0),
        "cancel all": Then([1, 2], idle=1),
        "cancel unknown": Then([], queued=2, idle=1, wake_at=10.0),
        "cancel of another peer": Then([], queued=2, idle=1, wake_at=10.0),
        "clear": Then([1, 2], idle=1),
        "tick": Then(queued=2, idle=1, wake_at=10.0),
    },
    overdue: {
        "bundle": Then(queued=3),
        "worker idle": Then(expired=[1, 2], idle=1),
        "idle worker lost": Then(False, queued=2),
        "busy worker lost": Then(False, queued=2),
        "cancel": Then([1], queued=1),
        "cancel all": Then([1, 2]),
        "cancel unknown": Then([], queued=2),
        "cancel of another peer": Then([], queued=2),
        "clear": Then([1, 2]),
        "tick": Then(queued=2),
    },
}


def test_the_table_is_complete() -> None:
    assert all(row.keys() == EVENTS.keys() for row in TABLE.values())


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", TABLE, ids=lambda state: state.__name__)
def test_every_event_in_every_state(state: Callable[[], Scheduler], event: str) -> None:
    then = TABLE[state][event]
    made = state()
    assert EVENTS[event](made) == then.returns
    decision = made.decide(5.0)
    assert runs(decision) == then.runs
    assert ids(decision.expired) == then.expired
    assert decision.wake_at == then.wake_at
    assert (made.queued_requests, made.queued_rows, made.idle_workers) == (
        then.queued,
        then.queued,
        then.idle,
    )


# ---------------------------------------------------------------- filling batches


class TestBatches:
    def test_bundles_with_one_key_share_a_batch(self) -> None:
        made = scheduler(8, workers=1)
        made.add(part(1, 2), "k", 0.0)
        made.add(part(7, 8, peer=b"b"), "k", 0.0)
        (run,) = made.decide(0.0).runs
        assert names(run.parts) == [(b"a", 1), (b"a", 2), (b"b", 7), (b"b", 8)]
        assert (run.key, run.rows) == ("k", 4)

    def test_a_bundle_larger_than_a_batch_is_sliced(self) -> None:
        made = scheduler(4, workers=2)
        made.add(part(*range(10)), "k", 0.0)
        first = made.decide(0.0)
        assert batches(first) == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert [run.rows for run in first.runs] == [4, 4]
        assert {run.worker for run in first.runs} == {0, 1}
        assert made.queued_requests == 2
        made.worker_idle(0)
        assert batches(made.decide(0.0)) == [[8, 9]]

    def test_an_envelope_is_sliced_too(self) -> None:
        made = scheduler(4, workers=3)
        made.add(part(*range(10, 17), envelope=True), "k", 0.0)
        assert batches(made.decide(0.0)) == [[10, 11, 12, 13], [14, 15, 16]]

    def test_what_is_left_of_one_bundle_is_filled_up_from_the_next(self) -> None:
        made = scheduler(4, workers=1)
        made.add(part(1, 2, 3), "k", 0.0)
        made.add(part(4, 5, 6), "k", 0.0)
        assert batches(made.decide(0.0)) == [[1, 2, 3, 4]]
        made.worker_idle(0)
        assert batches(made.decide(0.0)) == [[5, 6]]

    def test_requests_are_never_cut(self) -> None:
        made = scheduler(5, workers=3)
        made.add(part(1, 2, 3, rows=[2, 2, 4]), "k", 0.0)
        decision = made.decide(0.0)
        assert batches(decision) == [[1, 2], [3]]
        assert [run.rows for run in decision.runs] == [4, 4]

    def test_the_order_within_a_lane_is_kept_though_a_later_request_would_fit(self) -> None:
        made = scheduler(4, workers=1)
        made.add(part(1, rows=[3]), "k", 0.0)
        made.add(part(2, rows=[3]), "k", 0.0)
        made.add(part(3, rows=[1]), "k", 0.0)
        assert batches(made.decide(0.0)) == [[1]]

    def test_a_request_larger_than_any_batch_runs_alone(self) -> None:
        made = scheduler(4, workers=4)
        made.add(part(1, 2, 3, rows=[1, 9, 1]), "k", 0.0)
        decision = made.decide(0.0)
        assert batches(decision) == [[1], [2], [3]]
        assert [run.rows for run in decision.runs] == [1, 9, 1]

    def test_requests_without_rows_take_no_room(self) -> None:
        made = scheduler(2, workers=2)
        made.add(part(1, 2, 3, 4, rows=[0, 2, 0, 1]), "k", 0.0)
        decision = made.decide(0.0)
        assert batches(decision) == [[1, 2, 3], [4]]
        assert made.queued_rows == made.queued_requests == 0

    def test_without_a_batch_axis_requests_run_one_by_one(self) -> None:
        made = scheduler(8, workers=3)
        made.add(part(1, 2, rows=[3, 3]), "k", 0.0, together=False)
        made.add(part(3), "k", 0.0, together=False)
        assert batches(made.decide(0.0)) == [[1], [2], [3]]

    def test_without_a_batch_axis_nothing_waits_for_company(self) -> None:
        made = scheduler(8, delay=10.0, workers=1)
        made.add(part(1), "k", 0.0, together=False)
        assert batches(made.decide(0.0)) == [[1]]

    def test_the_worker_that_was_busy_last_goes_first(self) -> None:
        made = scheduler(1)
        for worker in (4, 2, 7):
            made.worker_idle(worker)
        made.add(part(1, 2), "k", 0.0)
        assert runs(made.decide(0.0)) == [(7, [1]), (2, [2])]

    def test_a_larger_batch_size_holds_from_the_next_decision_on(self) -> None:
        made = scheduler(1)
        made.add(part(1, 2, 3), "k", 0.0)
        made.policy = BatchPolicy(8)
        made.worker_idle(0)
        assert batches(made.decide(0.0)) == [[1, 2, 3]]


class TestDelay:
    def test_an_incomplete_batch_waits_for_its_time_and_no_longer(self) -> None:
        made = scheduler(4, delay=2.0, workers=1)
        made.add(part(1), "k", 10.0)
        assert made.decide(10.0) == Decision([], [], 12.0)
        made.add(part(2), "k", 11.0)
        assert made.decide(11.0) == Decision([], [], 12.0)
        assert batches(made.decide(12.0)) == [[1, 2]]

    def test_a_full_batch_does_not_wait(self) -> None:
        made = scheduler(2, delay=2.0, workers=2)
        made.add(part(1, 2, 3), "k", 0.0)
        decision = made.decide(0.0)
        assert batches(decision) == [[1, 2]]
        assert decision.wake_at == 2.0

    def test_a_lane_that_waits_holds_up_no_other(self) -> None:
        made = scheduler(4, delay=2.0, workers=1)
        made.add(part(1), "waits", 0.0)
        made.add(part(5, 6, 7, 8), "full", 1.0)
        decision = made.decide(1.0)
        assert batches(decision) == [[5, 6, 7, 8]]
        made.worker_idle(0)
        assert made.decide(1.0).wake_at == 2.0

    def test_the_earliest_of_several_lanes_decides_when_to_look_again(self) -> None:
        made = scheduler(4, delay=2.0, workers=1)
        made.add(part(1), "late", 5.0)
        made.add(part(2), "early", 4.0)
        assert made.decide(5.0) == Decision([], [], 6.0)

    def test_without_an_idle_worker_there_is_no_need_to_look_again(self) -> None:
        made = scheduler(4, delay=2.0)
        made.add(part(1), "k", 0.0)
        assert made.decide(0.0).wake_at is None

    def test_what_a_slice_left_behind_has_waited_since_it_came(self) -> None:
        made = scheduler(2, delay=2.0, workers=1)
        made.add(part(1, 2, 3), "k", 0.0)
        assert batches(made.decide(1.0)) == [[1, 2]]
        made.worker_idle(0)
        assert made.decide(1.5).wake_at == 2.0


class TestLanes:
    def test_different_keys_never_share_a_batch(self) -> None:
        made = scheduler(8, workers=3)
        made.add(part(1), "a", 0.0)
        made.add(part(2), "b", 0.1)
        made.add(part(3), "a", 0.2)
        assert [(run.key, ids(run.parts)) for run in made.decide(1.0).runs] == [("a", [1, 3]), ("b", [2])]

    def test_the_lane_whose_head_waits_longest_goes_first(self) -> None:
        made = scheduler(8, workers=1)
        made.add(part(1), "late", 0.02)
        made.add(part(2), "early", 0.01)
        assert batches(made.decide(0.03)) == [[2]]

    def test_a_stream_of_one_kind_does_not_starve_another(self) -> None:
        made = scheduler(2)
        made.add(part(1, 2, 3, 4), "much", 0.0)
        made.add(part(500), "little", 0.01)
        order: list[int] = []
        for turn in range(6):
            now = 0.02 + 0.01 * turn
            made.add(part(10 + 2 * turn, 11 + 2 * turn), "much", now)
            made.worker_idle(0)
            order += batches(made.decide(now))[0]
        assert order[:5] == [1, 2, 3, 4, 500]

    def test_lanes_that_are_empty_are_forgotten(self) -> None:
        made = scheduler(2, workers=1)
        for key in range(100):
            made.add(part(key), key, 0.0)
            assert batches(made.decide(0.0)) == [[key]]
            made.worker_idle(0)
        assert not made._lanes


class TestPriority:
    def test_high_before_normal(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1, 2), "k", 0.0)
        made.add(part(3, 4, priority=1), "k", 0.01)
        assert batches(made.decide(0.01)) == [[3, 4]]

    def test_high_in_another_lane_goes_first(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1), "normal", 0.0)
        made.add(part(2, priority=1), "high", 0.01)
        assert batches(made.decide(0.01)) == [[2]]

    def test_both_share_a_batch_that_has_room(self) -> None:
        made = scheduler(4, workers=1)
        made.add(part(1, 2), "k", 0.0)
        made.add(part(3, priority=1), "k", 0.01)
        assert batches(made.decide(0.01)) == [[3, 1, 2]]

    @pytest.mark.parametrize("keys", [("k", "k"), ("normal", "high")])
    def test_a_normal_request_that_has_waited_long_competes_with_high_ones(
        self, keys: tuple[str, str]
    ) -> None:
        made = scheduler(1, workers=1)
        made.add(part(1), keys[0], 0.0)
        made.add(part(2, priority=1), keys[1], 0.01)
        assert batches(made.decide(AGING / 2)) == [[2]]
        made.add(part(3, priority=1), keys[1], AGING / 2)
        made.worker_idle(0)
        assert batches(made.decide(AGING)) == [[1]]
        made.worker_idle(0)
        assert batches(made.decide(AGING)) == [[3]]

    def test_high_requests_that_came_before_an_aged_one_still_go_first(self) -> None:
        made = scheduler(1, workers=1)
        made.add(part(2, priority=1), "k", 0.0)
        made.add(part(1), "k", 0.01)
        assert batches(made.decide(10.0)) == [[2]]

    def test_a_stream_of_high_requests_does_not_starve_normal_ones(self) -> None:
        made = scheduler(1)
        made.add(part(1), "k", 0.0)
        order: list[int] = []
        for step in range(100):
            now = step * 0.01
            made.add(part(100 + step, priority=1), "k", now)
            made.worker_idle(0)
            order += [number for batch in batches(made.decide(now)) for number in batch]
        assert order.index(1) == round(AGING / 0.01)


class TestExpiry:
    def test_only_those_that_are_late_are_dropped(self) -> None:
        made = scheduler(8, workers=1)
        made.add(part(1, 2, 3, 4, deadline=[1.0, NEVER, 1.0, 9.0]), "k", 0.0)
        decision = made.decide(5.0)
        assert ids(decision.expired) == [1, 3]
        assert batches(decision) == [[2, 4]]
        assert made.queued_requests == 0

    def test_the_deadline_itself_is_too_late(self) -> None:
        made = scheduler(8, workers=1)
        made.add(part(1, deadline=5.0), "k", 0.0)
        assert ids(made.decide(5.0).expired) == [1]

    def test_the_rest_of_an_envelope(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1, 2, 3, 4, 5, envelope=True, deadline=5.0), "k", 0.0)
        assert batches(made.decide(4.0)) == [[1, 2]]
        made.worker_idle(0)
        decision = made.decide(6.0)
        assert ids(decision.expired) == [3, 4, 5]
        assert decision.runs == []
        assert made.idle_workers == 1

    def test_late_ones_make_room_for_those_behind_them(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1, 2, deadline=1.0), "k", 0.0)
        made.add(part(3, 4), "k", 0.0)
        decision = made.decide(2.0)
        assert (ids(decision.expired), batches(decision)) == ([1, 2], [[3, 4]])

    def test_late_ones_leave_the_worker_to_other_lanes(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1, deadline=1.0), "late", 0.0)
        made.add(part(2), "other", 0.5)
        decision = made.decide(2.0)
        assert (ids(decision.expired), batches(decision)) == ([1], [[2]])

    def test_each_is_told_once(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1, deadline=1.0), "k", 0.0)
        assert ids(made.decide(2.0).expired) == [1]
        assert made.decide(3.0).expired == []

    def test_uneven_rows(self) -> None:
        made = scheduler(8, workers=1)
        made.add(part(1, 2, 3, rows=[5, 1, 2], deadline=[1.0, NEVER, NEVER]), "k", 0.0)
        decision = made.decide(2.0)
        assert ids(decision.expired) == [1]
        assert [(ids(run.parts), run.rows) for run in decision.runs] == [([2, 3], 3)]
        assert made.queued_rows == 0


class TestCancel:
    def test_from_the_middle_of_an_envelope(self) -> None:
        made = scheduler(8)
        made.add(part(*range(1, 8), envelope=True), "k", 0.0)
        assert ids(made.cancel(b"a", 4, 1)) == [4]
        assert made.queued_requests == made.queued_rows == 6
        made.worker_idle(0)
        assert batches(made.decide(0.0)) == [[1, 2, 3, 5, 6, 7]]

    def test_a_range_that_is_partly_there(self) -> None:
        made = scheduler(8)
        made.add(part(1, 2, 3, rows=[2, 3, 4]), "k", 0.0)
        found = made.cancel(b"a", 2, 5)
        assert sorted(ids(found)) == [2, 3]
        assert sum(slice_.rows for slice_ in found) == 7
        assert (made.queued_requests, made.queued_rows) == (1, 2)

    def test_other_peers_with_the_same_ids_keep_theirs(self) -> None:
        made = scheduler(8)
        made.add(part(1, 2, peer=b"a"), "k", 0.0)
        made.add(part(1, 2, peer=b"b"), "k", 0.0)
        assert names(made.cancel(b"b", 1, 1)) == [(b"b", 1)]
        made.worker_idle(0)
        (run,) = made.decide(0.0).runs
        assert names(run.parts) == [(b"a", 1), (b"a", 2), (b"b", 2)]

    def test_over_several_lanes_and_classes(self) -> None:
        made = scheduler(8)
        made.add(part(1), "a", 0.0)
        made.add(part(2), "b", 0.0)
        made.add(part(3, priority=1), "b", 0.0)
        assert sorted(ids(made.cancel(b"a", 1, 3))) == [1, 2, 3]
        assert made.queued_requests == 0
        made.worker_idle(0)
        assert made.decide(0.0).runs == []

    def test_what_runs_already_is_not_found(self) -> None:
        made = scheduler(2, workers=1)
        made.add(part(1, 2, 3), "k", 0.0)
        made.decide(0.0)
        assert ids(made.cancel(b"a", 1, 3)) == [3]

    def test_twice(self) -> None:
        made = scheduler(2)
        made.add(part(1, 2), "k", 0.0)
        assert ids(made.cancel(b"a", 1, 1)) == [1]
        assert made.cancel(b"a", 1, 1) == []

    def test_a_cancel_of_everything_in_a_long_queue_takes_no_time(self) -> None:
        """The front end cancels: a peer must not be able to stop it with one small message."""
        made = scheduler(8)
        for first in range(0, 8192, 4):
            made.add(part(*range(first, first + 4), envelope=True), "k", 0.0)
        begin = time.perf_counter()
        assert made.cancel(b"b", 0, 65_536) == []
        assert len(ids(made.cancel(b"a", 0, 65_536))) == 8192
        assert time.perf_counter() - begin < 1.0
        assert made.queued_requests == 0

    def test_the_longest_waiting_one_decides_how_long_the_rest_waits(self) -> None:
        made = scheduler(8, delay=2.0, workers=1)
        made.add(part(1), "k", 0.0)
        made.add(part(2), "k", 1.0)
        made.cancel(b"a", 1, 1)
        assert made.decide(1.0).wake_at == 3.0


class TestWorkers:
    def test_what_a_lost_worker_ran_can_be_queued_again(self) -> None:
        made = scheduler(4, workers=1)
        made.add(part(1, 2), "k", 0.0)
        (run,) = made.decide(0.0).runs
        assert made.worker_lost(run.worker) is False
        for piece in run.parts:
            made.add(piece, run.key, 1.0)
        made.worker_idle(1)
        assert runs(made.decide(1.0)) == [(1, [1, 2])]

    def test_an_idle_worker_that_was_lost_gets_nothing(self) -> None:
        made = scheduler(4, workers=2)
        assert made.worker_lost(1) is True
        made.add(part(1), "k", 0.0)
        made.add(part(2), "other", 0.0)
        assert runs(made.decide(0.0)) == [(0, [1])]


class TestAhead:
    def busy(self, workers: int = 1, size: int = 2) -> Scheduler:
        """All workers have one batch in hand."""
        made = scheduler(size, workers=workers)
        made.ahead = True
        for worker in range(workers):
            made.add(part(*range(100 + size * worker, 100 + size * (worker + 1))), "k", 0.0)
        assert len(made.decide(0.0).runs) == workers
        return made

    def test_a_worker_holds_one_full_batch_ahead_and_no_more(self) -> None:
        made = self.busy()
        made.add(part(*range(1, 21)), "k", 0.0)
        assert runs(made.decide(0.0)) == [(0, [1, 2])]
        assert runs(made.decide(0.0)) == []
        made.worker_idle(0)
        assert not made.is_idle(0)
        assert runs(made.decide(0.0)) == [(0, [3, 4])]

    def test_it_is_idle_when_both_are_done(self) -> None:
        made = self.busy()
        made.add(part(*range(1, 7)), "k", 0.0)
        assert len(made.decide(0.0).runs) == 1
        made.clear()
        made.worker_idle(0)
        assert (made.idle_workers, made.is_idle(0)) == (0, False)
        made.worker_idle(0)
        assert (made.idle_workers, made.is_idle(0)) == (1, True)

    def test_not_if_too_little_would_be_left(self) -> None:
        made = self.busy(workers=2)
        made.add(part(*range(1, 10)), "k", 0.0)
        assert runs(made.decide(0.0)) == []
        made.add(part(10), "k", 0.0)
        assert batches(made.decide(0.0)) == [[1, 2]]

    def test_not_unless_it_is_allowed(self) -> None:
        made = self.busy()
        made.ahead = False
        made.add(part(*range(1, 21)), "k", 0.0)
        assert runs(made.decide(0.0)) == []

    def test_not_past_a_batch_that_still_has_room(self) -> None:
        made = self.busy()
        made.add(part(1), "other", 0.0)
        made.add(part(*range(2, 22)), "k", 1.0)
        assert runs(made.decide(1.0)) == []

    def test_the_high_class_goes_first(self) -> None:
        made = self.busy()
        made.add(part(*range(1, 21)), "k", 0.0)
        made.add(part(30, 31, priority=1), "k", 0.0)
        assert runs(made.decide(0.0)) == [(0, [30, 31])]

    def test_what_has_expired_is_not_handed_out(self) -> None:
        made = self.busy()
        made.add(part(1, 2, deadline=1.0), "k", 0.0)
        made.add(part(*range(3, 21)), "k", 0.0)
        decision = made.decide(2.0)
        assert ids(decision.expired) == [1, 2]
        assert runs(decision) == [(0, [3, 4])]

    @pytest.mark.parametrize("in_hand", [1, 2])
    def test_a_lost_worker_that_comes_back_has_nothing_in_hand(self, in_hand: int) -> None:
        made = self.busy()
        made.add(part(*range(1, 21)), "k", 0.0)
        made.ahead = in_hand == 2
        assert len(made.decide(0.0).runs) == in_hand - 1
        assert made.worker_lost(0) is False
        assert runs(made.decide(0.0)) == []
        made.ahead = False
        made.worker_idle(0)
        assert made.is_idle(0)


# ---------------------------------------------------------------- random sequences


class Machine(RuleBasedStateMachine):
    """Every request that goes in comes out exactly once: run, expired, cancelled or cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next_id = 1
        self.waiting: dict[Name, tuple[int, float, str]] = {}
        #: Worker -> batches that it has in hand.
        self.busy: dict[int, int] = {}
        self.idle: set[int] = set()
        self.next_worker = 0

    @initialize(size=st.sampled_from([1, 3, 8]), delay=st.sampled_from([0.0, 0.0, 1.0]), ahead=st.booleans())
    def start(self, size: int, delay: float, ahead: bool) -> None:
        self.max = size
        self.delay = delay
        self.scheduler = scheduler(size, delay)
        self.scheduler.ahead = ahead

    def drop(self, parts: list[Slice]) -> list[Name]:
        found = names(parts)
        assert len(set(found)) == len(found)
        for name in found:
            del self.waiting[name]  # KeyError: it came out twice, or never went in
        return found

    @rule(
        rows=st.lists(st.sampled_from([0, 1, 1, 2, 5, 9]), min_size=1, max_size=6),
        even=st.booleans(),
        key=st.sampled_from("ABs"),
        peer=st.sampled_from([b"a", b"b"]),
        priority=st.integers(0, 1),
        envelope=st.booleans(),
        timeouts=st.lists(st.sampled_from([0.05, 0.5, 2.0, NEVER]), min_size=6, max_size=6),
        cut=st.tuples(st.integers(0, 5), st.integers(1, 6)),
    )
    def add(
        self,
        rows: list[int],
        even: bool,
        key: str,
        peer: bytes,
        priority: int,
        envelope: bool,
        timeouts: list[float],
        cut: tuple[int, int],
    ) -> None:
        numbers = range(self.next_id, self.next_id + len(rows))
        self.next_id = numbers.stop + 1
        deadlines = [self.now + timeout for timeout in timeouts[: 1 if envelope else len(rows)]]
        made = bundle(
            *numbers,
            peer=peer,
            rows=None if even else rows,
            deadline=deadlines,
            priority=priority,
            envelope=envelope,
        )
        # Routes and limits queue a part of a bundle.
        lo = min(cut[0], len(rows) - 1)
        hi = max(lo + 1, min(len(rows), cut[1]))
        for index in range(lo, hi):
            size = 1 if even else rows[index]
            self.waiting[(peer, numbers[index])] = (size, deadlines[0 if envelope else index], key)
        self.scheduler.add(Slice(made, lo, hi), key, self.now, together=key != "s")

    @rule()
    def worker_joins(self) -> None:
        self.scheduler.worker_idle(self.next_worker)
        self.idle.add(self.next_worker)
        self.next_worker += 1

    @precondition(lambda self: self.busy)
    @rule()
    def worker_finishes(self) -> None:
        worker, batches = self.busy.popitem()
        self.scheduler.worker_idle(worker)
        if batches > 1:
            self.busy[worker] = batches - 1
        else:
            self.idle.add(worker)

    @precondition(lambda self: self.busy or self.idle)
    @rule(data=st.data())
    def worker_leaves(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.busy.keys() | self.idle)))
        assert self.scheduler.is_idle(worker) is (worker in self.idle)
        assert self.scheduler.worker_lost(worker) is (worker in self.idle)
        self.busy.pop(worker, None)
        self.idle.discard(worker)

    @rule(first=st.integers(0, 40), count=st.integers(1, 12), peer=st.sampled_from([b"a", b"b"]))
    def cancel(self, first: int, count: int, peer: bytes) -> None:
        expected = [
            (peer, number) for number in range(first, first + count) if (peer, number) in self.waiting
        ]
        found = self.scheduler.cancel(peer, first, count)
        assert sorted(self.drop(found)) == expected

    @rule()
    def clear(self) -> None:
        expected = sorted(self.waiting)
        assert sorted(self.drop(self.scheduler.clear())) == expected

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def decide(self) -> None:
        decision = self.scheduler.decide(self.now)
        for name in names(decision.expired):
            assert self.waiting[name][1] <= self.now
        self.drop(decision.expired)
        for run in decision.runs:
            in_hand = self.busy.get(run.worker, 0) + 1
            if in_hand == 1:
                self.idle.remove(run.worker)  # KeyError: it was not idle
            else:
                assert self.scheduler.ahead
                assert in_hand == 2
            self.busy[run.worker] = in_hand
            entries = [self.waiting[name] for name in names(run.parts)]
            assert entries
            assert {key for _, _, key in entries} == {run.key}
            assert all(deadline > self.now for _, deadline, _ in entries)
            assert run.rows == sum(rows for rows, _, _ in entries)
            assert run.rows <= self.max or len(entries) == 1
            assert run.key != "s" or len(entries) == 1
            self.drop(run.parts)
        if self.idle and not self.delay:
            assert not self.waiting
        if decision.wake_at is not None:
            assert self.idle
            assert self.waiting
            assert self.now < decision.wake_at <= self.now + self.delay

    @invariant()
    def counters_match(self) -> None:
        if hasattr(self, "scheduler"):
            assert self.scheduler.queued_requests == len(self.waiting)
            assert self.scheduler.queued_rows == sum(rows for rows, _, _ in self.waiting.values())
            assert self.scheduler.idle_workers == len(self.idle)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        # With time and workers enough everything comes out.
        self.now += 100
        while self.waiting:
            self.worker_joins()
            self.decide()


Machine.TestCase.settings = settings(
    deadline=None, derandomize=True, max_examples=120, stateful_step_count=30
)
TestRandomSequences = Machine.TestCase
