"""The ONNX Runtime engine against ONNX Runtime itself, on real models."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import ml_dtypes
import models
import numpy as np
import onnxruntime
import pytest
from onnx import helper
from tensorwire.manager.config import BatchingConfig, EngineConfig, ModelConfig
from tensorwire.manager.engines import Servable, engine_for, engine_named
from tensorwire.manager.engines.onnx import OnnxRuntimeEngine, OnnxServable
from tensorwire.rpc.errors import (
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    RpcError,
)
from tensorwire.rpc.types import FIXED_DTYPES, TensorSpec

Array = np.ndarray[Any, Any]
NUMPY_KNOWS = [name for name in models.ONNX_TYPES if not name.startswith(("bfloat", "float8"))]
ONLY_ONNX_KNOWS = [name for name in models.ONNX_TYPES if name.startswith(("bfloat", "float8"))]


def load(path: Path, config: ModelConfig | None = None) -> OnnxServable:
    return OnnxRuntimeEngine().load(path, config or ModelConfig(), name="m", version=1)


def options(**values: object) -> ModelConfig:
    return ModelConfig(engine=EngineConfig(options=values))


def reference(path: Path, outputs: list[str], inputs: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(outputs, inputs)


def values(dtype: str, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(7)
    if dtype == "string":
        words = np.array(["", "a", "naïve", "日本", "nul\0inside"], object)
        return words[rng.integers(0, 5, shape)]
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0, 7, shape).astype(FIXED_DTYPES[dtype])


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)], ids=["rows", "empty"])
@pytest.mark.parametrize("dtype", NUMPY_KNOWS)
def test_outputs_equal_onnxruntime_s_own(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    path = models.identity(tmp_path, dtype)
    x = values(dtype, shape)
    (y,) = load(path).run({"x": x}, ["y"])
    (expected,) = reference(path, ["y"], {"x": x})
    assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
    assert y.tolist() == expected.tolist() == x.tolist()


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)], ids=["rows", "empty"])
@pytest.mark.parametrize("dtype", ONLY_ONNX_KNOWS)
def test_dtypes_that_numpy_lacks_come_back_as_they_went(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    servable = load(models.identity(tmp_path, dtype))
    assert servable.metadata.inputs == (TensorSpec("x", dtype, (None, 4)),)
    x = values(dtype, shape)
    (y,) = servable.run({"x": x}, ["y"])
    assert y.dtype == FIXED_DTYPES[dtype]
    assert same(y, x)


def test_bfloat16_is_computed_and_not_only_passed_on(tmp_path: Path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=models.ONNX_TYPES["bfloat16"])
    path = models.save(tmp_path, [node], [("x", "float32", ("n",))], [("y", "bfloat16", ("n",))])
    x = np.array([1.00390625, -3.3, 65536.0], np.float32)
    (y,) = load(path).run({"x": x}, ["y"])
    assert same(y, x.astype(ml_dtypes.bfloat16))


def test_results_outlive_the_session_and_the_inputs(tmp_path: Path) -> None:
    servable = load(models.identity(tmp_path, "bfloat16"))
    x = values("bfloat16", (100, 4))
    kept = x.copy()
    (y,) = servable.run({"x": np.asfortranarray(x)}, ["y"])
    x[:] = 0
    servable.close()
    assert same(y, kept)


@pytest.mark.parametrize("dtype", ["float32", "string", "bfloat16", "bool"])
def test_scalars_stay_scalars(tmp_path: Path, dtype: str) -> None:
    servable = load(models.identity(tmp_path, dtype, shape=()))
    assert not servable.metadata.batched
    x = values(dtype, ())
    x = np.array(x, dtype=None if dtype != "string" else object)
    (y,) = servable.run({"x": x}, ["y"])
    assert y.shape == ()
    assert y.tolist() == x.tolist()


def test_several_inputs_and_outputs_in_the_order_asked_for(tmp_path: Path) -> None:
    path = models.several(tmp_path)
    servable = load(path)
    inputs: dict[str, Array] = {
        "b": np.arange(4, dtype=np.int64),
        "a": np.arange(12, dtype=np.float32).reshape(4, 3),
    }
    for wanted in (["b_out", "sum"], ["product"], ["sum", "product", "b_out"]):
        got = servable.run(inputs, wanted)
        assert all(map(same, got, reference(path, wanted, inputs)))


@pytest.mark.parametrize("external", [False, True], ids=["inline", "external-data"])
def test_the_matmul_model(tmp_path: Path, external: bool) -> None:
    path = models.matmul(tmp_path, external_data=external)
    assert (tmp_path / "model.onnx.data").exists() == external
    x = np.random.default_rng(1).standard_normal((32, 16), np.float32)
    servable = load(path)
    assert servable.metadata.batched
    assert servable.metadata.max_batch_size == 256
    assert same(servable.run({"x": x}, ["y"])[0], reference(path, ["y"], {"x": x})[0])
    transposed = np.ascontiguousarray(x.T).T
    assert same(servable.run({"x": transposed}, ["y"])[0], reference(path, ["y"], {"x": x})[0])


def test_metadata_of_dynamic_shapes(tmp_path: Path) -> None:
    metadata = load(models.dynamic(tmp_path), ModelConfig(description="sums")).metadata
    assert metadata.inputs == (TensorSpec("x", "float32", (None, None)),)
    assert metadata.outputs == (TensorSpec("y", "float32", (None,)),)
    assert (metadata.name, metadata.version, metadata.platform) == ("m", 1, "onnxruntime")
    assert (metadata.batched, metadata.description) == (True, "sums")


def test_an_image_model(tmp_path: Path) -> None:
    path = models.image(tmp_path)
    servable = load(path)
    assert servable.metadata.max_batch_size == 1
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32)
    assert same(servable.run({"data": x}, ["logits"])[0], reference(path, ["logits"], {"data": x})[0])


def relu(directory: Path, first_in: object, first_out: object) -> Path:
    node = helper.make_node("Relu", ["x"], ["y"])
    shapes: list[Any] = [(first_in, 2), (first_out, 2)]
    return models.save(directory, [node], [("x", "float32", shapes[0])], [("y", "float32", shapes[1])])


@pytest.mark.parametrize(
    ("first_in", "first_out", "batched"),
    [
        ("n", "n", True),
        (None, None, True),
        ("unk__1", "unk__2", True),
        ("n", "Reluy_dim_0", True),
        ("n", "found", False),
        (4, 4, False),
    ],
)
def test_when_a_model_counts_as_batched(
    tmp_path: Path, first_in: object, first_out: object, batched: bool
) -> None:
    assert load(relu(tmp_path, first_in, first_out)).metadata.batched == batched


def test_a_model_without_a_batch_dimension(tmp_path: Path) -> None:
    path = models.unbatched(tmp_path)
    servable = load(path)
    assert (servable.metadata.batched, servable.metadata.max_batch_size) == (False, None)
    with pytest.raises(InvalidArgumentError, match=r"batching\.enabled: found True; expected false"):
        load(path, ModelConfig(batching=BatchingConfig(enabled=True)))


def test_batching_can_be_switched_off(tmp_path: Path) -> None:
    config = ModelConfig(batching=BatchingConfig(enabled=False))
    metadata = load(models.matmul(tmp_path), config).metadata
    assert (metadata.batched, metadata.max_batch_size) == (False, None)


def test_an_input_with_a_default_is_optional(tmp_path: Path) -> None:
    path = models.optional_input(tmp_path)
    servable = load(path)
    assert servable.metadata.inputs[1] == TensorSpec("gain", "float32", (1,), optional=True)
    assert not servable.metadata.batched
    x = np.ones((2, 4), np.float32)
    assert servable.run({"x": x}, ["y"])[0][0, 0] == 3
    assert servable.run({"x": x, "gain": np.array([5], np.float32)}, ["y"])[0][0, 0] == 5
    hidden = load(path, options(overridable_initializers=False)).metadata
    assert ([spec.name for spec in hidden.inputs], hidden.batched) == (["x"], True)


def test_shapes_from_model_toml_replace_those_of_the_model(tmp_path: Path) -> None:
    config = ModelConfig(inputs=(TensorSpec("x", "float32", (4, None)),))
    metadata = load(models.dynamic(tmp_path), config).metadata
    assert metadata.inputs[0].shape == (4, None)
    assert not metadata.batched
    with pytest.raises(InvalidArgumentError, match=r"inputs: found 'z'; expected one of \['x'\]"):
        load(tmp_path / "model.onnx", ModelConfig(inputs=(TensorSpec("z", "float32", ()),)))
    with pytest.raises(InvalidArgumentError, match=r"inputs\.x\.dtype: found 'bool'; expected float32"):
        load(tmp_path / "model.onnx", ModelConfig(inputs=(TensorSpec("x", "bool", ()),)))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, "missing input 'x'; expected x: float32[?, 16]"),
        ({"x": np.ones((1, 16), np.float32), "z": np.ones(1)}, "unknown input 'z'; expected x: float32"),
        ({"x": np.ones((1, 16))}, "input 'x' is float64; expected x: float32[?, 16]"),
        ({"x": np.ones((1, 16), ">f4")}, "input 'x' is >f4; expected x: float32[?, 16]"),
        ({"x": np.ones(16, np.float32)}, "Invalid rank for input: x Got: 1 Expected: 2"),
        ({"x": np.ones((1, 15), np.float32)}, "index: 1 Got: 15 Expected: 16"),
    ],
)
def test_wrong_inputs_are_the_caller_s_fault(tmp_path: Path, inputs: dict[str, Array], expected: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load(models.matmul(tmp_path)).run(inputs, ["y"])
    assert caught.value.message.startswith("model 'm' version 1: ")
    assert expected in caught.value.message
    assert "\n" not in caught.value.message


def test_wrong_inputs_of_a_model_that_numpy_has_no_dtype_for(tmp_path: Path) -> None:
    servable = load(models.identity(tmp_path, "bfloat16"))
    for bad in (np.ones((1, 4), np.float32), np.ones((1, 5), ml_dtypes.bfloat16)):
        with pytest.raises(InvalidArgumentError):
            servable.run({"x": bad}, ["y"])


def test_an_unknown_output(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="Invalid output name:z"):
        load(models.matmul(tmp_path)).run({"x": np.ones((1, 16), np.float32)}, ["z"])


@pytest.mark.parametrize("bad", [b"bytes", None, 3, "\ud800"], ids=["bytes", "none", "int", "surrogate"])
def test_strings_that_are_none_are_refused_and_not_spelled_out(tmp_path: Path, bad: object) -> None:
    servable = load(models.identity(tmp_path, "string"))
    x = np.array([["a", bad, "c", "d"]], object)
    with pytest.raises(InvalidArgumentError, match="m"):
        servable.run({"x": x}, ["y"])


def test_failures_of_an_operator(tmp_path: Path) -> None:
    servable = load(models.failing(tmp_path / "gather"))
    assert servable.run({"index": np.array([3])}, ["row"])[0].tolist() == [[6, 7]]
    with pytest.raises(
        InvalidArgumentError, match=r"model 'm' version 1: .*indices element out of data bounds"
    ):
        servable.run({"index": np.array([1, 9])}, ["row"])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    tensors = [("x", "float32", ("n",)), ("shape", "int64", ("k",))]
    path = models.save(tmp_path / "reshape", [node], tensors, [("y", "float32", ("a", "b"))])
    with pytest.raises(InternalError, match="Reshape") as caught:
        load(path).run({"x": np.ones(3, np.float32), "shape": np.array([2, 2])}, ["y"])
    assert "\n" not in caught.value.message


def test_a_closed_servable_says_so_and_lets_go_of_the_session(tmp_path: Path) -> None:
    servable = load(models.matmul(tmp_path))
    session = weakref.ref(servable._run.__self__)  # type: ignore[attr-defined]
    gc.disable()
    try:
        servable.close()
        assert session() is None
    finally:
        gc.enable()
    with pytest.raises(FailedPreconditionError, match="closed"):
        servable.run({"x": np.ones((1, 16), np.float32)}, ["y"])


def test_without_the_private_session_the_public_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorwire.manager.engines.onnx._takes_three", lambda inner: False)
    servable = load(models.matmul(tmp_path))
    assert isinstance(servable._run.__self__, onnxruntime.InferenceSession)  # type: ignore[attr-defined]
    assert servable.run({"x": np.ones((2, 16), np.float32)}, ["y"])[0].shape == (2, 16)


def test_threads_may_run_at_once(tmp_path: Path) -> None:
    servable = load(models.matmul(tmp_path))
    assert (servable.releases_gil, servable.concurrent) == (True, True)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((8, 16), np.float32)
        expected = servable.run({"x": x}, ["y"])[0]
        wrong.extend(seed for _ in range(100) if not same(servable.run({"x": x}, ["y"])[0], expected))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no model")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [corrupt, cut, empty])
def test_a_damaged_file(tmp_path: Path, damage: Any) -> None:
    path = models.matmul(tmp_path)
    damage(path)
    with pytest.raises(InvalidArgumentError) as caught:
        load(path)
    assert caught.value.message == f"{path}: not an ONNX model, or only a part of one; copy it again"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ir_version": 99}, r"ONNX IR version 99, but onnxruntime \S+ reads up to \d+; upgrade onnxruntime"),
        ({"opset": 99}, r"opset 99, but onnxruntime \S+ supports up to \d+; upgrade onnxruntime, or export"),
    ],
)
def test_a_model_from_the_future(tmp_path: Path, change: dict[str, int], expected: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    path = models.save(tmp_path, [node], [("x", "float32", ("n",))], [("y", "float32", ("n",))], **change)
    with pytest.raises(InvalidArgumentError, match=expected) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message


def test_other_models_that_cannot_be_loaded(tmp_path: Path) -> None:
    node = helper.make_node("Foo", ["x"], ["y"])
    path = models.save(tmp_path / "op", [node], [("x", "float32", ("n",))], [("y", "float32", ("n",))])
    with pytest.raises(InvalidArgumentError, match=r"No Op registered for Foo.*custom operators are not"):
        load(path)
    with pytest.raises(
        InvalidArgumentError, match=r"'x' is a seq\(tensor\(float\)\), which has no wire form"
    ):
        load(models.sequence_input(tmp_path / "sequence"))
    with pytest.raises(FailedPreconditionError, match="does not exist"):
        load(tmp_path / "model.onnx")
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("x", "y"), ("s", "t"))]
    pairs = (
        [("x", "bfloat16", ("n",)), ("s", "string", ("n",))],
        [("y", "bfloat16", ("n",)), ("t", "string", ("n",))],
    )
    with pytest.raises(InvalidArgumentError, match=r"string tensors \(s, t\) together with"):
        load(models.save(tmp_path / "mixed", nodes, *pairs))


def test_external_data_that_is_missing_or_cut(tmp_path: Path) -> None:
    path = models.matmul(tmp_path, external_data=True)
    data = tmp_path / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InvalidArgumentError, match="copy the external data files"):
        load(path)
    data.unlink()
    with pytest.raises(InvalidArgumentError, match="copy the external data files"):
        load(path)


@pytest.mark.parametrize(
    ("values", "error", "expected"),
    [
        (
            {"arena": True},
            InvalidArgumentError,
            "engine.options.arena: unknown key; known keys are allow_spinning",
        ),
        (
            {"providers": []},
            InvalidArgumentError,
            "engine.options.providers: found []; expected at least one",
        ),
        (
            {"graph_optimization": "max"},
            InvalidArgumentError,
            "engine.options.graph_optimization: found 'max'; exp",
        ),
        (
            {"providers": ["NoExecutionProvider"]},
            FailedPreconditionError,
            "'NoExecutionProvider' is not in the inst",
        ),
        (
            {"provider_options": {"X": {}}},
            InvalidArgumentError,
            "engine.options.provider_options.X: found 'X'; exp",
        ),
    ],
)
def test_bad_options(tmp_path: Path, values: dict[str, object], error: type[RpcError], expected: str) -> None:
    path = models.matmul(tmp_path)
    with pytest.raises(error) as caught:
        load(path, options(**values))
    assert caught.value.message.startswith(f"{path}: ")
    assert expected in caught.value.message


def test_every_option_is_taken(tmp_path: Path) -> None:
    config = ModelConfig(
        engine=EngineConfig(
            intra_op_threads=2,
            inter_op_threads=2,
            options={
                "providers": ["CPUExecutionProvider"],
                "provider_options": {"CPUExecutionProvider": {}},
                "graph_optimization": "disable",
                "parallel": True,
                "allow_spinning": True,
                "memory_arena": True,
                "memory_pattern": True,
                "session_config": {"session.set_denormal_as_zero": "1"},
                "ram_factor": 3,
            },
        )
    )
    path = models.matmul(tmp_path)
    assert load(path, config).run({"x": np.ones((1, 16), np.float32)}, ["y"])[0].shape == (1, 16)
    size = path.stat().st_size
    assert OnnxRuntimeEngine().estimate_ram(path, config) == 3 * size
    assert OnnxRuntimeEngine().estimate_ram(path, ModelConfig()) == 2 * size


def test_the_estimate_counts_external_data(tmp_path: Path) -> None:
    path = models.weights(tmp_path, 1, external_data=True)
    assert OnnxRuntimeEngine().estimate_ram(path, ModelConfig()) > 2 << 20


def test_the_registry(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"no model\.py .*or model\.onnx .*contains: nothing"):
        engine_for(tmp_path, ModelConfig())
    path = models.matmul(tmp_path)
    assert engine_for(tmp_path, ModelConfig()) == (engine_named("onnxruntime"), path)
    (tmp_path / "model.py").touch()
    assert engine_for(tmp_path, ModelConfig())[0].name == "python"
    kind = ModelConfig(engine=EngineConfig(kind="onnxruntime"))
    engine, found = engine_for(tmp_path, kind)
    assert (engine.name, found) == ("onnxruntime", path)
    servable: Servable = engine.load(found, kind, name="m", version=1)
    servable.close()
    path.unlink()
    with pytest.raises(FailedPreconditionError, match=r"no model\.onnx \(engine onnxruntime\); .*model\.py"):
        engine_for(tmp_path, kind)


def test_loading_and_unloading_gives_the_memory_back(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    path = models.weights(tmp_path, 20)
    process = psutil.Process()
    x = np.ones((64, 64), np.float32)

    def cycle() -> int:
        servable = load(path)
        servable.run({"x": x}, ["y"])
        servable.close()
        return process.memory_info().rss

    first = cycle()
    after = [cycle() for _ in range(8)]
    assert max(after) - first < 20 << 20
