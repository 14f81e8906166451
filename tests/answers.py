"""What a server answers is what ONNX Runtime computes here, alone and with others, whoever runs the batches.

The test modules import these tests, and say with a fixture ``repository`` what runs the models.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnxruntime as ort
import pytest
from tensorwire.client import AsyncClient, Client
from tensorwire.rpc.ends import PlainSender, make_sender
from tensorwire.rpc.errors import InternalError, InvalidArgumentError, NotFoundError
from tensorwire.rpc.types import dtype_of
from tensorwire.server import Server

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]

LONG = 20.0


class Local:
    """The repository's models, run in this process."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._sessions: dict[str, ort.InferenceSession] = {}

    def __call__(self, model: str, inputs: dict[str, Array]) -> Outputs:
        session = self._sessions.get(model)
        if session is None:
            path = str(self._repository / model / "1" / "model.onnx")
            session = self._sessions[model] = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))


def configure(repository: Path, model: str, text: str) -> None:
    (repository / model / "model.toml").write_text(text)


def build(root: Path) -> None:
    """The models of which every kind of worker has to give the right answers."""
    models.identity(root / "text" / "1", "string", ("n", 2))
    models.identity(root / "text_scalar" / "1", "string", ())
    models.identity(root / "anything" / "1", "float32", (None, None, None))
    models.matmul(root / "matmul" / "1")
    models.matmul(root / "padded" / "1")
    configure(root, "padded", "[batching]\nallowed_batch_sizes = [4, 16]\n")
    models.matmul(root / "split" / "1")
    configure(root, "split", "[batching]\nmax_batch_size = 4\n")
    models.matmul(root / "alone" / "1")
    configure(root, "alone", "[batching]\nenabled = false\n")
    models.matmul(root / "delayed" / "1")
    configure(root, "delayed", "[batching]\nmax_queue_delay = 0.01\nmax_batch_size = 32\n")
    models.several(root / "several" / "1")
    models.dynamic(root / "dynamic" / "1")
    models.unbatched(root / "unbatched" / "1")
    models.optional_input(root / "optional" / "1")
    models.image(root / "image" / "1")
    models.failing(root / "table" / "1")


def same(found: Outputs, expected: Outputs) -> None:
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        got = found[name]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind in "fc":
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        else:
            assert got.tolist() == wanted.tolist()


def rows(*values: float, width: int = 16) -> Array:
    return np.array(values, np.float32)[:, None] * np.linspace(-1, 1, width, dtype=np.float32)


def of(dtype: str, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(7).integers(0, 2 if dtype == "bool" else 8, shape).astype(dtype_of(dtype))


class TestTensors:
    @pytest.mark.parametrize(
        "x",
        [
            np.array([["a", "bc"], ["ö🙂", ""]], object),
            np.array([["a", "bc"]]),
            np.empty((0, 2), object),
            np.array([["x" * 100_000, "y"]], object),
        ],
        ids=["objects", "fixed width", "empty", "long"],
    )
    def test_text(self, client: Client, x: Array) -> None:
        y = client.predict("text", {"x": x})["y"]
        assert (y.dtype, y.shape, y.tolist()) == (np.dtype(object), x.shape, x.tolist())

    def test_text_scalar(self, client: Client) -> None:
        y = client.predict("text_scalar", {"x": "hello"})["y"]
        assert (y.shape, y.tolist()) == ((), "hello")

    def test_several_inputs_and_outputs(self, client: Client, local: Local) -> None:
        inputs = {"a": of("float32", (6, 3)), "b": of("int64", (6,))}
        expected = local("several", inputs)
        same(client.predict("several", inputs), expected)
        same(client.predict("several", dict(reversed(inputs.items()))), expected)

    @pytest.mark.parametrize("wanted", [["product"], ["b_out", "sum"]])
    def test_selected_outputs(self, client: Client, local: Local, wanted: list[str]) -> None:
        inputs = {"a": of("float32", (2, 3)), "b": of("int64", (2,))}
        expected = local("several", inputs)
        found = client.predict("several", inputs, outputs=wanted)
        same(found, {name: expected[name] for name in wanted})

    @pytest.mark.parametrize("length", [0, 1, 5, 1000, 20_000])
    def test_dynamic_axes(self, client: Client, local: Local, length: int) -> None:
        inputs = {"x": of("float32", (3, length))}
        same(client.predict("dynamic", inputs), local("dynamic", inputs))

    @pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (0, 5, 5), (4, 0, 2)])
    def test_every_axis_dynamic(self, client: Client, local: Local, shape: tuple[int, ...]) -> None:
        inputs = {"x": of("float32", shape)}
        same(client.predict("anything", inputs), local("anything", inputs))

    def test_without_a_batch_axis(self, client: Client, local: Local) -> None:
        inputs = {"x": of("float32", (2, 3))}
        same(client.predict("unbatched", inputs), local("unbatched", inputs))

    def test_an_input_with_a_default(self, client: Client, local: Local) -> None:
        x = of("float32", (2, 4))
        for inputs in ({"x": x}, {"x": x, "gain": np.array([5], np.float32)}):
            same(client.predict("optional", inputs), local("optional", inputs))

    @pytest.mark.parametrize("count", [1, 3])
    def test_large(self, client: Client, local: Local, count: int) -> None:
        """602,112 bytes a row: a frame of its own."""
        inputs = {"data": np.random.default_rng(3).standard_normal((count, 3, 224, 224), np.float32)}
        same(client.predict("image", inputs), local("image", inputs))

    @pytest.mark.parametrize("width", [4, 3_000, 200_000])
    def test_results_cannot_be_written_to(self, client: Client, width: int) -> None:
        for _ in range(2):
            y = client.predict("anything", {"x": np.zeros((1, 1, width), np.float32)})["y"]
            assert not y.flags.writeable


