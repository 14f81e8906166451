"""From bundles to replies, with a pump that only takes notes: the express way and when it is not taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from bundles import bundle, signature
from desk import FakeDesk
from fake_engine import FakeServable, identity
from tensorwire.manager import ServableHandle
from tensorwire.manager.config import BatchingConfig, LimitsConfig, ModelConfig, WorkersConfig
from tensorwire.manager.snapshot import ServingModel, Snapshot
from tensorwire.rpc.errors import InvalidArgumentError, StatusCode
from tensorwire.rpc.pump import Bundle, Counters, Drained, ReplyTemplate, Slice
from tensorwire.server.config import ServingConfig
from tensorwire.server.dispatcher import Dispatcher

Array = np.ndarray[Any, Any]
X = signature(("x", "float32", (2,)))
OTHER = signature(("z", "float32", (2,)))


def made(*numbers: int, **options: Any) -> Bundle:
    rows = np.array([[number, number] for number in numbers], np.float32)
    return bundle(*numbers, inputs=[rows], of=options.pop("of", X), **options)


class Notes:
    """A pump that writes down what it is told to answer."""

    holding = False

    def __init__(self) -> None:
        self.counters = Counters()
        self.replies: list[tuple[int, list[list[float]]]] = []
        self.errors: list[tuple[int, int, str]] = []

    def reply(
        self, part: Slice, template: ReplyTemplate, outputs: Sequence[Array], row: int, *times: int
    ) -> None:
        assert all(microseconds >= 0 for microseconds in times)
        assert template.layout.names == ("y",)
        for message in part.bundle.messages(part.lo, part.hi):
            start = row + part.bundle.row_start(message.start) - part.bundle.row_start(part.lo)
            end = start + part.bundle.row_span(message.start, message.start + message.requests)
            self.replies.append((message.first_id, outputs[0][start:end].tolist()))

    def fail(self, part: Slice, code: int, message: str) -> None:
        self.errors += [(each.first_id, code, message) for each in part.bundle.messages(part.lo, part.hi)]

    def drain(self, limit: int = 1) -> Drained:
        raise NotImplementedError

    def send(self, peer: bytes, frame: bytes) -> None:
        raise NotImplementedError

    def flush(self) -> bool:
        return False


class Rig:
    """A dispatcher over one version of one model, whose batches run inline or wait for :meth:`finish`."""

    def __init__(self, compute: Any = identity, costs: Any = None, **batching: Any) -> None:
        self.batches: list[list[int]] = []

        def noted(inputs: dict[str, Array]) -> list[Array]:
            self.batches.append([int(row[0]) for row in inputs["x"]])
            return compute(inputs)

        limits = LimitsConfig(max_in_flight=batching.pop("max_in_flight", 100))
        self.config = ModelConfig(
            batching=BatchingConfig(**{"enabled": True, "max_batch_size": 8, **batching}),
            workers=WorkersConfig(count=1),
            limits=limits,
        )
        self.compute = noted
        self.costs = {1: 1e-5, 8: 1e-5} if costs is None else costs
        self.desk = FakeDesk()
        self.pump = Notes()
        self.publish(1)
        self.dispatcher = Dispatcher(ServingConfig(), lambda: self.snapshot, self.pump, self.desk)

    def publish(self, version: int) -> None:
        servable = FakeServable("m", version, compute=self.compute)
        self.handle = ServableHandle("m", version, servable, self.config, costs=self.costs)
        model = ServingModel("m", {version: self.handle}, default=version)
        self.snapshot = Snapshot(version, {"m": model})

    def route(self, *numbers: int, **options: Any) -> None:
        """One bundle arrives."""
        self.together(made(*numbers, **options))

    def together(self, *bundles: Bundle) -> None:
        """Several bundles arrive at once."""
        self.dispatcher.take(bundles, time.monotonic())

    @property
    def answered(self) -> list[int]:
        return [first for first, _ in self.pump.replies]

    @property
    def counters(self) -> Any:
        (runtime,) = self.dispatcher.runtimes()
        return runtime.counters


def broken(inputs: dict[str, Array]) -> list[Array]:
    if 3 in inputs["x"]:
        raise InvalidArgumentError("three is wrong")
    return identity(inputs)


class TestExpress:
    def test_a_bundle_alone_is_answered_at_once(self) -> None:
        rig = Rig()
        for _ in range(2):
            rig.route(4, 5)
        assert rig.pump.replies == [(4, [[4, 4]]), (5, [[5, 5]])] * 2
        assert rig.batches == [[4, 5]] * 2
        counters = rig.counters
        assert (counters.requests, counters.rows, counters.batches, counters.inline_batches) == (4, 4, 2, 2)
        assert counters.compute_seconds > 0
        assert counters.queue_seconds > 0
        assert (rig.handle.references, rig.dispatcher.in_flight, rig.dispatcher.touched) == (0, 0, {})

    @pytest.mark.parametrize(
        "options",
        [
            {"max_queue_delay": 0.01},
            {"costs": {1: 0.1, 8: 0.1}},
            {"costs": {}},
            {"allowed_batch_sizes": (1, 4, 8)},
            {"max_in_flight": 1},
        ],
        ids=["waits for company", "too slow", "not measured", "needs padding", "over the limit"],
    )
    def test_others_queue(self, options: dict[str, Any]) -> None:
        rig = Rig(**options)
        rig.route(4, 5)
        assert rig.batches == []
        assert rig.dispatcher.in_flight == 2 - len(rig.pump.errors)
        assert rig.dispatcher.touched
        rig.dispatcher.close()

    def test_small_ones_that_come_together_share_a_batch(self) -> None:
        rig = Rig()
        rig.together(made(1), made(2))
        assert rig.batches == []
        rig.dispatcher.dispatch()
        assert rig.batches == [[1, 2]]
        assert rig.answered == [1, 2]

    def test_full_batches_that_come_together_run_in_turn(self) -> None:
        rig = Rig(max_batch_size=1)
        rig.together(made(1), made(2))
        assert rig.batches == [[1], [2]]

    def test_nobody_overtakes_those_who_wait(self) -> None:
        rig = Rig(max_batch_size=2)
        rig.together(made(1), made(2, 3))
        assert rig.batches == []
        rig.dispatcher.dispatch()
        assert rig.answered[0] == 1

    def test_priorities_are_the_schedulers(self) -> None:
        rig = Rig(max_batch_size=1)
        rig.together(made(1), made(2, priority=1))
        rig.dispatcher.dispatch()
        assert rig.answered == [2]

    def test_what_has_expired_is_not_run(self) -> None:
        rig = Rig()
        rig.route(1, deadline=time.monotonic() - 1)
        rig.dispatcher.dispatch()
        assert rig.batches == []
        assert [(first, code) for first, code, _ in rig.pump.errors] == [(1, StatusCode.DEADLINE_EXCEEDED)]
        assert rig.counters.expired == 1

    def test_one_that_fails_fails_alone(self) -> None:
        rig = Rig(broken)
        rig.route(2, 3, 4)
        assert rig.answered == [2, 4]
        assert rig.pump.errors == [(3, StatusCode.INVALID_ARGUMENT, "three is wrong")]
        assert rig.batches == [[2, 3, 4], [2], [3], [4]]
        assert rig.counters.failed == 1
        assert rig.handle.references == 0

    @pytest.mark.parametrize(
        ("compute", "message"),
        [
            (lambda _: [np.zeros((7, 2), np.float32)], "has shape [7, 2] for 1 rows"),
            (lambda _: [], "gave 0 outputs"),
        ],
    )
    def test_outputs_are_looked_at_however_often_they_were_right(self, compute: Any, message: str) -> None:
        answers = [identity, compute]
        rig = Rig(lambda inputs: answers[min(1, len(rig.batches) - 1)](inputs))
        rig.route(1)
        rig.route(2)
        assert rig.answered == [1]
        ((first, code, text),) = rig.pump.errors
        assert (first, code) == (2, StatusCode.INTERNAL)
        assert message in text

    def test_outputs_of_another_dtype_get_their_own_header(self) -> None:
        dtypes = [np.float32, np.float64, np.float32]
        rig = Rig(lambda inputs: [inputs["x"].astype(dtypes[len(rig.batches) - 1])])
        for number in (1, 2, 3):
            rig.route(number)
        assert rig.answered == [1, 2, 3]

    def test_outputs_that_cannot_be_sent_are_the_models_fault(self) -> None:
        rig = Rig(lambda inputs: [inputs["x"].astype("datetime64[s]")])
        rig.route(1)
        ((_, code, text),) = rig.pump.errors
        assert code == StatusCode.INTERNAL
        assert "the outputs cannot be sent" in text
        assert rig.batches == [[1]]

    def test_requests_that_do_not_fit_the_model_are_refused(self) -> None:
        rig = Rig()
        rig.route(1, of=OTHER)
        assert [(first, code) for first, code, _ in rig.pump.errors] == [(1, StatusCode.INVALID_ARGUMENT)]

    def test_overload_is_noted_and_what_is_wrong_is_not_overload(self) -> None:
        rig = Rig(max_in_flight=1)
        rig.route(1, of=OTHER)
        rig.route(2)
        assert (rig.answered, rig.dispatcher.overloaded) == ([2], False)
        rig.route(3, 4)
        assert rig.dispatcher.overloaded
        assert [code for _, code, _ in rig.pump.errors] == [
            StatusCode.INVALID_ARGUMENT,
            StatusCode.RESOURCE_EXHAUSTED,
        ]
        rig.dispatcher.close()

    def test_a_new_version_takes_over(self) -> None:
        rig = Rig()
        rig.route(1)
        old = rig.handle
        rig.publish(2)
        rig.route(2)
        rig.dispatcher.retire(old)
        rig.route(3)
        assert rig.answered == [1, 2, 3]
        assert [runtime.handle.version for runtime in rig.dispatcher.runtimes()] == [2]

    def test_a_version_that_is_being_unloaded_takes_nothing(self) -> None:
        rig = Rig()
        rig.route(1)
        rig.handle.begin_close(lambda: None)
        rig.route(2)
        assert rig.answered == [1]
        assert [(first, code) for first, code, _ in rig.pump.errors] == [(2, StatusCode.UNAVAILABLE)]

    def test_a_draining_server_takes_nothing(self) -> None:
        rig = Rig()
        rig.route(1)
        rig.dispatcher.draining = True
        rig.route(2)
        assert rig.answered == [1]
        assert rig.pump.errors == [(2, StatusCode.UNAVAILABLE, "the server is shutting down")]


class TestAhead:
    def test_what_expires_in_a_workers_hand_is_answered_and_counted_as_such(self) -> None:
        rig = Rig(costs={1: 0.001, 8: 0.001}, max_batch_size=1)
        gate = threading.Event()
        compute = rig.compute

        def gated(inputs: dict[str, Array]) -> list[Array]:
            assert gate.wait(10)
            return compute(inputs)

        rig.compute = gated
        rig.publish(1)
        rig.route(1)
        rig.dispatcher.dispatch()
        (runtime,) = rig.dispatcher.runtimes()
        runtime.scheduler.ahead = True
        soon = time.monotonic() + 0.005
        for number in (2, 3, 4, 5):
            rig.route(number, deadline=soon if number == 2 else float("inf"))
        rig.dispatcher.dispatch()
        assert [len(batch.parts) for batch in runtime.running()] == [1, 1]
        while time.monotonic() < soon:
            pass
        gate.set()
        for _ in range(5):
            rig.dispatcher.complete(*rig.desk.finished.get(timeout=10))
            rig.dispatcher.dispatch()
        assert rig.answered == [1, 3, 4, 5]
        assert [(first, code) for first, code, _ in rig.pump.errors] == [(2, StatusCode.DEADLINE_EXCEEDED)]
        counters = runtime.counters
        assert (counters.expired, counters.rows, counters.batches, counters.failed) == (1, 4, 4, 0)
        assert (rig.dispatcher.in_flight, rig.handle.references) == (0, 0)
        rig.dispatcher.close()
        assert runtime.join(10)


def test_to_a_model_that_is_not_batched_a_request_is_one_row_however_long() -> None:
    rig = Rig(costs={}, enabled=False, max_batch_size=1, max_in_flight=10)
    rig.config = msgspec.structs.replace(rig.config, limits=LimitsConfig(max_queued_rows=3, max_in_flight=10))
    rig.publish(1)
    rig.handle.metadata = msgspec.structs.replace(rig.handle.metadata, batched=False)
    rows = np.ones((12, 2), np.float32)
    rig.dispatcher.take([bundle(1, 2, 3, rows=[5, 4, 3], inputs=[rows], of=X)], time.monotonic())
    (runtime,) = rig.dispatcher.runtimes()
    assert (runtime.load.queued_rows, runtime.load.in_flight) == (3, 3)
    assert rig.pump.errors == []
    rig.dispatcher.dispatch()
    for _ in range(3):
        rig.dispatcher.complete(*rig.desk.finished.get(timeout=10))
        rig.dispatcher.dispatch()
    assert [len(batch) for batch in rig.batches] == [5, 4, 3]
    assert (rig.dispatcher.in_flight, runtime.load.queued_rows, rig.counters.rows) == (0, 0, 3)
    rig.dispatcher.close()
    assert runtime.join(10)
