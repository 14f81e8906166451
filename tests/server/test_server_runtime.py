"""A version as the front end sees it: settings, workers that come and go, batches that run in place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from bundles import bundle, signature
from desk import surroundings
from fake_engine import FakeServable, identity
from tensorwire.manager import ServableHandle
from tensorwire.manager.config import BatchingConfig, LimitsConfig, ModelConfig, WorkersConfig
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.rpc.pump import whole
from tensorwire.rpc.types import TensorSpec
from tensorwire.server import runtime as runtime_module
from tensorwire.server.batch import Batch, Outcome
from tensorwire.server.runtime import VersionRuntime
from tensorwire.server.scheduler import Run
from tensorwire.server.workers import ThreadWorker

Array = np.ndarray[Any, Any]
X = signature(("x", "float32", (2,)))


def config(workers: int = 1, max_batch_size: int = 8, **options: Any) -> ModelConfig:
    return ModelConfig(
        batching=BatchingConfig(enabled=True, max_batch_size=max_batch_size),
        workers=WorkersConfig(count=workers),
        **options,
    )


def batch(runtime: VersionRuntime, *numbers: int) -> Batch:
    made = bundle(*numbers, inputs=[np.ones((len(numbers), 2), np.float32)], of=X)
    binding = runtime.bindings.get(X)
    return runtime.batch(binding, [whole(made)], len(numbers), 0.0)


class Rig:
    """A runtime whose servable waits for a gate."""

    def __init__(self, **options: Any) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.costs: dict[int, float] = options.pop("costs", {1: 0.0001, 8: 0.0002})
        self.budget: float = options.pop("inline_budget", 0.0005)
        settings = options.pop("config", config())
        compute = options.pop("compute", self._compute)
        self.servable = FakeServable("m", 1, compute=compute, **options)
        self.handle = ServableHandle("m", 1, self.servable, settings, costs=self.costs)
        self.done: SimpleQueue[tuple[int, Batch, Outcome]] = SimpleQueue()
        self.runtime = VersionRuntime(
            self.handle, surroundings(lambda *result: self.done.put(result)), self.budget
        )

    def _compute(self, inputs: dict[str, Array]) -> list[Array]:
        assert self.gate.wait(10)
        return identity(inputs)

    def change(self, settings: ModelConfig) -> bool:
        self.handle.config = settings
        return self.runtime.reconfigure()

    def start(self, count: int) -> list[int]:
        """Keep this many workers busy."""
        self.gate.clear()
        for number in range(count):
            self.runtime.scheduler.add(batch(self.runtime, number).parts[0], "k", 0.0, together=False)
        runs = self.runtime.scheduler.decide(0.0).runs
        for run in runs:
            self.runtime.submit(run.worker, batch(self.runtime, 1))
        return [run.worker for run in runs]

    def finish(self) -> int:
        self.gate.set()
        worker, finished, outcome = self.done.get(timeout=10)
        assert outcome.results[0].error is None
        self.runtime.worker_done(worker, finished)
        return worker


Make = Callable[..., Rig]


@pytest.fixture
def make() -> Iterator[Make]:
    rigs: list[Rig] = []

    def build(**options: Any) -> Rig:
        rigs.append(Rig(**options))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.gate.set()
        rig.runtime.stop()
        assert rig.runtime.join(10)


class TestSettings:
    def test_what_the_configuration_says(self, make: Make) -> None:
        rig = make(config=config(3, 16, limits=LimitsConfig(max_queued_rows=5, max_in_flight=6)))
        runtime = rig.runtime
        assert runtime.worker_count == runtime.scheduler.idle_workers == 3
        assert runtime.scheduler.policy.max_batch_size == runtime.max_batch_size == 16
        assert (runtime.load.max_queued_rows, runtime.load.max_in_flight) == (5, 6)
        assert runtime.idle
        assert runtime.load.row_seconds == pytest.approx(0.0002 / 8)

    def test_the_same_again_changes_nothing(self, make: Make) -> None:
        rig = make()
        assert rig.runtime.reconfigure() is False

    def test_a_delay_and_limits_change_while_it_serves(self, make: Make) -> None:
        rig = make()
        batching = BatchingConfig(enabled=True, max_batch_size=8, max_queue_delay=0.5)
        assert rig.change(ModelConfig(batching=batching, limits=LimitsConfig(max_queued_rows=7)))
        assert rig.runtime.scheduler.policy.max_queue_delay == 0.5
        assert rig.runtime.load.max_queued_rows == 7

    def test_batch_sizes_change_while_it_serves(self, make: Make) -> None:
        rig = make(config=config(max_batch_size=8), costs={1: 0.0001, 8: 0.0002})
        rig.handle.config = ModelConfig(
            batching=BatchingConfig(enabled=True, max_batch_size=2, allowed_batch_sizes=(2,))
        )
        # Not half of it: sizes and padding change together, when this thread takes them over.
        before = batch(rig.runtime, 1)
        assert (before.max_batch_size, before.allowed_batch_sizes) == (8, ())
        assert rig.runtime.reconfigure()
        after = batch(rig.runtime, 1)
        assert (after.max_batch_size, after.allowed_batch_sizes) == (2, (2,))
        assert rig.runtime.scheduler.policy.max_batch_size == rig.runtime.express_rows == 2
        assert rig.runtime.padded == {2}
        assert rig.runtime.load.row_seconds > 0.0002 / 8


class TestWorkers:
    def test_threads_start_with_their_first_batch(self, make: Make) -> None:
        before = threading.active_count()
        rig = make(config=config(4))
        assert threading.active_count() == before
        rig.start(1)
        assert threading.active_count() == before + 1
        rig.finish()

    def test_more(self, make: Make) -> None:
        rig = make(config=config(1))
        rig.start(1)
        assert rig.change(config(3))
        assert (rig.runtime.worker_count, rig.runtime.scheduler.idle_workers) == (3, 2)
        assert rig.runtime.load.workers == 3
        rig.finish()
        assert rig.runtime.scheduler.idle_workers == 3

    def test_fewer_idle_ones_leave_at_once(self, make: Make) -> None:
        rig = make(config=config(3))
        assert rig.change(config(1))
        assert (rig.runtime.worker_count, rig.runtime.scheduler.idle_workers) == (1, 1)

    def test_fewer_busy_ones_leave_when_they_are_done(self, make: Make) -> None:
        rig = make(config=config(3))
        assert len(rig.start(3)) == 3
        rig.change(config(1))
        assert (rig.runtime.worker_count, rig.runtime.load.workers) == (3, 1)
        counts = []
        for _ in range(3):
            rig.finish()
            counts.append((rig.runtime.worker_count, rig.runtime.scheduler.idle_workers))
        assert counts == [(2, 0), (1, 0), (1, 1)]

    def test_fewer_and_more_again_while_all_are_busy(self, make: Make) -> None:
        rig = make(config=config(3))
        rig.start(3)
        rig.change(config(1))
        rig.change(config(4))
        assert (rig.runtime.worker_count, rig.runtime.scheduler.idle_workers) == (4, 1)
        for _ in range(3):
            rig.finish()
        assert (rig.runtime.worker_count, rig.runtime.scheduler.idle_workers) == (4, 4)

    def test_one_with_a_batch_ahead_leaves_when_both_are_done(self, make: Make) -> None:
        rig = make(config=config(1, max_batch_size=1))
        rig.runtime.scheduler.ahead = True
        rig.start(1)
        for number in range(3):
            rig.runtime.scheduler.add(batch(rig.runtime, number).parts[0], "k", 0.0)
        (run,) = rig.runtime.scheduler.decide(0.0).runs
        rig.runtime.submit(run.worker, batch(rig.runtime, 1))
        assert len(rig.runtime.running()) == 2
        rig.change(config(2))
        rig.change(config(1))
        assert rig.runtime.worker_count == 1
        rig.finish()
        assert (rig.runtime.worker_count, rig.runtime.scheduler.idle_workers) == (1, 0)
        rig.finish()
        assert (rig.runtime.worker_count, rig.runtime.scheduler.idle_workers) == (1, 1)
        assert rig.runtime.running() == []

    def test_the_cost_of_a_batch_ahead_does_not_count_its_wait(self, make: Make) -> None:
        rig = make(costs={1: 0.001})
        rig.runtime.scheduler.add(batch(rig.runtime, 1).parts[0], "k", 0.0)
        now = time.monotonic()
        made = batch(rig.runtime, 1)._replace(started=now - 100)
        rig.runtime.account(made, Outcome([], 0.001, now), now - 0.001)
        assert rig.runtime.load.row_seconds < 0.1

    def test_only_short_batches_are_handed_out_ahead(self, make: Make) -> None:
        for seconds, ahead in ((0.0002, False), (0.005, True), (0.02, False)):
            rig = make(costs={1: seconds}, config=config(1, max_batch_size=1))
            rig.runtime.account(batch(rig.runtime, 1), Outcome([], seconds, 0.0))
            assert rig.runtime.scheduler.ahead is ahead

    def test_a_worker_finishes_what_it_has_before_it_ends(self) -> None:
        servable = FakeServable("m", 1)
        handle = ServableHandle("m", 1, servable, config())
        done: SimpleQueue[int] = SimpleQueue()
        worker = ThreadWorker(5, handle, lambda number, *_: done.put(number))
        runtime = VersionRuntime(handle, surroundings(), 0.0)
        worker.submit(batch(runtime, 1))
        worker.submit(batch(runtime, 2))
        worker.stop()
        assert worker.join(10)
        assert [done.get_nowait(), done.get_nowait()] == [5, 5]

    def test_one_that_never_ran_ends_at_once(self) -> None:
        worker = ThreadWorker(0, ServableHandle("m", 1, FakeServable("m", 1), config()), lambda *_: None)
        worker.stop()
        assert worker.join(0)


class TestInline:
    def run(self, rows: int) -> Run:
        return Run(0, "k", [], rows)

    def test_batches_that_are_short_enough(self, make: Make) -> None:
        rig = make(costs={1: 0.0001, 8: 0.0004, 64: 0.002})
        assert [rig.runtime.runs_inline(self.run(rows), 0.0) for rows in (0, 1, 8, 9, 64)] == [
            False,
            True,
            True,
            False,
            False,
        ]

    @pytest.mark.parametrize(
        "options",
        [{"releases_gil": False}, {"inline_budget": 0.0}, {"costs": {}}, {"costs": {1: 0.1}}],
        ids=["holds the GIL", "switched off", "not measured", "too slow"],
    )
    def test_never(self, make: Make, options: dict[str, Any]) -> None:
        assert not make(**options).runtime.runs_inline(self.run(1), 0.0)

    def test_they_are_counted(self, make: Make) -> None:
        rig = make()
        made = batch(rig.runtime, 1, 2)
        outcome = rig.runtime.run_inline(made)
        rig.runtime.account(made, outcome)
        counters = rig.runtime.counters
        assert (counters.inline_batches, counters.batches, counters.rows) == (1, 1, 2)

    def test_it_ends_for_a_while_when_they_take_much_longer_than_measured(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig = make()
        now = 100.0
        monkeypatch.setattr(runtime_module, "time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(runtime_module, "run_batch", lambda *_: Outcome([], 1.0, 0.0))
        for _ in range(20):
            rig.runtime.run_inline(batch(rig.runtime, 1))
        assert not rig.runtime.runs_inline(self.run(1), now)
        assert rig.runtime.runs_inline(self.run(1), now + 10)


class TestTemplates:
    def test_made_once_for_each_kind_of_output(self, make: Make) -> None:
        runtime = make().runtime
        binding = runtime.bindings.get(X)
        first = runtime.template(binding, [np.zeros((3, 2), np.float32)])
        assert first is runtime.template(binding, [np.zeros((9, 2), np.float32)])
        assert first is not runtime.template(binding, [np.zeros((3, 5), np.float32)])
        assert first.layout.shapes == ((2,),)
        assert first.layout.rows

    def test_text_is_what_the_model_declares(self, make: Make) -> None:
        outputs = (TensorSpec("y", "bytes", (None,)),)
        runtime = make(outputs=outputs).runtime
        made = runtime.template(runtime.bindings.get(X), [np.array([b"a"], object)])
        assert made.layout.dtype_names == ("bytes",)

    def test_what_has_no_wire_form_is_a_status(self, make: Make) -> None:
        runtime = make().runtime
        with pytest.raises(InvalidArgumentError, match="datetime64"):
            runtime.template(runtime.bindings.get(X), [np.zeros((3, 2), "M8[s]")])

    def test_ever_new_outputs_cost_no_memory(self, make: Make) -> None:
        runtime = make().runtime
        binding = runtime.bindings.get(X)
        for width in range(3000):
            runtime.template(binding, [np.zeros((1, width), np.float32)])
        assert len(runtime._templates) <= 1024


def test_counters_start_at_zero(make: Make) -> None:
    assert not any(msgspec.structs.astuple(make().runtime.counters))
