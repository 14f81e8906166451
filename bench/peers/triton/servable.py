"""What runs in Triton's Python backend: an ONNX file. Copied into the model repository as ``model.py``.

A batch is what Triton hands over at once: one concatenation, one run, one slice for each request, as in all
other systems.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Where this was copied to, ``site`` leads to the packages that are installed for it.
sys.path.insert(0, str((Path(__file__).parents[3] / "site").resolve()))

import numpy as np
import onnxruntime

# It is a module of Triton's own process, so nobody else has it.
import triton_python_backend_utils as _utils  # pyright: ignore[reportMissingImports]

_triton: Any = _utils
_onnx: Any = onnxruntime


class TritonPythonModel:
    """As Triton calls it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file."""
        config = json.loads(args["model_config"])
        options = _onnx.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(__file__).with_name("model.onnx")
        self._session = _onnx.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [each["name"] for each in config["input"]]
        self._outputs = [each["name"] for each in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run one batch; one answer for each request."""
        inputs = {
            name: [_triton.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self._inputs
        }
        batch = {
            name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in inputs.items()
        }
        outputs: list[Any] = self._session.run(self._outputs, batch)
        responses: list[Any] = []
        start = 0
        for part in inputs[self._inputs[0]]:
            stop = start + len(part)
            tensors = [
                _triton.Tensor(name, output[start:stop])
                for name, output in zip(self._outputs, outputs, strict=True)
            ]
            responses.append(_triton.InferenceResponse(tensors))
            start = stop
        return responses
