"""Where the examples compute: on a tensorwire server, or in this process without one.

Every example takes a ``predict(model, inputs) -> outputs``. ``Client.predict`` is one;
:func:`local_predict` is another, for comparison and for tests.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

DEFAULT_SERVER = "tcp://127.0.0.1:8700"
Tensors = Mapping[str, np.ndarray]


class Predict(Protocol):
    """Runs a model by name; inputs and outputs are arrays by name."""

    def __call__(self, model: str, inputs: Tensors, /) -> Tensors: ...


def local_predict(repository: Path) -> Predict:
    """Run the highest version of each model of a repository in this process, with ONNX Runtime."""
    import onnxruntime

    @cache
    def session(model: str) -> Any:
        versions = [int(path.name) for path in (repository / model).iterdir() if path.name.isdecimal()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        path = repository / model / str(max(versions)) / "model.onnx"
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(model: str, inputs: Tensors, /) -> Tensors:
        names = [output.name for output in session(model).get_outputs()]
        return dict(zip(names, session(model).run(names, dict(inputs)), strict=True))

    return predict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--server URL`` or ``--local REPOSITORY``."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server", default=DEFAULT_SERVER, metavar="URL", help="default: %(default)s")
    where.add_argument(
        "--local", type=Path, metavar="REPOSITORY", help="without a server: run the models here"
    )


@contextmanager
def open_predict(options: argparse.Namespace) -> Iterator[Predict]:
    """The ``predict`` that the command line asks for."""
    if options.local is not None:
        yield local_predict(options.local)
        return
    from tensorwire.client import Client

    with Client(options.server, timeout=30.0) as client:
        yield client.predict
