"""Batches in the hand of a worker process: in its socket ahead, expired there, failed, lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
from bundles import bundle, ids, signature
from desk import FakeDesk
from fake_engine import FakeServable
from tensorwire.manager import ServableHandle
from tensorwire.manager.config import ModelConfig, WorkersConfig
from tensorwire.rpc.errors import InternalError, InvalidArgumentError, RpcError
from tensorwire.rpc.pump import Slice, whole
from tensorwire.server.batch import Batch, Outcome, earliest_deadline
from tensorwire.server.binding import Binding
from tensorwire.server.process_worker import ProcessWorker
from tensorwire.server.processes.parent import WorkerProcess
from tensorwire.server.processes.port import Answer
from tensorwire.server.processes.process import WorkerLost
from tensorwire.server.workers import Surroundings

X = signature(("x", "float32", (2,)))
Array = np.ndarray[Any, Any]


class Process:
    """Notes what it is sent; answers what the test says."""

    pid = 1

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[float], int]] = []
        self.answers: list[Answer] = []
        self.refusal: Exception | None = None
        self.gone = ""
        self.killed = ""

    def filenos(self) -> tuple[int, int]:
        return 3, 4

    def send_call(
        self,
        call_id: int,
        inputs: Mapping[str, Sequence[Array]],
        padding: int,
        outputs: Sequence[str],
        deadline_us: int,
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        numbers = np.concatenate(list(inputs["x"]))[:, 0].tolist()
        self.calls.append((call_id, numbers, deadline_us))

    def receive(self) -> Answer | None:
        if self.answers:
            return self.answers.pop(0)
        if self.gone:
            raise WorkerLost(self.gone)
        return None

    def note_gone(self) -> None:
        self.gone = self.gone or "is gone"

    def kill(self, reason: str) -> None:
        self.killed = reason

    def stop(self) -> None:
        pass


class Rig:
    """A worker and its process; ``now`` is the test's."""

    def __init__(self, **workers: Any) -> None:
        self.now = 10.0
        self.process = Process()
        self.desk = FakeDesk()
        self.finished: list[tuple[Batch, Outcome]] = []
        self.lost: list[tuple[Batch | None, str]] = []
        servable = FakeServable("m", 1)
        self.metadata = servable.metadata
        handle = ServableHandle("m", 1, servable, ModelConfig(workers=WorkersConfig(**workers)))
        around = Surroundings(
            finished=lambda _, batch, outcome: self.finished.append((batch, outcome)),
            enlisted=lambda: None,
            lost=lambda _, batch, reason: self.lost.append((batch, reason)),
            post=self.desk.post,
            watch=self.desk.watch,
            unwatch=self.desk.unwatch,
        )
        process = cast("WorkerProcess", self.process)
        self.worker = ProcessWorker(0, handle, process, around, lambda _: None, lambda: self.now)

    def submit(self, *numbers: int, **options: Any) -> Batch:
        rows = np.array([[number, number] for number in numbers], np.float32)
        part = whole(bundle(*numbers, inputs=[rows], of=X, **options))
        batch = Batch(Binding(X, self.metadata), [part], len(numbers), 8, (), 0.0)
        self.worker.submit(batch)
        return batch

    def answer(
        self, call: int, rows: int = 1, error: RpcError | None = None, *, expired: bool = False
    ) -> None:
        outputs = None if error or expired else [np.zeros((rows, 2), np.float32)]
        self.process.answers.append(Answer(call, outputs, error, 0.25, expired))
        self.desk.watched[3]()

    def die(self) -> None:
        self.desk.watched[4]()

    def sent(self) -> list[tuple[int, list[float]]]:
        return [(call_id, numbers) for call_id, numbers, _ in self.process.calls]

    def outcomes(self) -> list[tuple[list[int], list[int], list[int]]]:
        """Of each finished batch what was answered, what failed, and what has expired."""
        return [
            (
                [number for r in outcome.results if not r.error for number in ids(r.parts)],
                [number for r in outcome.results if r.error for number in ids(r.parts)],
                ids(outcome.expired),
            )
            for _, outcome in self.finished
        ]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_batch_ahead_is_with_the_process_at_once(rig: Rig) -> None:
    rig.submit(1, 2)
    rig.now = 11.0
    rig.submit(3, deadline=99.5)
    assert rig.process.calls == [(1, [1, 2], 0), (2, [3], 99_500_000)]
    rig.now = 12.0
    rig.answer(1, 2)
    rig.now = 13.0
    rig.answer(2)
    assert rig.outcomes() == [([1, 2], [], []), ([3], [], [])]
    assert [outcome.begun for _, outcome in rig.finished] == [10.0, 12.0]
    assert [outcome.compute_seconds for _, outcome in rig.finished] == [0.25, 0.25]
    assert rig.worker.productive


def test_what_expires_in_its_socket_is_not_run_and_the_rest_is(rig: Rig) -> None:
    first = rig.submit(1, 2, 3, deadline=[11.0, 50.0, 50.0])
    second = rig.submit(4)
    assert rig.process.calls[0][2] == 11_000_000
    rig.now = 11.5
    rig.answer(1, expired=True)
    assert rig.process.calls[2:] == [(3, [2, 3], 50_000_000)]
    rig.answer(2)
    rig.answer(3, 2)
    assert rig.outcomes() == [([4], [], []), ([2, 3], [], [1])]
    assert [batch for batch, _ in rig.finished] == [second, first]


