"""Bringing up worker processes again: when, and when no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from desk import FakeDesk
from fake_engine import FakeServable
from tensorwire.manager import ServableHandle
from tensorwire.manager.config import ModelConfig
from tensorwire.rpc.errors import InternalError, RpcError
from tensorwire.server.process_recruiter import FRUITLESS, ProcessRecruiter
from tensorwire.server.processes.servable import ProcessServable
from tensorwire.server.workers import Surroundings


class Processes:
    """A servable whose processes come when the test says so."""

    def __init__(self) -> None:
        self.ready: list[Any] = []
        self.delays: list[float] = []
        self.started: list[Callable[[RpcError | None], None]] = []
        self.released: list[Any] = []

    def take(self) -> Any:
        return self.ready.pop(0) if self.ready else None

    def release(self, process: Any) -> None:
        self.released.append(process)

    def start_another(self, delay: float, started: Callable[[RpcError | None], None]) -> None:
        self.delays.append(delay)
        self.started.append(started)


class Process:
    """A process that is asked to end."""

    def __init__(self) -> None:
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class Rig:
    def __init__(self) -> None:
        self.processes, self.desk = Processes(), FakeDesk()
        self.enlisted = 0
        self.given_up: list[str] = []
        self.wanted, self.working = True, False

        def enlist(_: Any) -> None:
            self.enlisted += 1

        desk = self.desk
        around = Surroundings(
            desk.completed, lambda: None, lambda *_: None, desk.post, desk.watch, desk.unwatch
        )
        self.recruiter = ProcessRecruiter(
            ServableHandle("m", 1, FakeServable("m", 1), ModelConfig()),
            cast("ProcessServable", self.processes),
            around,
            enlist,
            broken=self.given_up.append,
            wanted=lambda: self.wanted,
            working=lambda: self.working,
        )

    def arrive(self, process: Any = None, error: RpcError | None = None) -> None:
        if process is not None:
            self.processes.ready.append(process)
        self.processes.started.pop(0)(error)
        self.desk.run()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_who_is_ready_is_enlisted_at_once(rig: Rig) -> None:
    rig.processes.ready.append(Process())
    rig.recruiter.recruit()
    assert (rig.enlisted, rig.recruiter.coming, rig.processes.delays) == (1, 0, [])


def test_another_one_is_started_and_enlisted_when_it_comes(rig: Rig) -> None:
    rig.recruiter.recruit()
    assert (rig.enlisted, rig.recruiter.coming, rig.processes.delays) == (0, 1, [0.0])
    rig.arrive(Process())
    assert (rig.enlisted, rig.recruiter.coming) == (1, 0)


def test_who_is_not_wanted_any_more_ends(rig: Rig) -> None:
    rig.recruiter.recruit()
    rig.wanted = False
    process = Process()
    rig.arrive(process)
    assert (rig.enlisted, process.stopped, rig.processes.released) == (0, True, [process])


def test_a_worker_that_has_worked_is_replaced_at_once_however_often(rig: Rig) -> None:
    for _ in range(3 * FRUITLESS):
        rig.recruiter.replace(True)
    assert set(rig.processes.delays) == {0.0}
    assert rig.given_up == []


def test_those_that_die_before_they_have_worked_wait_longer_and_longer_until_none_follows(rig: Rig) -> None:
    for _ in range(FRUITLESS):
        rig.recruiter.replace(False)
    assert rig.processes.delays == [0.0, 0.1, 0.2, 0.4]
    assert rig.given_up == [f"its workers die before they have finished a batch: {FRUITLESS} times in a row"]


def test_one_that_works_in_between_starts_the_count_afresh(rig: Rig) -> None:
    for productive in (False, False, False, False, True, False, False):
        rig.recruiter.replace(productive)
    assert rig.processes.delays == [0.0, 0.1, 0.2, 0.4, 0.0, 0.0, 0.1]
    assert rig.given_up == []


def test_those_that_cannot_be_started_are_given_up_with_the_reason(rig: Rig) -> None:
    rig.recruiter.recruit()
    for _ in range(FRUITLESS):
        rig.arrive(error=InternalError("no such device"))
    assert rig.recruiter.coming == 0
    (reason,) = rig.given_up
    assert "its workers cannot be started" in reason
    assert "no such device" in reason


def test_while_another_one_works_nobody_is_given_up(rig: Rig) -> None:
    rig.working = True
    rig.recruiter.recruit()
    for _ in range(20):
        rig.arrive(error=InternalError("only one may have the device"))
    assert rig.given_up == []
    assert rig.processes.delays[-1] == 30.0
    assert rig.recruiter.coming == 1
