from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_engine import FakeEngine, add_version, fail_with
from tensorwire.manager.budget import MemoryBudget
from tensorwire.manager.config import ModelConfig
from tensorwire.manager.handle import ServableHandle
from tensorwire.manager.harness import LoaderHarness, Outcome, RetryConfig
from tensorwire.manager.loader import Loader
from tensorwire.manager.states import TRANSITIONS, Event, IllegalTransition, State
from tensorwire.rpc.errors import (
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    UnavailableError,
)


def nothing() -> None:
    return None


class Rig:
    """A harness for version 1 of m, with a clock and a budget that the test sets."""

    def __init__(self, root: Path, *, budget: int | None = None, retries: int = 2) -> None:
        self.engine = FakeEngine()
        self.now = 10.0
        self.budget = MemoryBudget(budget)
        loader = Loader("m", 1, add_version(root, "m", 1), ModelConfig(), finder=self.engine.finder)
        self.harness = LoaderHarness(
            1, loader, budget=self.budget, retry=RetryConfig(retries, 1.0, 3.0), clock=lambda: self.now
        )

    def attempt(self) -> LoaderHarness:
        """One attempt from WAITING to its end."""
        self.harness.start()
        self.harness.finish(self.harness.work(self.harness.loaded))
        return self.harness

    def load(self) -> LoaderHarness:
        self.harness.approve()
        return self.attempt()

    def handle(self) -> ServableHandle:
        loader = self.harness.loader
        return loader.warm_up(loader.load())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_load(rig: Rig) -> None:
    harness = rig.load()
    assert harness.state is State.AVAILABLE
    assert harness.handle is not None
    assert harness.handle.ram_bytes == 100
    assert rig.budget.used == 100
    harness.retire()
    assert harness.state is State.UNLOADING
    harness.unload()
    harness.released()
    assert harness.state is State.UNLOADED
    assert rig.budget.used == 0
    assert rig.engine.alive() == []


EVENTS: dict[Event, Callable[[Rig], None]] = {
    Event.APPROVE: lambda rig: rig.harness.approve(),
    Event.START: lambda rig: rig.harness.start(),
    Event.LOADED: lambda rig: rig.harness.loaded(),
    Event.WARMED: lambda rig: rig.harness.finish(Outcome(handle=rig.handle())),
    Event.BLOCK: lambda rig: rig.harness.finish(Outcome(blocked=True)),
    Event.RETRY: lambda rig: rig.harness.finish(Outcome(error=UnavailableError("later"))),
    Event.FAIL: lambda rig: rig.harness.finish(Outcome(error=InvalidArgumentError("never"), final=True)),
    Event.RETIRE: lambda rig: rig.harness.retire(),
    Event.BREAK: lambda rig: rig.harness.broken("its workers die"),
    Event.RELEASED: lambda rig: rig.harness.released(),
}
WAYS: dict[State, list[Event]] = {
    State.NEW: [],
    State.WAITING: [Event.APPROVE],
    State.LOADING: [Event.APPROVE, Event.START],
    State.WARMING: [Event.APPROVE, Event.START, Event.LOADED],
    State.AVAILABLE: [Event.APPROVE, Event.START, Event.LOADED, Event.WARMED],
    State.UNLOADING: [Event.APPROVE, Event.START, Event.LOADED, Event.WARMED, Event.RETIRE],
    State.BROKEN: [Event.APPROVE, Event.START, Event.LOADED, Event.WARMED, Event.BREAK],
    State.CANCELLING: [Event.APPROVE, Event.START, Event.RETIRE],
    State.FAILED: [Event.APPROVE, Event.START, Event.FAIL],
    State.UNLOADED: [Event.RETIRE],
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_the_harness_follows_the_table(rig: Rig, state: State, event: Event) -> None:
    for step in WAYS[state]:
        EVENTS[step](rig)
    assert rig.harness.state is state
    expected = TRANSITIONS.get((state, event))
    if expected is None:
        with pytest.raises(IllegalTransition):
            EVENTS[event](rig)
    else:
        EVENTS[event](rig)
        assert rig.harness.state is expected


def test_retries_with_growing_waits(rig: Rig) -> None:
    rig.engine.failures["m", 1] = [UnavailableError(f"try {n}") for n in range(3)]
    harness = rig.load()
    assert harness.state is State.WAITING
    assert harness.not_before == 11.0
    assert harness.reason == "attempt 1 failed, the next one follows in 1 s: UNAVAILABLE: try 0"
    assert not harness.startable(10.9)
    assert harness.startable(11.0)
    rig.now = 11.0
    assert rig.attempt().not_before == 13.0
    rig.now = 13.0
    assert rig.attempt().state is State.FAILED
    assert harness.reason == "UNAVAILABLE: try 2"
    assert rig.budget.used == 0


def test_waits_do_not_grow_for_ever() -> None:
    retry = RetryConfig(1000, 1.0, 60.0)
    assert [retry.wait(n) for n in (1, 2, 3, 7, 5000)] == [1.0, 2.0, 4.0, 60.0, 60.0]


def test_a_success_after_failures_forgets_them(rig: Rig) -> None:
    rig.engine.failures["m", 1] = [UnavailableError("not yet")]
    rig.load()
    harness = rig.attempt()
    assert harness.state is State.AVAILABLE
    assert harness.reason == ""


def test_what_can_never_succeed_is_not_tried_again(rig: Rig) -> None:
    rig.engine.failures["m", 1] = [InvalidArgumentError("not a model")]
    harness = rig.load()
    assert harness.state is State.FAILED
    assert harness.attempts == 1
    assert harness.reason == "INVALID_ARGUMENT: not a model"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("bad"), "INTERNAL: ValueError: bad"), (MemoryError(), "RESOURCE_EXHAUSTED: out of memory")],
)
def test_foreign_errors_are_translated(rig: Rig, error: Exception, reason: str) -> None:
    rig.engine.failures["m", 1] = [error]
    assert reason in rig.load().reason