def test_when_all_of_it_has_expired_nothing_is_run(rig: Rig) -> None:
    rig.submit(1, 2, deadline=11.0)
    rig.now = 11.5
    rig.answer(1, expired=True)
    assert rig.sent() == [(1, [1, 2])]
    assert rig.outcomes() == [([], [], [1, 2])]
    assert not rig.worker.productive
    rig.submit(3, deadline=11.0)
    assert rig.sent() == [(1, [1, 2])]
    assert rig.outcomes()[1] == ([], [], [3])


def test_a_process_that_calls_everything_expired_is_not_believed_for_ever(rig: Rig) -> None:
    rig.submit(1)
    rig.answer(1, expired=True)
    assert rig.outcomes() == [([], [1], [])]


def test_the_deadline_is_that_of_what_is_sent(rig: Rig) -> None:
    made = bundle(1, 2, 3, deadline=[5.0, 60.0, 70.0], inputs=[np.zeros((3, 2), np.float32)], of=X)
    batch = Batch(Binding(X, rig.metadata), [Slice(made, 1, 3)], 2, 8, (), 0.0)
    assert earliest_deadline(batch) == 60.0
    assert earliest_deadline(batch._replace(parts=[Slice(made, 2, 3), whole(made)])) == 5.0
    envelope = bundle(1, 2, 3, deadline=7.0, envelope=True, of=X)
    assert earliest_deadline(batch._replace(parts=[Slice(envelope, 1, 2)])) == 7.0
    rig.worker.submit(batch)
    assert rig.process.calls[0][2] == 60_000_000


def test_requests_of_a_failed_batch_run_behind_what_is_ahead(rig: Rig) -> None:
    rig.submit(1, 2)
    rig.submit(3)
    rig.answer(1, error=InternalError("bad"))
    rig.answer(2)
    rig.answer(3, error=InternalError("bad"))
    rig.answer(4)
    assert rig.sent() == [(1, [1, 2]), (2, [3]), (3, [1]), (4, [2])]
    assert rig.outcomes() == [([3], [], []), ([2], [1], [])]


def test_an_output_without_all_rows_is_a_failure(rig: Rig) -> None:
    rig.submit(1)
    rig.answer(1, 2)
    assert rig.outcomes() == [([], [1], [])]


def test_what_is_larger_than_a_batch_takes_several_calls(rig: Rig) -> None:
    rig.submit(*range(10), deadline=50.0)
    assert rig.process.calls == [(1, [*range(8)], 50_000_000)]
    rig.answer(1, 8)
    assert rig.process.calls[1:] == [(2, [8, 9], 0)]
    rig.answer(2, 2)
    assert rig.outcomes() == [([*range(10)], [], [])]


def test_a_large_one_that_expires_begins_anew(rig: Rig) -> None:
    rig.submit(*range(10), deadline=[11.0, *[50.0] * 9])
    rig.now = 12.0
    rig.answer(1, expired=True)
    rig.answer(2, 8)
    rig.answer(3, 1)
    assert rig.sent()[1:] == [(2, [*range(1, 9)]), (3, [9])]
    assert rig.outcomes() == [([*range(1, 10)], [], [0])]


class TestLoss:
    def test_the_first_in_hand_is_suspect(self, rig: Rig) -> None:
        first = rig.submit(1)
        rig.submit(2)
        rig.die()
        assert rig.lost == [(first, "is gone")]
        assert rig.desk.watched == {}
        rig.submit(3)
        assert rig.finished == []

    def test_what_was_answered_before_is_not(self, rig: Rig) -> None:
        rig.submit(1)
        second = rig.submit(2)
        rig.process.answers.append(Answer(1, [np.zeros((1, 2), np.float32)], None, 0.0))
        rig.die()
        assert rig.outcomes() == [([1], [], [])]
        assert rig.lost == [(second, "is gone")]

    def test_what_is_run_again_in_parts_is_not_while_another_is_first(self, rig: Rig) -> None:
        rig.submit(1, 2)
        second = rig.submit(3)
        rig.answer(1, error=InternalError("bad"))
        rig.die()
        assert rig.lost == [(second, "is gone")]

    def test_what_could_not_be_sent_is_not(self, rig: Rig) -> None:
        rig.process.refusal = WorkerLost("was killed")
        rig.submit(1)
        assert rig.lost == [(None, "was killed")]


def test_an_input_that_cannot_be_sent_fails_alone(rig: Rig) -> None:
    rig.process.refusal = InvalidArgumentError("no form")
    rig.submit(1, 2)
    assert rig.outcomes() == [([], [1, 2], [])]


def test_time_counts_from_when_it_came_first() -> None:
    rig = Rig(hang_timeout=5.0)
    assert rig.worker.check(99.0) is None
    rig.submit(1)
    rig.submit(2)
    rig.now = 12.0
    assert rig.worker.check(12.0) == 15.0
    rig.answer(1)
    assert rig.worker.check(16.0) == 17.0
    assert rig.process.killed == ""
    assert rig.worker.check(17.0) is None
    assert "more than 5 s" in rig.process.killed
