"""The models that every system serves in a benchmark, and the payload cases that call them.

Compute is kept small on purpose: what differs between the systems under test is the RPC layer, so a
model that burns milliseconds would hide it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INPUT: Final = "x"
OUTPUT: Final = "y"
#: Newest opset is not needed; an older one loads in every ONNX Runtime that the package supports.
_OPSET: Final = 17
_IR_VERSION: Final = 8
_MATMUL_WEIGHT: Final[Array] = ((np.arange(256).reshape(16, 16) % 7 - 3) / 8).astype(np.float32)
_VECTOR_SCALE: Final = np.float32(2.0)
_VECTOR_OFFSET: Final = np.float32(1.0)
_IMAGE_WEIGHT: Final[Array] = ((np.arange(30).reshape(3, 10) % 5 - 2) / 4).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One payload: a model and the shape of a request for it.

    Attributes:
        name: short key, also in the JSON results: the size of one request's input tensor.
        model: name in the model repository.
        shape: of the input of one request, batch axis included.
        reference: the same function as the model, in NumPy: input -> expected output.
        dtype: of the input.
        below: integers are drawn from 0 to this, exclusive.
        judge: decides on an answer where no reference in NumPy exists (``reference`` then gives its shape):
            input, output -> whether it can be right.
    """

    name: str
    model: str
    shape: tuple[int, ...]
    reference: Callable[[Array], Array]
    dtype: str = "float32"
    below: int = 2
    judge: Callable[[Array, Array], bool] | None = None

    @property
    def input_bytes(self) -> int:
        """Bytes of the input tensor of one request."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def output_bytes(self) -> int:
        """Bytes of the output tensor of one request."""
        return int(self.reference(np.zeros(self.shape, self.dtype)).nbytes)

    def inputs(self, count: int, seed: int = 0) -> list[Array]:
        """``count`` different inputs, so that no layer can profit from sending one buffer again and again."""
        generator = np.random.default_rng(seed)
        if np.dtype(self.dtype).kind == "i":
            return [generator.integers(0, self.below, self.shape, self.dtype) for _ in range(count)]
        return [generator.random(self.shape, dtype=np.float32) for _ in range(count)]

    def verify(self, inputs: Array, outputs: Array) -> None:
        """Check one answer against NumPy: a fast wrong answer must not count.

        Raises:
            ValueError: shape or values differ.
        """
        expected = self.reference(inputs)
        right = outputs.shape == expected.shape
        if right and self.judge is not None:
            right = self.judge(inputs, outputs)
        elif right:
            right = np.allclose(outputs, expected, rtol=1e-4, atol=1e-4)
        if not right:
            raise ValueError(f"model {self.model!r} answered wrongly for case {self.name!r}")


def _matmul(x: Array) -> Array:
    return x @ _MATMUL_WEIGHT


def _vector(x: Array) -> Array:
    return x * _VECTOR_SCALE + _VECTOR_OFFSET


def _image(x: Array) -> Array:
    pooled: Array = x.mean(axis=(2, 3), dtype=np.float64).astype(np.float32)
    return pooled @ _IMAGE_WEIGHT


CASES: Final[tuple[Case, ...]] = (
    Case("64 B", "matmul16", (1, 16), _matmul),
    Case("4 KiB", "vector1024", (1, 1024), _vector),
    Case("602,112 B", "image", (1, 3, 224, 224), _image),
)
CASE_OF_NAME: Final[dict[str, Case]] = {case.name: case for case in CASES}

#: Bytes of the answer to a request of :func:`sized`.
SIZED_REPLY: Final = 16
_SIZED: Final = "sized:"


def sized(nbytes: int) -> Case:
    """A request of so many bytes (a multiple of 4, at least 16) and an answer of :data:`SIZED_REPLY`.

    One model serves every size; its work does not grow with the request.
    """
    return Case(f"{_SIZED}{nbytes}", "head", (1, nbytes // 4), _head)


def _head(x: Array) -> Array:
    return x[:, : SIZED_REPLY // 4] * _VECTOR_SCALE


def case_of(name: str) -> Case:
    """The case of that name, those of :func:`sized` and of :mod:`.suite.models` included.

    Raises:
        KeyError: there is none.
    """
    if name.startswith(_SIZED):
        return sized(int(name.removeprefix(_SIZED)))
    if name in CASE_OF_NAME:
        return CASE_OF_NAME[name]
    from .suite.models import SUITE_CASES

    return SUITE_CASES[name]


def build_repository(directory: Path) -> Path:
    """Write the models of :data:`CASES`, each as version 1; returns ``directory``."""
    from onnx import TensorProto, helper, numpy_helper

    def write(
        name: str, nodes: list[Any], shapes: tuple[list[Any], list[Any]], weights: dict[str, Any]
    ) -> None:
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shapes[0]])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", *shapes[1]])],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
        model.ir_version = _IR_VERSION
        path = directory / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())

    node = helper.make_node
    write("matmul16", [node("MatMul", [INPUT, "w"], [OUTPUT])], ([16], [16]), {"w": _MATMUL_WEIGHT})
    write(
        "vector1024",
        [node("Mul", [INPUT, "scale"], ["scaled"]), node("Add", ["scaled", "offset"], [OUTPUT])],
        ([1024], [1024]),
        {"scale": _VECTOR_SCALE, "offset": _VECTOR_OFFSET},
    )
    write(
        "image",
        [
            node("GlobalAveragePool", [INPUT], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "w"], [OUTPUT]),
        ],
        ([3, 224, 224], [10]),
        {"w": _IMAGE_WEIGHT},
    )
    write(
        "head",
        [node("Slice", [INPUT, "first", "last", "axis"], ["head"]), node("Mul", ["head", "scale"], [OUTPUT])],
        (["n"], [SIZED_REPLY // 4]),
        {
            "first": np.array([0], np.int64),
            "last": np.array([SIZED_REPLY // 4], np.int64),
            "axis": np.array([1], np.int64),
            "scale": _VECTOR_SCALE,
        },
    )
    return directory
