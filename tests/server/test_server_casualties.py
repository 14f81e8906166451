"""What becomes of requests whose worker died: decided purely, and carried out by the dispatcher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from bundles import bundle, ids, part, signature
from desk import FakeDesk
from fake_engine import FakeServable
from tensorwire.manager import ServableHandle
from tensorwire.manager.config import BatchingConfig, ModelConfig, WorkersConfig
from tensorwire.manager.snapshot import ServingModel, Snapshot
from tensorwire.rpc.errors import StatusCode
from tensorwire.rpc.pump import Counters, ReplyTemplate, Slice
from tensorwire.server.batch import Batch, Outcome, Result
from tensorwire.server.binding import Binding
from tensorwire.server.casualties import Fate, casualties
from tensorwire.server.config import ServingConfig
from tensorwire.server.dispatcher import Dispatcher
from tensorwire.server.runtime import VersionRuntime

X = signature(("x", "float32", (2,)))


def batch(*numbers: int, again: bool = False, mirrored: bool = False) -> Batch:
    metadata = FakeServable("m", 1).metadata
    whole = part(*numbers, of=X)
    whole.bundle.mirrored = mirrored
    return Batch(Binding(X, metadata), [whole], len(numbers), 8, (), 0.0, again)


@pytest.mark.parametrize(
    ("again", "mirrored", "at_work", "hopeless", "first", "second"),
    [
        (False, False, True, False, Fate.AGAIN, Fate.REQUEUE),
        (False, False, False, False, Fate.REQUEUE, Fate.REQUEUE),
        (True, False, True, False, Fate.POISONOUS, Fate.AGAIN),
        (True, False, False, False, Fate.AGAIN, Fate.AGAIN),
        *[
            (again, mirrored, at_work, not mirrored, Fate.DROP, Fate.DROP)
            for again in (False, True)
            for mirrored in (False, True)
            for at_work in (False, True)
        ],
        (False, True, True, True, Fate.DROP, Fate.DROP),
    ],
)
def test_fates(again: bool, mirrored: bool, at_work: bool, hopeless: bool, first: Fate, second: Fate) -> None:
    in_hand = [batch(1, 2, again=again, mirrored=mirrored), batch(3, again=again, mirrored=mirrored)]
    found = list(casualties(in_hand, in_hand[0] if at_work else None, hopeless))
    assert [(ids([case.part]), case.fate) for case in found] == [([1, 2], first), ([3], second)]
    assert [case.batch for case in found] == in_hand


def test_a_worker_with_nothing_in_hand_takes_nobody_with_it() -> None:
    assert list(casualties([], None, False)) == []


class Pump:
    """Notes who was answered, and how."""

    holding = False

    def __init__(self) -> None:
        self.counters = Counters()
        self.replies: list[int] = []
        self.errors: list[tuple[int, int, str]] = []

    def reply(self, part: Slice, template: ReplyTemplate, outputs: Any, row: int, *_: int) -> None:
        self.replies += ids([part])

    def fail(self, part: Slice, code: int, message: str) -> None:
        self.errors += [(number, code, message) for number in ids([part])]

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)


class Tomb:
    """A worker that takes batches and never gives them back; the test says what becomes of it."""

    productive = True
    process_id = None

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def submit(self, batch: Batch) -> None:
        self.batches.append(batch)

    def check(self, now: float) -> float | None:
        return None

    def stop(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> bool:
        return True


class Rig:
    """A dispatcher whose workers do what the test says; ``spares`` come when one dies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int = 1) -> None:
        self.tombs: list[Tomb] = []
        rig = self

        class Recruiter:
            coming = 0

            def __init__(self, enlist: Any) -> None:
                self.enlist = enlist

            def recruit(self) -> None:
                self.enlist(lambda number: rig.tomb())

            def replace(self, productive: bool) -> None:
                self.recruit()

        monkeypatch.setattr(VersionRuntime, "_make_recruiter", lambda runtime, *_: Recruiter(runtime._enlist))
        config = ModelConfig(
            batching=BatchingConfig(enabled=True, max_batch_size=8), workers=WorkersConfig(count=workers)
        )
        self.handle = ServableHandle("m", 1, FakeServable("m", 1), config)
        snapshot = Snapshot(1, {"m": ServingModel("m", {1: self.handle}, default=1)})
        self.pump, self.desk = Pump(), FakeDesk()
        self.dispatcher = Dispatcher(ServingConfig(), lambda: snapshot, self.pump, self.desk)

    def tomb(self) -> Tomb:
        self.tombs.append(Tomb())
        return self.tombs[-1]

    @property
    def runtime(self) -> VersionRuntime:
        (runtime,) = self.dispatcher.runtimes()
        return runtime

    def route(self, *numbers: int, **options: Any) -> None:
        rows = np.array([[number, number] for number in numbers], np.float32)
        self.dispatcher.take([bundle(*numbers, inputs=[rows], of=X, **options)], time.monotonic())
        self.dispatcher.dispatch()

    def lose(self, worker: int, at_work: bool = True) -> None:
        struck = self.tombs[worker].batches[0] if at_work else None
        self.dispatcher.lose(self.runtime, worker, struck, "was killed by the test")
        self.dispatcher.dispatch()

    def finish(self, worker: int) -> None:
        running = self.tombs[worker].batches.pop(0)
        outputs = [np.zeros((running.rows, 2), np.float32)]
        outcome = Outcome([Result(running.parts, outputs)], 0.001, running.started)
        self.dispatcher.complete(self.runtime, worker, running, outcome)
        self.dispatcher.dispatch()

    def running(self, worker: int) -> list[Sequence[int]]:
        return [ids(each.parts) for each in self.tombs[worker].batches]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_what_a_dead_worker_ran_is_run_again_one_by_one(rig: Rig) -> None:
    rig.route(1, 2, 3)
    assert rig.running(0) == [[1, 2, 3]]
    rig.lose(0)
    for number in (1, 2, 3):
        assert rig.running(1) == [[number]]
        assert rig.tombs[1].batches[0].again
        rig.finish(1)
    assert rig.pump.replies == [1, 2, 3]
    assert rig.pump.errors == []
    assert rig.runtime.counters.workers_lost == 1
    assert (rig.dispatcher.in_flight, rig.handle.references) == (0, 0)