def test_a_failed_warm_up_fails_the_load_and_frees_the_model(rig: Rig) -> None:
    rig.engine.options["m", 1] = {"compute": fail_with(InvalidArgumentError("no such index"))}
    harness = rig.load()
    assert harness.state is State.FAILED
    assert "no such index" in harness.reason
    assert rig.engine.alive() == []
    assert rig.budget.used == 0


def test_what_does_not_fit_waits_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, budget=150)
    assert rig.budget.reserve("other", 80)
    harness = rig.load()
    assert harness.state is State.WAITING
    assert harness.starved
    assert harness.attempts == 0
    assert "waits for memory: needs 100 B, 70 B of 150 B are free" in harness.reason
    assert not harness.startable(rig.now)
    assert rig.engine.loads == []
    rig.budget.release("other")
    assert harness.startable(rig.now)
    assert rig.attempt().state is State.AVAILABLE


def test_what_can_never_fit_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, budget=99)
    harness = rig.load()
    assert harness.state is State.FAILED
    assert harness.refused_for_size
    assert "needs 100 B of memory, the budget is 99 B in all; raise ram_budget" in harness.reason


def test_a_waiting_version_is_gone_at_once(rig: Rig) -> None:
    rig.engine.failures["m", 1] = [InternalError("x")]
    rig.load().retire()
    assert rig.harness.state is State.UNLOADED


def test_a_load_that_was_cancelled_before_it_began_reads_nothing(rig: Rig) -> None:
    harness = rig.harness
    harness.approve()
    harness.start()
    harness.retire()
    harness.finish(harness.work(harness.loaded))
    assert harness.state is State.UNLOADED
    assert rig.engine.loads == []
    assert rig.budget.used == 0


def test_a_load_that_was_cancelled_meanwhile_is_thrown_away(rig: Rig) -> None:
    harness = rig.harness
    harness.approve()
    harness.start()

    def cancel() -> None:
        harness.loaded()
        harness.retire()

    harness.finish(harness.work(cancel))
    assert harness.state is State.UNLOADED
    assert rig.engine.loads == [("m", 1)]
    assert rig.engine.alive() == []


def test_a_cancelled_load_that_still_succeeds_is_unloaded_like_any_other(rig: Rig) -> None:
    harness = rig.harness
    harness.approve()
    harness.start()
    outcome = harness.work(harness.loaded)
    harness.retire()
    harness.finish(outcome)
    assert harness.state is State.UNLOADING
    harness.unload()
    harness.released()
    assert rig.engine.alive() == []


def test_a_close_that_fails_does_not_stop_the_unload(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = rig.load()

    def fail() -> None:
        raise OSError("device lost")

    monkeypatch.setattr(rig.engine.servables[0], "close", fail)
    harness.retire()
    harness.unload()
    assert rig.budget.used == 0


def test_a_close_that_fails_does_not_hide_why_the_load_failed(rig: Rig) -> None:
    def compute(inputs: object) -> list[object]:
        rig.engine.servables[0].close = compute  # type: ignore[method-assign,assignment]
        raise InvalidArgumentError("the first error")

    rig.engine.options["m", 1] = {"compute": compute}
    assert "the first error" in rig.load().reason


def test_a_failed_precondition_is_final_only_before_the_load(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.engine.failures["m", 1] = [FailedPreconditionError("load() failed: the database is away")]
    assert rig.load().state is State.WAITING
    rig.now += 1

    def no_model(path: Path, config: ModelConfig) -> int:
        raise FailedPreconditionError("no model.onnx")

    monkeypatch.setattr(rig.engine, "estimate_ram", no_model)
    assert rig.attempt().state is State.FAILED


def test_a_model_that_ends_the_interpreter_fails_its_load_only(rig: Rig) -> None:
    rig.engine.failures["m", 1] = [SystemExit(3)]
    assert "INTERNAL: SystemExit: 3" in rig.load().reason


def test_its_name_in_logs(rig: Rig) -> None:
    assert repr(rig.harness) == "<LoaderHarness m:1 NEW>"
