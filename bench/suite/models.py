"""Models of single scenarios, beside those that every repository of the benchmark has."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..models import INPUT, OUTPUT, SIZED_REPLY, Array, Case
from ..proof_models import busy, write_model
from .real_models import TOKENS, write_squeezenet, write_tokens

#: Seconds that a slow request of the tail's model takes, and the workers that share its requests.
SLOW_SECONDS: Final = 0.005
TAIL_WORKERS: Final = 4
#: Products with a matrix that one request of the busy model takes: about a millisecond of one core.
_BUSY_STEPS: Final = 150
_BUSY_WIDTH: Final = 256
#: Bytes of the weights of one version of the model that is swapped.
_SWAPPED_ROWS: Final = 1 << 16
_SWAPPED_WIDTH: Final = 64
_QUICK_FLOATS: Final = 16
_REPLY_FLOATS: Final = SIZED_REPLY // 4

#: A request that is longer by one number is slow. The shapes differ, so no batch holds both kinds.
_TAIL: Final = f'''
"""Answers at once, or after {SLOW_SECONDS * 1e3:g} ms where a request is one number longer."""

import time


class Model:
    inputs = [("{INPUT}", "float32", (None, None))]
    outputs = [("{OUTPUT}", "float32", (None, None))]
    batched = True
    concurrent = True

    def predict(self, {INPUT}):
        if {INPUT}.shape[1] == {_QUICK_FLOATS + 1}:
            time.sleep({SLOW_SECONDS})
        return {{"{OUTPUT}": {INPUT}[:, :{_REPLY_FLOATS}] * 2}}
'''


def _first_doubled(x: Array) -> Array:
    return x[:, :_REPLY_FLOATS] * np.float32(2)


def _same(x: Array) -> Array:
    return x


def _probabilities(classes: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda x: np.zeros((len(x), *classes), np.float32)


def _adds_up(_: Array, y: Array) -> bool:
    """Probabilities of one row add up to one; all of them are finite."""
    return bool(np.allclose(y.reshape(len(y), -1).sum(axis=1), 1, atol=1e-3))


QUICK: Final = "quick"
SLOW: Final = "slow"
SWAPPED: Final = "swapped"
BUSY: Final = "busy"
BUSY_PROCESSES: Final = "busy in processes"
SQUEEZENET: Final = "squeezenet"
SUITE_CASES: Final[dict[str, Case]] = {
    case.name: case
    for case in (
        Case(QUICK, "tail", (1, _QUICK_FLOATS), _first_doubled),
        Case(SLOW, "tail", (1, _QUICK_FLOATS + 1), _first_doubled),
        Case(SWAPPED, "swapped", (1, _QUICK_FLOATS), lambda x: x * np.float32(2)),
        Case(BUSY, "busy", (1, _BUSY_WIDTH), _same),
        Case(BUSY_PROCESSES, "busy-processes", (1, _BUSY_WIDTH), _same),
        Case(
            SQUEEZENET,
            "squeezenet",
            (1, 3, 224, 224),
            _probabilities((1000, 1, 1)),
            judge=_adds_up,
        ),
        TOKENS,
    )
}


def _write_tail(directory: Path) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(_TAIL)
    (directory / "model.toml").write_text(f'[workers]\nkind = "thread"\ncount = {TAIL_WORKERS}\n')


def _write_busy(directory: Path) -> None:
    write_model(directory, busy(_BUSY_STEPS, _BUSY_WIDTH), "[workers]\ncount = 1\n")


def _write_busy_processes(directory: Path) -> None:
    config = '[workers]\nkind = "process"\ncount = 1\n'
    write_model(directory, busy(_BUSY_STEPS, _BUSY_WIDTH), config)


def _write_swapped(directory: Path) -> None:
    write_model(directory, swapped_content())


def swapped_content() -> bytes:
    """``y = 2 x``, by way of a table of 16 MiB, so that loading a version is work.

    Which row of the table is read depends on the input as far as the engine can know; so it keeps the table.
    """
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node
    nodes = [
        node("Mul", [INPUT, "nothing"], ["zeros"]),
        node("Cast", ["zeros"], ["rows"], to=TensorProto.INT64),
        node("Gather", ["table", "rows"], ["gathered"]),
        node("ReduceSum", ["gathered", "last"], ["sums"], keepdims=0),
        node("Mul", ["sums", "nothing"], ["void"]),
        node("Mul", [INPUT, "two"], ["doubled"]),
        node("Add", ["doubled", "void"], [OUTPUT]),
    ]
    table = np.random.default_rng(0).random((_SWAPPED_ROWS, _SWAPPED_WIDTH), np.float32)
    weights = {
        "table": table,
        "nothing": np.float32(0),
        "two": np.float32(2),
        "last": np.array([-1], np.int64),
    }
    shape: list[Any] = ["batch", _QUICK_FLOATS]
    graph = helper.make_graph(
        nodes,
        "swapped",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


_WRITERS: Final[dict[str, Callable[[Path], None]]] = {
    "tail": _write_tail,
    "busy": _write_busy,
    "busy-processes": _write_busy_processes,
    "swapped": _write_swapped,
    "squeezenet": write_squeezenet,
    "tokens": write_tokens,
}
MODELS: Final = tuple(_WRITERS)


def add_models(repository: Path, names: tuple[str, ...]) -> None:
    """Write models of :data:`MODELS` into a repository, each as version 1."""
    for name in names:
        _WRITERS[name](repository / name)


def set_workers(repository: Path, count: int) -> None:
    """Have all models of a repository say how many workers they have, where they do not; 0: leave them."""
    for model in repository.iterdir() if count else ():
        config = model / "model.toml"
        text = config.read_text() if config.exists() else ""
        if "workers" not in tomllib.loads(text):
            config.write_text(f"{text}[workers]\ncount = {count}\n")