def test_what_is_run_again_comes_before_what_came_later(rig: Rig) -> None:
    rig.route(1)
    rig.route(2)
    rig.lose(0)
    assert rig.running(1) == [[1]]
    rig.finish(1)
    assert rig.running(1) == [[2]]
    assert not rig.tombs[1].batches[0].again


def test_a_request_that_kills_two_workers_is_refused_and_the_others_are_answered(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.route(1, 2)
    rig.lose(0)
    rig.lose(1)
    assert [(number, code) for number, code, _ in rig.pump.errors] == [(1, StatusCode.INTERNAL)]
    assert "two workers died while they ran this request; the second was killed" in rig.pump.errors[0][2]
    assert "a request killed two workers: x float32[2]" in caplog.text
    rig.finish(2)
    assert rig.pump.replies == [2]
    assert (rig.runtime.counters.failed, rig.runtime.counters.workers_lost) == (1, 2)
    assert (rig.dispatcher.in_flight, rig.handle.references) == (0, 0)


def test_a_batch_in_the_hand_of_a_worker_that_dies_idle_is_run_as_it_was(rig: Rig) -> None:
    rig.route(1, 2)
    rig.lose(0, at_work=False)
    assert rig.running(1) == [[1, 2]]
    assert not rig.tombs[1].batches[0].again


def test_a_deadline_that_passes_meanwhile_is_kept(rig: Rig) -> None:
    rig.route(1, deadline=time.monotonic() + 0.02)
    late = time.monotonic() + 0.02
    while time.monotonic() < late:
        pass
    rig.lose(0)
    assert [(number, code) for number, code, _ in rig.pump.errors] == [(1, StatusCode.DEADLINE_EXCEEDED)]
    assert (rig.dispatcher.in_flight, rig.runtime.load.queued_rows, rig.handle.references) == (0, 0, 0)


def test_when_a_version_is_given_up_nothing_is_left_unanswered(rig: Rig) -> None:
    rig.route(1)
    rig.route(2, 3)
    rig.dispatcher._give_up(rig.runtime, "its workers die")
    assert [(number, code) for number, code, _ in rig.pump.errors] == [
        (2, StatusCode.UNAVAILABLE),
        (3, StatusCode.UNAVAILABLE),
    ]
    assert rig.desk.given_up == [(rig.handle, "its workers die")]
    rig.route(4)
    rig.lose(0)
    assert [number for number, _, _ in rig.pump.errors] == [2, 3, 4, 1]
    assert all(code == StatusCode.UNAVAILABLE for _, code, _ in rig.pump.errors)
    assert (rig.dispatcher.in_flight, rig.runtime.load.queued_rows, rig.handle.references) == (0, 0, 0)
