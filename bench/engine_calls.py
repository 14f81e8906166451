"""Compare the ways to call and to configure ONNX Runtime: ``python -m tensorwire.bench.engine_calls``.

Everything is measured interleaved in one run. The choices that follow are explained in ``docs/engines.md``.
Needs ``onnxruntime``, ``onnx`` and ``psutil`` (Linux).
"""

from __future__ import annotations

import ctypes
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

_ROUNDS: Final = 9
_CYCLES: Final = 50
_SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "64 B x 1": (1, 16),
    "64 B x 32": (32, 16),
    "64 B x 256": (256, 16),
    "602 KB x 1": (1, 3, 224, 224),
}
_MEMORY: Final = (
    # arena, trim: the heap is trimmed after each load and unload
    (True, False),
    (True, True),
    (False, False),
    (False, True),
)

Call = Callable[[], object]


def _save(path: Path, row: tuple[int, ...], weight: np.ndarray[Any, Any] | None = None) -> Path:
    """A model: a matrix product with ``weight``, or the mean of each row where there is none."""
    onnx: Any = importlib.import_module("onnx")
    helper: Any = importlib.import_module("onnx.helper")
    numpy_helper: Any = importlib.import_module("onnx.numpy_helper")
    x = helper.make_tensor_value_info("x", 1, ["n", *row])
    y = helper.make_tensor_value_info("y", 1, ["n"] + [None] * len(row))
    if weight is None:
        nodes, weights = [helper.make_node("GlobalAveragePool", ["x"], ["y"])], []
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        weights = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "engine", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _save_convolutions(path: Path, layers: int = 5) -> Path:
    """A small network with large intermediate results: 3x3 convolutions of 16 channels at 112x112."""
    onnx: Any = importlib.import_module("onnx")
    helper: Any = importlib.import_module("onnx.helper")
    numpy_helper: Any = importlib.import_module("onnx.numpy_helper")
    nodes: list[Any] = []
    weights: list[Any] = []
    for layer in range(layers):
        source = f"a{layer - 1}" if layer else "x"
        weight = np.full((16, 16 if layer else 3, 3, 3), 0.01, np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        stride = [1, 1] if layer else [2, 2]
        names = [source, f"w{layer}"], [f"a{layer}"]
        nodes.append(helper.make_node("Conv", *names, strides=stride, pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("GlobalAveragePool", [f"a{layers - 1}"], ["y"]))
    x = helper.make_tensor_value_info("x", 1, ["n", 3, 224, 224])
    y = helper.make_tensor_value_info("y", 1, ["n", 16, 1, 1])
    graph = helper.make_graph(nodes, "engine", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _session(path: Path, *, arena: bool = False, pattern: bool = False) -> Any:
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, pattern
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interleaved(calls: Mapping[str, Call], number: int) -> dict[str, float]:
    """Median time of a call, us: in each of 9 rounds, ``number`` calls of each in turn."""
    for call in calls.values():
        for _ in range(3):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter() - start) / number * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def _ways(path: Path, x: np.ndarray[Any, Any]) -> dict[str, Call]:
    ort: Any = importlib.import_module("onnxruntime")
    plain, arena = _session(path), _session(path, arena=True, pattern=True)
    private = plain._sess.run

    def values() -> object:
        value = ort.OrtValue.ortvalue_from_numpy(x)
        return [result.numpy() for result in plain.run_with_ort_values(["y"], {"x": value})]

    def binding() -> object:
        bound = plain.io_binding()
        bound.bind_cpu_input("x", x)
        bound.bind_output("y")
        plain.run_with_iobinding(bound)
        return bound.copy_outputs_to_cpu()

    return {
        "session.run": lambda: plain.run(["y"], {"x": x}),
        "session._sess.run": lambda: private(["y"], {"x": x}, None),
        "the same, arena + pattern": lambda: arena._sess.run(["y"], {"x": x}, None),
        "run_with_ort_values": values,
        "io_binding": binding,
    }


def _resident() -> float:
    psutil: Any = importlib.import_module("psutil")
    return psutil.Process().memory_info().rss / 2**20


def _cycle_memory(path: Path, arena: bool, trim: bool) -> str:
    """Growth of this process in MB over 50 times load, run, unload."""
    trim_heap: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    x = np.ones((256, 64), np.float32)
    growth: list[float] = []
    loaded = 0.0
    for cycle in range(_CYCLES + 1):
        session = _session(path, arena=arena)
        if trim:
            trim_heap(0)
        session.run(["y"], {"x": x})
        loaded = _resident()
        del session
        if trim:
            trim_heap(0)
        if not cycle:  # the first fills ONNX Runtime's own tables: what remains then is where growth starts
            trim_heap(0)
        growth.append(_resident())
    first, last, worst = growth[0], growth[-1], max(growth)
    return (
        f"loaded {loaded - first:5.0f}   after unload: last {last - first:5.0f}, worst {worst - first:5.0f}"
    )


def _compare_calls(directory: Path) -> None:
    names: list[str] = []
    for title, shape in _SHAPES.items():
        small = len(shape) == 2
        weight = np.ones((16, 16), np.float32) if small else None
        path = _save(directory / "model.onnx", shape[1:], weight)
        result = interleaved(_ways(path, np.ones(shape, np.float32)), 2000 if small else 200)
        if not names:
            names = list(result)
            print("us a call     " + "".join(f"{name:>28}" for name in names))
        print(f"{title:14}" + "".join(f"{result[name]:28.2f}" for name in names))


def _compare_arena(directory: Path) -> None:
    path = _save_convolutions(directory / "convolutions.onnx")
    print("\nms a call of a network of convolutions")
    for rows in (1, 8):
        x = np.ones((rows, 3, 224, 224), np.float32)
        calls: dict[str, Call] = {}
        for arena in (True, False):
            for pattern in (True, False):
                run = _session(path, arena=arena, pattern=pattern).run
                calls[f"arena {arena}, pattern {pattern}"] = partial(run, ["y"], {"x": x})
        result = interleaved(calls, 2)
        print(f"{rows} rows: " + "; ".join(f"{name}: {us / 1e3:.2f}" for name, us in result.items()))


def _compare_memory(directory: Path) -> None:
    path = _save(directory / "large.onnx", (64,), np.ones((64, 80 << 10), np.float32))
    print(f"\nMB over {_CYCLES} cycles of load, run and unload; the model has {path.stat().st_size >> 20} MB")
    for arena, trim in _MEMORY:
        arguments = [sys.executable, "-m", __spec__.name, str(path), str(int(arena)), str(int(trim))]
        line = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()
        print(f"arena {'on ' if arena else 'off'}  trim {'on ' if trim else 'off'}  {line}")


def main(arguments: list[str]) -> None:
    """Run all comparisons; with arguments (in a process of its own) one memory measurement."""
    if arguments:
        path, arena, trim = arguments
        print(_cycle_memory(Path(path), arena == "1", trim == "1"))
        return
    with tempfile.TemporaryDirectory() as directory:
        _compare_calls(Path(directory))
        _compare_arena(Path(directory))
        _compare_memory(Path(directory))


if __name__ == "__main__":
    main(sys.argv[1:])
