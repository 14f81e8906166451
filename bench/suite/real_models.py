"""Real models for the scenario about images and tokens; inputs and outputs have the benchmark's names."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..models import INPUT, OUTPUT, Array, Case
from ..proof_models import write_model

#: Tokens of one request, and how many different ones there are: bytes and a padding.
_LENGTH: Final = 2048
_VOCABULARY: Final = 257
#: Labels of Magika, which its model gives probabilities of.
_LABELS: Final = 214
_EMBEDDING: Final = 64
#: A row costs ten milliseconds or more, alone or not: larger batches would only take longer to warm up.
_MOST_ROWS: Final = 4


def magika_file() -> Path | None:
    """Google's Magika as the package of that name carries it; None where it is not installed."""
    try:
        files = metadata.files("magika") or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.match("magika/models/*/model.onnx")]
    return next((path for path in found if path.is_file()), None)


def tokens_model() -> str:
    """Which model takes the tokens here, for people."""
    if magika_file() is not None:
        return f"Magika (package magika {metadata.version('magika')})"
    return "an embedding and a mean over it (the package magika is not installed)"


def _probabilities(x: Array) -> Array:
    return np.zeros((len(x), _LABELS), np.float32)


def _adds_up(_: Array, y: Array) -> bool:
    return bool(np.allclose(y.sum(axis=1), 1, atol=1e-3))


TOKENS: Final = Case(
    "tokens",
    "tokens",
    (1, _LENGTH),
    _probabilities,
    dtype="int32",
    below=_VOCABULARY,
    judge=_adds_up,
)


def write_squeezenet(directory: Path) -> None:
    """SqueezeNet's structure from the ``onnx`` package; its weights are constants, its arithmetic is real."""
    from onnx import backend

    data = Path(str(backend.__path__[0])) / "test" / "data" / "light" / "light_squeezenet.onnx"
    _write(directory, _load(data))


def write_tokens(directory: Path) -> None:
    """Magika where it is installed, else an embedding, its mean and a layer."""
    path = magika_file()
    _write(directory, _load(path) if path is not None else _embedding())


def _load(path: Path) -> Any:
    from onnx import ModelProto

    return ModelProto.FromString(path.read_bytes())


def _write(directory: Path, model: Any) -> None:
    """Save a model of one input and one output as version 1, under the names that all clients use."""
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    (given,) = (value for value in graph.input if value.name not in weights)
    (result,) = graph.output
    renamed = {given.name: INPUT, result.name: OUTPUT}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for value in (given, result):
        value.name = renamed[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    # Old files list their weights among the inputs as well; the repository wants the inputs alone.
    del graph.input[:]
    graph.input.append(given)
    # Weights that are no inputs are known from this version on.
    model.ir_version = max(model.ir_version, 4)
    write_model(directory, model.SerializeToString(), f"[batching]\nmax_batch_size = {_MOST_ROWS}\n")


def _embedding() -> Any:
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    draw = np.random.default_rng(0)
    weights = {
        "embedding": draw.random((_VOCABULARY, _EMBEDDING), np.float32),
        "layer": draw.random((_EMBEDDING, _LABELS), np.float32),
    }
    nodes = [
        node("Gather", ["embedding", INPUT], ["embedded"]),
        node("ReduceMean", ["embedded"], ["mean"], axes=[1], keepdims=0),
        node("MatMul", ["mean", "layer"], ["scores"]),
        node("Softmax", ["scores"], [OUTPUT], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info(INPUT, TensorProto.INT32, ["batch", _LENGTH])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", _LABELS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model
