"""Tensors in and out of KServe v2 messages, for every server that speaks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from . import kserve
from .backend import Backend, Tensor

#: KServe datatype -> NumPy dtype, for the types that the benchmark's models use.
DTYPES: Final = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT64": np.dtype("<i8"),
    "INT32": np.dtype("<i4"),
    "UINT8": np.dtype("u1"),
}
DATATYPES: Final = {dtype: name for name, dtype in DTYPES.items()}

#: What tells requests apart that cannot share a batch.
Signature = tuple[Any, ...]


def decode(request: kserve.ModelInferRequest) -> dict[str, Tensor]:
    """The inputs by name; they are views of the message.

    Raises:
        KeyError: a datatype that is not known.
        ValueError: byte counts or numbers of tensors that cannot be right.
    """
    inputs: dict[str, Tensor] = {
        tensor.name: np.frombuffer(raw, DTYPES[tensor.datatype]).reshape(tensor.shape)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    if not inputs:
        raise ValueError("the request has no inputs")
    return inputs


def signature_of(model: str, inputs: dict[str, Tensor]) -> Signature:
    """Model, and dtype and trailing shape of each input."""
    return (model, *((name, array.dtype, array.shape[1:]) for name, array in inputs.items()))


def batch_rows(backend: Backend, model: str, inputs: dict[str, Tensor], max_batch_bytes: int) -> int:
    """Rows of the largest batch of requests like this one: the model's limit, and that of the bytes."""
    rows = len(next(iter(inputs.values())))
    row_bytes = sum(array.nbytes for array in inputs.values()) // max(rows, 1)
    return min(max(1, max_batch_bytes // max(row_bytes, 1)), backend.max_batch_size(model))


class Responder:
    """Makes answers; what does not change between them is copied from a template."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._templates: dict[Signature, kserve.ModelInferResponse] = {}

    def respond(self, model: str, outputs: Sequence[Tensor]) -> kserve.ModelInferResponse:
        """The answer with these outputs, in the order of the model's."""
        signature = (model, *(array.shape for array in outputs))
        template = self._templates.get(signature)
        if template is None:
            template = kserve.new_response(model, str(self._backend.version(model)))
            for name, array in zip(self._backend.output_names(model), outputs, strict=True):
                template.outputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
            self._templates[signature] = template
        response = type(template)()
        response.CopyFrom(template)
        response.raw_output_contents.extend([array.tobytes() for array in outputs])
        return response
