"""The model of the overload proof whose cost does not depend on the machine: it waits, and keeps a diary.

It is written into the repository as ``model.py``; ``[engine.options]`` gives the costs and the diary's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .models import INPUT, OUTPUT

#: ``x`` is ``[id, deadline]``; an id below zero has the model stall for ``STALL_SECONDS``.
STALL_SECONDS: Final = 0.3
SOURCE: Final = f'''
"""Takes a while, and writes down when it began with which request."""

import os
import time

import numpy as np


class Model:
    inputs = [("{INPUT}", "float64", (None, 2))]
    outputs = [("{OUTPUT}", "float64", (None, 1))]
    batched = True

    def load(self, directory, config):
        self.batch_seconds = config["batch_seconds"]
        self.row_seconds = config["row_seconds"]
        self.diary = os.open(config["diary"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def predict(self, {INPUT}):
        begun = np.full((len({INPUT}), 1), time.monotonic())
        os.write(self.diary, np.hstack([{INPUT}, begun]).tobytes())
        if ({INPUT}[:, 0] < 0).any():
            time.sleep({STALL_SECONDS})
        time.sleep(self.batch_seconds + self.row_seconds * len({INPUT}))
        return {{"{OUTPUT}": {INPUT}[:, :1]}}

    def close(self):
        os.close(self.diary)
'''

Diary = npt.NDArray[np.float64]


def write_waiting_model(
    directory: Path, diary: Path, *, batch: int, batch_seconds: float, row_seconds: float
) -> None:
    """One worker whose batches of up to ``batch`` rows take the given times."""
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(SOURCE)
    (directory / "model.toml").write_text(
        f"[workers]\ncount = 1\n[batching]\nenabled = true\nmax_batch_size = {batch}\n[engine.options]\n"
        f"batch_seconds = {batch_seconds}\nrow_seconds = {row_seconds}\ndiary = {str(diary)!r}\n"
    )


def read_diary(path: Path) -> Diary:
    """``[rows, 3]``: id, deadline (``time.monotonic`` of the client), when it was begun; without warm-up."""
    rows = np.fromfile(path, np.float64).reshape(-1, 3)
    return rows[rows[:, 1] > 0]


def inputs_for(request_id: int, deadline: float) -> Mapping[str, Any]:
    """The inputs of one request."""
    return {INPUT: np.array([[request_id, deadline]], np.float64)}
