"""Batching among the threads of a blocking server, without sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tensorwire.bench.peers import kserve
from tensorwire.bench.peers.batcher import Tensor
from tensorwire.bench.peers.threads import ThreadBatcher, ThreadService
from tensorwire.rpc.errors import InternalError, InvalidArgumentError, NotFoundError

WAIT = 10.0


def rows(*values: float) -> dict[str, Tensor]:
    return {"x": np.array([[value] for value in values], np.float32)}


class Engine:
    """Doubles its input; a batch that begins with 0 waits for ``go``."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        x = inputs["x"]
        self.batches.append(len(x))
        if np.isnan(x).any():
            raise InternalError("poison")
        if x[0, 0] == 0:
            self.begun.set()
            assert self.go.wait(WAIT)
        return [x * 2]


def waiting(batcher: ThreadBatcher) -> int:
    return len(batcher._pending)


def until(condition: Callable[[], bool]) -> None:
    """Spins; the threads that it waits for are about to come."""
    for _ in range(10_000_000):
        if condition():
            return
    raise TimeoutError


def test_requests_gather_while_a_batch_runs() -> None:
    engine = Engine()
    batcher = ThreadBatcher(engine, 3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.submit, rows(0.0), 1)
        assert engine.begun.wait(WAIT)
        others = [pool.submit(batcher.submit, rows(value), 1) for value in (1.0, 2.0, 3.0, 4.0)]
        until(lambda: waiting(batcher) == 4)
        engine.go.set()
        assert first.result(WAIT)[0].tolist() == [[0.0]]
        assert [other.result(WAIT)[0].tolist() for other in others] == [[[2.0]], [[4.0]], [[6.0]], [[8.0]]]
    assert engine.batches == [1, 3, 1]


def test_workers_run_batches_at_the_same_time() -> None:
    engine = Engine()
    batcher = ThreadBatcher(engine, 8, workers=2)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(batcher.submit, rows(0.0), 1)
        assert engine.begun.wait(WAIT)
        assert batcher.submit(rows(1.0), 1)[0].tolist() == [[2.0]]
        engine.go.set()
        slow.result(WAIT)


def test_a_failed_batch_fails_its_requests_and_not_the_next() -> None:
    batcher = ThreadBatcher(Engine(), 8)
    with pytest.raises(InternalError, match="poison"):
        batcher.submit(rows(float("nan")), 1)
    assert batcher.submit(rows(1.0, 2.0), 2)[0].tolist() == [[2.0], [4.0]]


def test_many_threads_get_their_own_answers() -> None:
    batcher = ThreadBatcher(Engine(), 16)

    def calls(number: int) -> bool:
        return all(
            batcher.submit(rows(number + each), 1)[0].tolist() == [[2.0 * (number + each)]]
            for each in range(1, 100)
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(calls, range(1, 1601, 100)))


class Backend:
    """One model, ``m``."""

    def max_batch_size(self, model: str) -> int:
        if model != "m":
            raise NotFoundError(f"no model {model!r}")
        return 8

    def output_names(self, model: str) -> tuple[str, ...]:
        return ("y",)

    def version(self, model: str) -> int:
        return 3

    def runner(self, model: str) -> Callable[[dict[str, Tensor]], list[Tensor]]:
        return Engine()


def request(model: str, datatype: str, raw: bytes) -> kserve.ModelInferRequest:
    built = kserve.new_request(model, "x", datatype, (1, 1))
    built.raw_input_contents.append(raw)
    return built


def test_the_service_answers() -> None:
    response = ThreadService(Backend(), 1 << 20).infer(request("m", "FP32", np.float32(3).tobytes()))
    assert (response.model_name, response.model_version) == ("m", "3")
    assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == [6.0]


@pytest.mark.parametrize(
    ("model", "datatype", "raw", "error"),
    [
        ("other", "FP32", b"1234", NotFoundError),
        ("m", "FP8", b"1234", InvalidArgumentError),
        ("m", "FP32", b"12345678", InvalidArgumentError),
    ],
)
def test_the_service_refuses(model: str, datatype: str, raw: bytes, error: type[Any]) -> None:
    with pytest.raises(error):
        ThreadService(Backend(), 1 << 20).infer(request(model, datatype, raw))
