"""How much Python's memory grows in a server between two requests with a large tensor.

A server of its own, whose allocations are traced, serves two models: one takes its tensor as it comes, the
other makes a copy first, which shows that a copy would be seen. NumPy reports its arrays to ``tracemalloc``;
the frames of libzmq are not Python's memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ...client import Client
from ..models import INPUT, Array
from ..proofs import serving, workplace

_PLAIN: Final = "plain"
_COPYING: Final = "copying"
#: The first ones pay for what is made once.
_FIRST: Final = 3
_REQUESTS: Final = 10

#: Answers one row for each request: how far the traced memory rose above where it was behind the last
#: request, and the sum of the tensor, so that the answer shows that it is the tensor that was sent.
SOURCE: Final = f'''
"""Says by how much the traced memory has grown since the last request."""

import tracemalloc

import numpy as np


class Model:
    inputs = [("{INPUT}", "float32", (None, 3, 224, 224))]
    outputs = [("grown", "float64", (None,)), ("sum", "float64", (None,))]
    batched = True

    def load(self, directory, config):
        self.copies = config["copies"]
        self.before = 0
        if not tracemalloc.is_tracing():
            tracemalloc.start()

    def predict(self, {INPUT}):
        if self.copies:
            {INPUT} = {INPUT}.copy()
        grown = tracemalloc.get_traced_memory()[1] - self.before
        total = {INPUT}.sum(axis=(1, 2, 3), dtype=np.float64)
        answer = {{"grown": np.full(len({INPUT}), grown, np.float64), "sum": total}}
        del {INPUT}
        tracemalloc.reset_peak()
        self.before = tracemalloc.get_traced_memory()[0]
        return answer
'''


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: of one tensor; the most that a plain model saw; the least that one that makes a copy saw."""

    tensor: int
    plain: int
    copying: int


def traced(shape: tuple[int, ...], requests: int = _REQUESTS) -> Growth:
    """Send some requests, one at a time.

    Args:
        shape: of the tensor, ``[1, 3, 224, 224]``; float32.

    Raises:
        ChildError: the server died.
        ValueError: an answer was wrong.
    """
    tensor = np.random.default_rng(0).random(shape, np.float32)
    with workplace() as (repository, logs):
        for name in (_PLAIN, _COPYING):
            _write(repository / name, copies=name == _COPYING)
        with serving(repository, logs) as server, Client(server.address, timeout=30.0) as client:
            grown = {name: _grown(client, name, tensor, requests) for name in (_PLAIN, _COPYING)}
    return Growth(tensor=tensor.nbytes, plain=max(grown[_PLAIN]), copying=min(grown[_COPYING]))


def _write(directory: Path, *, copies: bool) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(SOURCE)
    # A thread of the server: the tensor is to be seen where it was received.
    settings = f"[workers]\nkind = 'thread'\ncount = 1\n[engine.options]\ncopies = {str(copies).lower()}\n"
    (directory / "model.toml").write_text(settings)


def _grown(client: Client, model: str, tensor: Array, requests: int) -> list[int]:
    expected, grown = float(tensor.sum(dtype=np.float64)), list[int]()
    for _ in range(_FIRST + requests):
        answer = client.predict(model, {INPUT: tensor})
        if not np.isclose(answer["sum"][0], expected):
            raise ValueError(f"the sum of the tensor is {expected}; model {model!r} got {answer['sum'][0]}")
        grown.append(int(answer["grown"][0]))
    return grown[_FIRST:]
