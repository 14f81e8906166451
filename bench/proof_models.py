"""Models for the proofs: what each is for is said where it is written."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from .models import INPUT, OUTPUT

_OPSET: Final = 17
_IR_VERSION: Final = 8
#: Width of the rows of :class:`VersionedModel`'s table.
_TABLE_WIDTH: Final = 64
#: Stands for the version in the model's bytes until it is written.
_PLACEHOLDER: Final = struct.pack("<f", -7.7191e-21)
#: Floats that one row of ``wide`` gives: 1 MiB.
WIDE_FLOATS: Final = 1 << 18


def _model(
    name: str, nodes: list[Any], x: tuple[Any, list[Any]], y: list[Any], weights: dict[str, Any]
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    dtype, shape = x
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, dtype, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, y)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    return model.SerializeToString()


def write_model(directory: Path, content: bytes, config: str = "") -> None:
    """Write version 1 of a model, and its ``model.toml`` if there is one."""
    version = directory / "1"
    version.mkdir(parents=True)
    if config:
        (directory / "model.toml").write_text(config)
    (version / "model.onnx").write_bytes(content)


class VersionedModel:
    """A lookup table of some megabytes whose answers name the version that gave them.

    ``x`` int64 ``[n, 1]`` (a row of the table) -> ``y`` float32 ``[n, 2]``: the number of that row as the
    table has it, and the version. So an answer out of memory that was given back, or of two versions
    mixed, is found out.
    """

    def __init__(self, directory: Path, mebibytes: int) -> None:
        self.directory = directory
        self.rows = mebibytes * (1 << 20) // (4 * _TABLE_WIDTH)
        self._content = self._build()

    def _build(self) -> bytes:
        from onnx import TensorProto, helper

        table = np.random.default_rng(0).random((self.rows, _TABLE_WIDTH), np.float32)
        # Integers below 2**24 are exact in float32.
        table[:, 0] = np.arange(self.rows)
        weights = {
            "table": table,
            "version": np.frombuffer(_PLACEHOLDER, np.float32),
            "first": np.zeros(1, np.int64),
            "second": np.ones(1, np.int64),
            "axis": np.ones(1, np.int64),
        }
        nodes = [
            helper.make_node("Gather", ["table", INPUT], ["rows"]),
            helper.make_node("Squeeze", ["rows", "axis"], ["row"]),
            helper.make_node("Slice", ["row", "first", "second", "axis"], ["number"]),
            helper.make_node("Mul", ["number", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "version"], ["versions"]),
            helper.make_node("Concat", ["number", "versions"], [OUTPUT], axis=1),
        ]
        weights["zero"] = np.zeros(1, np.float32)
        content = _model("versioned", nodes, (TensorProto.INT64, ["n", 1]), ["n", 2], weights)
        if content.count(_PLACEHOLDER) != 1:
            raise AssertionError("the placeholder of the version is not unique in the model")
        return content

    def prepare(self, version: int) -> Path:
        """Write a version under a name that the server ignores."""
        self.directory.mkdir(parents=True, exist_ok=True)
        staged = self.directory / f".staged-{version}"
        staged.mkdir()
        content = self._content.replace(_PLACEHOLDER, struct.pack("<f", version))
        (staged / "model.onnx").write_bytes(content)
        return staged

    def publish(self, staged: Path, version: int) -> None:
        """Make a prepared version visible, at once and as a whole."""
        os.rename(staged, self.directory / str(version))

    def remove(self, version: int) -> None:
        """Delete a version that does not serve any more."""
        directory = self.directory / str(version)
        (directory / "model.onnx").unlink()
        directory.rmdir()


def identity() -> bytes:
    """``y = x``: float32 ``[n, 16]``."""
    from onnx import TensorProto, helper

    node = helper.make_node("Identity", [INPUT], [OUTPUT])
    return _model("identity", [node], (TensorProto.FLOAT, ["n", 16]), ["n", 16], {})


def wide() -> bytes:
    """A small request with a large answer: float32 ``[n, 1]`` -> ``[n, 262144]``, 1 MiB a row."""
    from onnx import TensorProto, helper

    node = helper.make_node("Tile", [INPUT, "repeats"], [OUTPUT])
    repeats = {"repeats": np.array([1, WIDE_FLOATS], np.int64)}
    return _model("wide", [node], (TensorProto.FLOAT, ["n", 1]), ["n", WIDE_FLOATS], repeats)


def busy(steps: int, width: int = 256) -> bytes:
    """Work for one core: ``steps`` products with a matrix, float32 ``[1, width]``; not batched."""
    from onnx import TensorProto, helper

    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("MatMul", ["state", "w"], ["next"])],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, [1, width]),
        ],
        [info("on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, [1, width])],
    )
    nodes = [helper.make_node("Loop", ["steps", "true", INPUT], [OUTPUT], body=body)]
    weights = {"steps": np.array(steps), "true": np.array(True), "w": np.eye(width, dtype=np.float32)}
    return _model("busy", nodes, (TensorProto.FLOAT, [1, width]), [1, width], weights)
