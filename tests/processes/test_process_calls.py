"""Calls of a real worker process: the same answers as in this process, and memory that comes back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import models
import numpy as np
import psutil
import pytest
from processes_helpers import Worker, starting, write_model
from tensorwire.manager.config import ModelConfig
from tensorwire.manager.loader import Loader
from tensorwire.rpc.errors import InvalidArgumentError, NotFoundError, StatusCode
from tensorwire.server.processes.arena import ARENA_NBYTES
from tensorwire.server.processes.spawner import Spawner

Array = np.ndarray[Any, Any]

ECHO = """
import os
import numpy as np
from tensorwire.rpc.errors import NotFoundError, RpcError


class Model:
    inputs = [
        ("x", "float32", (None, None)),
        ("s", "string", (None,)),
        ("b", "bytes", (None,)),
        ("h", "bfloat16", (None,)),
        ("z", "complex64", (None, 2)),
        ("t", "bool", (None,)),
    ]
    outputs = [*inputs, ("sum", "float64", ()), ("kept", "float32", (None, None))]
    kept = np.zeros((0, 0), np.float32)

    def predict(self, x, **others):
        if x.size and x[0, 0] == -1:
            raise NotFoundError("minus one")
        if x.size and x[0, 0] == -2:
            raise RpcError("minus two", 77)
        before, self.kept = self.kept, x
        return {"x": x, **others, "sum": x.sum(dtype=np.float64), "kept": before}
