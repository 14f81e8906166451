"""The gRPC peer without sockets: messages, micro-batcher, service, and the models that all systems serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorwire.bench.models import CASES, INPUT, OUTPUT, Case, build_repository
from tensorwire.bench.peers import kserve
from tensorwire.bench.peers.batcher import MicroBatcher, Tensor
from tensorwire.bench.peers.grpc_server import InferenceService
from tensorwire.rpc.errors import InternalError, NotFoundError

# model_name: "m", inputs: [{name: "x", datatype: "FP32", shape: [1, 2]}], raw_input_contents: ["ab"]
REQUEST_BYTES = b"\x0a\x01m" + b"\x2a\x0d\x0a\x01x\x12\x04FP32\x1a\x02\x01\x02" + b"\x3a\x02ab"
# model_name: "m", model_version: "3", outputs: [{name: "y", ...}], raw_output_contents: ["ab"]
RESPONSE_BYTES = b"\x0a\x01m\x12\x013" + b"\x2a\x0d\x0a\x01y\x12\x04FP32\x1a\x02\x01\x02" + b"\x32\x02ab"


def test_messages_have_the_field_numbers_of_the_specification() -> None:
    request = kserve.new_request("m", "x", "FP32", (1, 2))
    request.raw_input_contents.append(b"ab")
    assert kserve.serialize_request(request) == REQUEST_BYTES
    assert kserve.parse_request(REQUEST_BYTES) == request
    response = kserve.new_response("m", "3")
    response.outputs.add(name="y", datatype="FP32", shape=(1, 2))
    response.raw_output_contents.append(b"ab")
    assert kserve.serialize_response(response) == RESPONSE_BYTES
    assert kserve.parse_response(RESPONSE_BYTES) == response


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_models_compute_their_reference(case: Case, tmp_path: Path) -> None:
    import onnxruntime

    path = build_repository(tmp_path) / case.model / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch = case.inputs(3)
    (outputs,) = session.run([OUTPUT], {INPUT: np.concatenate(batch)})
    for row, inputs in enumerate(batch):
        case.verify(inputs, outputs[row : row + 1])
    assert case.input_bytes == batch[0].nbytes
    assert case.output_bytes == outputs[:1].nbytes
    with pytest.raises(ValueError, match=case.model):
        case.verify(batch[0], outputs[1:2])
    with pytest.raises(ValueError, match=case.model):
        case.verify(batch[0], outputs)


class Engine:
    """Doubles its input and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        self.batches.append(len(inputs["x"]))
        if np.isnan(inputs["x"]).any():
            raise InternalError("poison")
        return [inputs["x"] * 2]


def rows(*values: float) -> dict[str, Tensor]:
    return {"x": np.array([[value] for value in values], np.float32)}


def test_calls_of_one_tick_share_a_batch() -> None:
    engine = Engine()

    async def calls() -> list[list[Tensor]]:
        batcher = MicroBatcher(engine, 16)
        return await asyncio.gather(*(batcher.submit(rows(value, -value), 2) for value in (1.0, 2.0, 3.0)))

    answers = asyncio.run(calls())
    assert engine.batches == [6]
    assert [answer[0].ravel().tolist() for answer in answers] == [[2, -2], [4, -4], [6, -6]]


def test_batches_keep_to_their_limit_and_a_large_request_runs_alone() -> None:
    engine = Engine()

    async def calls() -> None:
        batcher = MicroBatcher(engine, 2)
        await asyncio.gather(
            *(batcher.submit(rows(1.0), 1) for _ in range(3)), batcher.submit(rows(1.0, 2.0, 3.0), 3)
        )

    asyncio.run(calls())
    assert engine.batches == [2, 1, 3]


def test_calls_gather_while_the_executor_is_busy() -> None:
    engine = Engine()

    async def calls(executor: ThreadPoolExecutor) -> None:
        batcher = MicroBatcher(engine, 16, executor)
        first = batcher.submit(rows(1.0), 1)
        await asyncio.sleep(0)
        await asyncio.gather(first, *(batcher.submit(rows(2.0), 1) for _ in range(4)))

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(calls(executor))
    assert engine.batches == [1, 4]


def test_a_failed_batch_fails_its_calls_and_not_the_next() -> None:
    engine = Engine()

    async def calls() -> list[Any]:
        batcher = MicroBatcher(engine, 1)
        bad = batcher.submit(rows(float("nan")), 1)
        return await asyncio.gather(bad, batcher.submit(rows(1.0), 1), return_exceptions=True)

    failed, answered = asyncio.run(calls())
    assert isinstance(failed, InternalError)
    assert answered[0].tolist() == [[2.0]]


def test_a_caller_that_is_gone_does_not_shift_the_others() -> None:
    async def calls() -> list[Tensor]:
        batcher = MicroBatcher(Engine(), 16)
        gone, stays = batcher.submit(rows(1.0), 1), batcher.submit(rows(5.0), 1)
        gone.cancel()
        return await stays

    assert asyncio.run(calls())[0].tolist() == [[10.0]]


def test_a_caller_that_is_gone_is_not_computed_for() -> None:
    engine = Engine()

    async def calls(executor: ThreadPoolExecutor) -> None:
        batcher = MicroBatcher(engine, 2, executor)
        stays, *gone = (batcher.submit(rows(value), 1) for value in (1.0, 2.0, 3.0))
        for future in gone:
            future.cancel()
        await stays
        # Nobody waits any more; who comes then is served all the same.
        batcher.submit(rows(4.0), 1).cancel()
        await asyncio.sleep(0)
        await asyncio.gather(*(batcher.submit(rows(value), 1) for value in (5.0, 6.0, 7.0)))

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(calls(executor))
    assert engine.batches == [1, 2, 1]


class Aborted(Exception):
    """What the fake context raises."""


class Context:
    """Takes the status of an aborted call."""

    status = ""

    async def abort(self, code: Any, details: str) -> None:
        self.status = code.name
        raise Aborted(details)


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


def infer(request: kserve.ModelInferRequest, context: Context) -> kserve.ModelInferResponse:
    async def call() -> kserve.ModelInferResponse:
        return await InferenceService(Backend(), None, 1 << 20).model_infer(request, context)

    return asyncio.run(call())


def test_service_answers() -> None:
    request = kserve.new_request("m", "x", "FP32", (2, 1))
    request.raw_input_contents.append(rows(1.0, 4.0)["x"].tobytes())
    response = infer(request, Context())
    assert (response.model_name, response.model_version) == ("m", "3")
    assert list(response.outputs[0].shape) == [2, 1]
    assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == [2.0, 8.0]


@pytest.mark.parametrize(
    ("model", "datatype", "raw", "status"),
    [
        ("other", "FP32", [b"1234"], "NOT_FOUND"),
        ("m", "FP8", [b"1234"], "INVALID_ARGUMENT"),
        ("m", "FP32", [b"12345678"], "INVALID_ARGUMENT"),
        ("m", "FP32", [], "INVALID_ARGUMENT"),
        ("m", "FP32", [np.float32("nan").tobytes()], "INTERNAL"),
    ],
)
def test_service_refuses(model: str, datatype: str, raw: list[bytes], status: str) -> None:
    request = kserve.new_request(model, "x", datatype, (1, 1))
    request.raw_input_contents.extend(raw)
    context = Context()
    with pytest.raises(Aborted):
        infer(request, context)
    assert context.status == status