class TestTogether:
    @pytest.mark.parametrize("model", ["matmul", "padded", "split", "alone", "delayed"])
    @pytest.mark.parametrize("fuse", [True, False])
    def test_each_gets_its_own(self, server: Server, local: Local, model: str, fuse: bool) -> None:
        sizes = [1, 1, 1, 2, 5, 11]  # of requests, in rows

        async def main() -> None:
            async with AsyncClient(server.endpoint, timeout=LONG, fuse=fuse) as client:
                inputs = [
                    {"x": rows(*(number + step for step in range(sizes[number % len(sizes)])))}
                    for number in range(60)
                ]
                results = await asyncio.gather(*[client.predict(model, each) for each in inputs])
                for each, found in zip(inputs, results, strict=True):
                    same(found, local(model, each))

        asyncio.run(main())

    def test_they_share_batches(self, server: Server, client: Client) -> None:
        def batches() -> int:
            (found,) = [v for v in client.control("stats")["versions"] if v["model"] == "delayed"]
            return found["batches"]

        async def main() -> None:
            async with AsyncClient(server.endpoint, timeout=LONG, fuse=False) as many:
                await asyncio.gather(*[many.predict("delayed", {"x": rows(n)}) for n in range(64)])

        client.predict("delayed", {"x": rows(1)})
        before = batches()
        asyncio.run(main())
        assert 2 <= batches() - before < 32

    def test_different_signatures_of_one_model(self, server: Server, local: Local) -> None:
        async def main() -> None:
            async with AsyncClient(server.endpoint, timeout=LONG) as client:
                inputs = [{"x": of("float32", (1 + n % 3, 1 + n % 7))} for n in range(40)]
                results = await asyncio.gather(*[client.predict("dynamic", each) for each in inputs])
                for each, found in zip(inputs, results, strict=True):
                    same(found, local("dynamic", each))

        asyncio.run(main())

    def test_large_ones(self, server: Server, local: Local) -> None:
        random = np.random.default_rng(5)
        inputs = [{"data": random.standard_normal((1, 3, 224, 224), np.float32)} for _ in range(6)]

        async def main() -> None:
            async with AsyncClient(server.endpoint, timeout=LONG) as client:
                results = await asyncio.gather(*[client.predict("image", each) for each in inputs])
                for each, found in zip(inputs, results, strict=True):
                    same(found, local("image", each))

        asyncio.run(main())

    @pytest.mark.parametrize(("fuse", "spin"), [(True, 0.0), (False, 0.0), (True, 0.001)])
    def test_many_threads_and_one_client(self, server: Server, local: Local, fuse: bool, spin: float) -> None:
        expected = [local("matmul", {"x": rows(value)})["y"] for value in range(50)]
        wrong: list[Any] = []
        with Client(server.endpoint, timeout=LONG, fuse=fuse, spin=spin) as client:

            def call(seed: int) -> None:
                try:
                    for step in range(100):
                        value = (seed * 7 + step) % 50
                        if step % 4:
                            y = client.predict("matmul", {"x": rows(value)})["y"]
                        else:
                            y = client.submit("matmul", {"x": rows(value)}).result(LONG)["y"]
                        if not np.allclose(y, expected[value], rtol=1e-5, atol=1e-6):
                            wrong.append((value, y))
                except BaseException as error:  # noqa: BLE001 - for the test to see
                    wrong.append(error)

            threads = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert wrong == []

    @pytest.mark.parametrize("kind", [make_sender, PlainSender], ids=["as built", "plain"])
    def test_large_inputs_are_let_go_of_when_they_are_answered(
        self, server: Server, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tensorwire.client.link.make_sender", kind)
        with Client(server.endpoint, timeout=LONG) as client:
            kept: list[weakref.ref[Any]] = []
            for value in range(8):
                large = np.full((2, 300, 500), value, np.float32)
                kept.append(weakref.ref(large))
                same(client.predict("anything", {"x": large}), {"y": large})
                del large
            end = time.monotonic() + LONG
            while any(reference() is not None for reference in kept):
                assert time.monotonic() < end, "a large input is still held"
                client.predict("matmul", {"x": rows(1)})

    def test_many_clients(self, server: Server, local: Local) -> None:
        async def one(number: int) -> None:
            async with AsyncClient(server.endpoint, timeout=LONG) as client:
                found = await client.predict("matmul", {"x": rows(number, number + 1)})
                same(found, local("matmul", {"x": rows(number, number + 1)}))

        async def main() -> None:
            await asyncio.gather(*[one(number) for number in range(20)])

        asyncio.run(main())


class TestRefusals:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"x": np.zeros((1, 16))}, "input 'x' has dtype float64, expected float32"),
            ({"x": np.zeros((1, 5), np.float32)}, "has shape .rows, 5., expected x: float32"),
            ({"q": np.zeros((1, 16), np.float32)}, "has no input 'q'; its inputs: x: float32"),
            ({}, "input x: .* is missing"),
            ({"x": np.zeros((), np.float32)}, "has shape .., expected"),
        ],
    )
    def test_inputs(self, client: Client, inputs: dict[str, Array], message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            client.predict("matmul", inputs)

    def test_a_fixed_dimension(self, client: Client) -> None:
        for shape in ((3, 3), (1, 3), (2, 3, 1)):
            with pytest.raises(InvalidArgumentError):
                client.predict("unbatched", {"x": np.zeros(shape, np.float32)})

    def test_names(self, client: Client) -> None:
        x = {"x": rows(1)}
        with pytest.raises(NotFoundError, match="no model 'nope'"):
            client.predict("nope", x)
        with pytest.raises(NotFoundError, match="version 9 is not there"):
            client.predict("matmul", x, version=9)
        with pytest.raises(NotFoundError, match="no label 'nope'"):
            client.predict("matmul", x, label="nope")
        with pytest.raises(InvalidArgumentError, match="no output 'nope'; its outputs: y"):
            client.predict("matmul", x, outputs=["nope"])

    def test_a_poisonous_request_fails_alone(self, server: Server, local: Local) -> None:
        """An index outside of the table fails the whole call of ONNX Runtime."""

        async def main() -> None:
            async with AsyncClient(server.endpoint, timeout=LONG) as client:
                indices = [1, 2, 99, 3, 0]
                results = await asyncio.gather(
                    *[client.predict("table", {"index": np.array([index])}) for index in indices],
                    return_exceptions=True,
                )
                for index, found in zip(indices, results, strict=True):
                    if index == 99:
                        assert isinstance(found, InvalidArgumentError | InternalError), found
                    else:
                        assert isinstance(found, dict), found
                        same(found, local("table", {"index": np.array([index])}))

        asyncio.run(main())
