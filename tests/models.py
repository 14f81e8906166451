"""Small ONNX models for the tests. Each function writes ``model.onnx`` into a directory and returns its path.

``tests/conftest.py`` puts this folder on ``sys.path``; use it as ``import models``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Conservative, so that every ONNX Runtime that tensorwire supports can load them.
OPSET: Final = 19
IR_VERSION: Final = 9

#: Wire name -> ONNX element type, for every dtype that ONNX Runtime takes on the CPU.
ONNX_TYPES: Final[dict[str, int]] = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "bfloat16": TensorProto.BFLOAT16,
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "float8_e5m2": TensorProto.FLOAT8E5M2,
    "float8_e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
    "string": TensorProto.STRING,
}
_Shape = Sequence[int | str | None]


def save(
    directory: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, str, _Shape]],
    outputs: Sequence[tuple[str, str, _Shape]],
    weights: dict[str, np.ndarray[Any, Any]] | None = None,
    *,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
    external_data: bool = False,
) -> Path:
    """Write a model of these nodes; tensors are ``(name, wire dtype, shape)``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, ONNX_TYPES[d], list(s)) for n, d, s in inputs],
        [helper.make_tensor_value_info(n, ONNX_TYPES[d], list(s)) for n, d, s in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "model.onnx"
    if external_data:
        onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=512)
    else:
        onnx.save(model, path)
    return path


def identity(directory: Path, dtype: str = "float32", shape: _Shape = ("n", 4)) -> Path:
    """``y = x``, for any dtype of :data:`ONNX_TYPES`; ``shape=()`` takes and gives a scalar."""
    return save(
        directory, [helper.make_node("Identity", ["x"], ["y"])], [("x", dtype, shape)], [("y", dtype, shape)]
    )


def add_one(directory: Path, dtype: str = "float32") -> Path:
    """``y = x + 1``, rows of 4."""
    one = np.ones(1, np.dtype(dtype))
    node = helper.make_node("Add", ["x", "one"], ["y"])
    return save(directory, [node], [("x", dtype, ("n", 4))], [("y", dtype, ("n", 4))], {"one": one})


def matmul(directory: Path, width: int = 16, *, seed: int = 0, external_data: bool = False) -> Path:
    """``y = x @ w``, float32, ``[n, width]``: 64-byte rows for the default width."""
    w = np.random.default_rng(seed).standard_normal((width, width), np.float32)
    return save(
        directory,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", "float32", ("n", width))],
        [("y", "float32", ("n", width))],
        {"w": w},
        external_data=external_data,
    )


def scale(directory: Path, factor: float = 2.0) -> Path:
    """``y = x * factor``: tells versions of one model apart."""
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    weights = {"factor": np.array([factor], np.float32)}
    return save(directory, [node], [("x", "float32", ("n", 4))], [("y", "float32", ("n", 4))], weights)


def several(directory: Path) -> Path:
    """Inputs ``a`` float32 [n, 3] and ``b`` int64 [n]; outputs ``sum``, ``product`` [n, 3], ``b_out`` [n]."""
    nodes = [
        helper.make_node("Cast", ["b"], ["bf"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["bf", "axis"], ["column"]),
        helper.make_node("Add", ["a", "column"], ["sum"]),
        helper.make_node("Mul", ["a", "column"], ["product"]),
        helper.make_node("Identity", ["b"], ["b_out"]),
    ]
    return save(
        directory,
        nodes,
        [("a", "float32", ("n", 3)), ("b", "int64", ("n",))],
        [("sum", "float32", ("n", 3)), ("product", "float32", ("n", 3)), ("b_out", "int64", ("n",))],
        {"axis": np.array([1], np.int64)},
    )


def dynamic(directory: Path) -> Path:
    """``y = sum of each row``: rows of any length, ``[batch, length]`` -> ``[batch]``."""
    node = helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)
    weights = {"axis": np.array([1], np.int64)}
    return save(
        directory, [node], [("x", "float32", ("batch", "length"))], [("y", "float32", ("batch",))], weights
    )


def unbatched(directory: Path) -> Path:
    """A fixed first dimension: ``y = x.T``, ``[2, 3]`` -> ``[3, 2]``."""
    node = helper.make_node("Transpose", ["x"], ["y"])
    return save(directory, [node], [("x", "float32", (2, 3))], [("y", "float32", (3, 2))])


def optional_input(directory: Path) -> Path:
    """``y = x * gain``; ``gain`` float32 [1] is an input with the default 3."""
    node = helper.make_node("Mul", ["x", "gain"], ["y"])
    inputs = [("x", "float32", ("n", 4)), ("gain", "float32", (1,))]
    return save(directory, [node], inputs, [("y", "float32", ("n", 4))], {"gain": np.array([3], np.float32)})


def image(directory: Path, classes: int = 10) -> Path:
    """``data`` float32 [n, 3, 224, 224] (602 KB a row) -> ``logits`` [n, classes]."""
    w = np.random.default_rng(0).standard_normal((3, classes), np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    return save(
        directory,
        nodes,
        [("data", "float32", ("n", 3, 224, 224))],
        [("logits", "float32", ("n", classes))],
        {"w": w},
    )


def slow(directory: Path, steps: int = 200, width: int = 256) -> Path:
    """``steps`` matrix products in a loop: some ms for each call. ``[n, width]`` -> ``[n, width]``."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["state", "w"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["n", width]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", width]),
        ],
    )
    weights = {
        "steps": np.array(steps, np.int64),
        "true": np.array(True),
        "w": np.eye(width, dtype=np.float32),
    }
    return save(
        directory,
        [helper.make_node("Loop", ["steps", "true", "x"], ["y"], body=body)],
        [("x", "float32", ("n", width))],
        [("y", "float32", ("n", width))],
        weights,
    )


def failing(directory: Path) -> Path:
    """Looks up rows of a table of 4; an index of 4 or more fails the call. int64 [n] -> float32 [n, 2]."""
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    node = helper.make_node("Gather", ["table", "index"], ["row"])
    return save(
        directory, [node], [("index", "int64", ("n",))], [("row", "float32", ("n", 2))], {"table": table}
    )


def weights(directory: Path, megabytes: int = 20, *, external_data: bool = False) -> Path:
    """A model whose weights have about this size: ``[n, 64]`` -> ``[n, 1]``."""
    columns = megabytes * (1 << 20) // (64 * 4)
    w = np.ones((64, columns), np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["wide"]),
        helper.make_node("ReduceMean", ["wide", "axis"], ["y"], keepdims=1),
    ]
    return save(
        directory,
        nodes,
        [("x", "float32", ("n", 64))],
        [("y", "float32", ("n", 1))],
        {"w": w, "axis": np.array([1], np.int64)},
        external_data=external_data,
    )


def sequence_input(directory: Path) -> Path:
    """Takes a sequence of tensors, which tensorwire has no wire form for."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph(
        [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)],
        "test",
        [helper.make_value_info("x", kind)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "model.onnx")
    return directory / "model.onnx"