"""
NAMES = ("x", "s", "b", "h", "z", "t")


@pytest.fixture(scope="module")
def worker(spawner: Spawner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    directory = write_model(tmp_path_factory.mktemp("echo"), ECHO)
    starter = starting(spawner)
    yield next(starter)(directory)
    next(starter, None)


def block(rows: int, width: int) -> dict[str, Array]:
    random = np.random.default_rng(rows)
    return {
        "x": random.random((rows, width), np.float32),
        "s": np.array([f"row {at} ü" for at in range(rows)], object),
        "b": np.array([bytes([at % 256]) * at for at in range(rows)], object),
        "h": np.arange(rows).astype(ml_dtypes.bfloat16),
        "z": random.random((rows, 2)).astype(np.complex64) * 1j,
        "t": random.random(rows) > 0.5,
    }


def used(worker: Worker) -> int:
    return worker.process._outbound.allocator.used


class TestAnswers:
    @pytest.mark.parametrize(("rows", "width"), [(0, 3), (1, 1), (7, 16), (3, 40_000), (2, 150_528)])
    def test_everything_comes_back(self, worker: Worker, rows: int, width: int) -> None:
        sent = block(rows, width)
        found = worker.call(NAMES, **sent)
        for name, array in zip(NAMES, found, strict=True):
            assert array.dtype == sent[name].dtype
            assert array.tolist() == sent[name].tolist()
            assert array.dtype == object or not array.flags.writeable

    def test_only_the_outputs_asked_for_in_that_order(self, worker: Worker) -> None:
        total, x = worker.call(("sum", "x"), **block(2, 3))
        assert total.shape == ()
        assert total == x.sum(dtype=np.float64)

    def test_pieces_and_padding(self, worker: Worker) -> None:
        whole = block(4, 5)
        pieces = {name: [array[:1], array[1:3], array[3:]] for name, array in whole.items()}
        found = dict(zip(NAMES, worker.call(NAMES, padding=2, **pieces), strict=True))
        for name, array in whole.items():
            assert found[name].tolist() == array[[0, 1, 2, 3, 3, 3]].tolist()

    def test_larger_than_the_arena_in_both_directions(self, worker: Worker) -> None:
        small = block(1, 1)
        x = np.arange(ARENA_NBYTES // 4 + 1, dtype=np.float32)[None]
        (found,) = worker.call(("x",), **{**small, "x": x})
        assert np.array_equal(found, x)
        # The model keeps its last input.
        worker.call(("sum",), **small)

    def test_several_calls_on_the_way_are_answered_in_order(self, worker: Worker) -> None:
        sent = [worker.send({n: [a] for n, a in block(1, at + 1).items()}, ["x"]) for at in range(5)]
        assert worker.process.calls == 5
        found = [worker.answer() for _ in sent]
        assert [answer.call_id for answer in found] == sent
        assert [answer.outputs[0].shape for answer in found if answer.outputs] == [
            (1, at) for at in range(1, 6)
        ]
        assert worker.process.receive() is None

    def test_more_calls_than_the_socket_holds(self, worker: Worker) -> None:
        sent = [worker.send({n: [a] for n, a in block(1, 4000).items()}, ["x"]) for _ in range(100)]
        assert worker.process._unsent
        assert [worker.answer().call_id for _ in sent] == sent

    def test_compute_time_is_told(self, worker: Worker) -> None:
        worker.send({n: [a] for n, a in block(1, 1).items()}, ["x"])
        assert 0 < worker.answer().compute_seconds < 10


class TestErrors:
    @pytest.mark.parametrize(("value", "code", "text"), [(-1, 5, "minus one"), (-2, 77, "minus two")])
    def test_the_model_chooses_its_code(self, worker: Worker, value: int, code: int, text: str) -> None:
        sent = {**block(1, 20_000), "x": np.full((1, 20_000), value, np.float32)}
        worker.send({n: [a] for n, a in sent.items()}, ["x"])
        answer = worker.answer()
        assert answer.outputs is None
        assert answer.error is not None
        assert (answer.error.code, answer.error.message) == (code, text)
        assert answer.compute_seconds > 0

    def test_an_input_that_cannot_be_sent_leaves_the_worker_as_it_was(self, worker: Worker) -> None:
        with pytest.raises(InvalidArgumentError):
            worker.call(("x",), **{**block(1, 2), "s": np.array([1], object)})
        assert worker.process.calls == 0
        assert worker.call(("t",), **block(1, 2))

    def test_an_unknown_output_is_the_model_s_to_refuse(self, worker: Worker) -> None:
        with pytest.raises(InvalidArgumentError, match="unknown output 'nope'"):
            worker.call(("nope",), **block(1, 2))

    def test_blocking_calls_raise(self, worker: Worker) -> None:
        assert worker.process.run(block(1, 2), ["x"])[0].shape == (1, 2)
        with pytest.raises(NotFoundError, match="minus one"):
            worker.process.run({**block(1, 1), "x": np.full((1, 1), -1, np.float32)}, ["x"])


class TestMemory:
    def test_outputs_that_are_held_stay_as_they_are(self, worker: Worker) -> None:
        sent = [block(1, 9000 + at) for at in range(40)]
        held = [worker.call(("x", "h"), **one) for one in sent]
        for one, (x, h) in zip(sent, held, strict=True):
            assert np.array_equal(x, one["x"])
            assert np.array_equal(h, one["h"])

    def test_inputs_that_the_model_keeps_stay_as_they_are(self, worker: Worker) -> None:
        first, second = block(1, 300_000), block(1, 10)
        worker.call(("x",), **first)
        (kept,) = worker.call(("kept",), **second)
        assert np.array_equal(kept, first["x"])

    def test_a_thousand_calls_of_a_mebibyte_do_not_grow_anything(self, worker: Worker) -> None:
        sent = {**block(1, 1), "x": np.ones((1, 1 << 18), np.float32)}
        own = psutil.Process()

        def run(times: int) -> tuple[int, int]:
            for _ in range(times):
                worker.call(("x",), **sent)
            gc.collect()
            return own.memory_info().rss, worker.process.resident_bytes()

        before, after = run(50), run(1000)
        for earlier, later in zip(before, after, strict=True):
            assert later - earlier < 8 << 20
        worker.call(("sum",), **block(1, 1))
        # Of large inputs the model keeps none now; what is left are texts of the last call.
        assert used(worker) < 4096

    def test_failed_calls_give_their_inputs_back(self, worker: Worker) -> None:
        sent = {**block(1, 1), "x": np.full((1, 100_000), -1, np.float32)}
        for _ in range(100):
            with pytest.raises(NotFoundError):
                worker.call(("x",), **sent)
        worker.call(("sum",), **block(1, 1))
        assert used(worker) < 4096

    def test_many_outputs_that_are_let_go_at_once_are_told_of(self, worker: Worker) -> None:
        held = [worker.call(("x",), **block(1, 5000)) for _ in range(200)]
        held.clear()
        assert len(worker.process._inbound.returned) >= 200
        for _ in range(3):
            worker.call(("sum",), **block(1, 1))
        assert len(worker.process._inbound.returned) < 64


def test_an_onnx_model_gives_what_it_gives_here(start: Any, tmp_path: Path) -> None:
    models.several(tmp_path / "1")
    config = ModelConfig()
    local = Loader("m", 1, tmp_path / "1", config).load()
    worker = start(tmp_path / "1", config, batch_sizes=(1, 8))
    process = worker.process
    assert process.metadata == local.metadata
    assert (process.releases_gil, process.concurrent) == (True, True)
    sent = {"a": np.random.default_rng(0).random((5, 3), np.float32), "b": np.arange(5)}
    names = [spec.name for spec in local.metadata.outputs]
    for mine, theirs in zip(local.run(sent, names), worker.call(names, **sent), strict=True):
        assert np.array_equal(mine, theirs)
    local.close()


def test_an_onnx_model_that_fails_keeps_its_code(start: Any, tmp_path: Path) -> None:
    models.failing(tmp_path / "1")
    worker = start(tmp_path / "1")
    worker.send({"index": [np.array([9])]}, ["row"])
    error = worker.answer().error
    assert error is not None
    assert error.code in (StatusCode.INTERNAL, StatusCode.INVALID_ARGUMENT)
    assert "model 'm' version 1" in error.message
