"""The models of the proofs about workers: how long a request takes is in the request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ...client import Client
from ..models import INPUT, OUTPUT

WorkerKind = Literal["thread", "process"]
#: ``wait``: sleeps, so that what it takes does not depend on what else the machine does. ``spin``: computes
#: in Python, with the interpreter's lock held.
Work = Literal["wait", "spin"]
Array = np.ndarray[Any, np.dtype[np.float64]]

#: ``x`` is ``[[number, seconds, ...]]``; ``y`` is ``[[number, process id, ...]]``, the rest as it came.
#: Seconds of spinning are counted in loops, which are measured once: whoever loads it first writes down how
#: many make a second, so that all workers of all models that share the file do the same work.
SOURCE: Final = f'''
"""Takes as long as it is told to, and says who it was."""

import contextlib
import os
import time
from pathlib import Path


def loop(count):
    for _ in range(count):
        pass


def measured():
    """Loops a second; the best of some tries, because others only make it slower."""
    loops = 100_000
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        loop(loops)
        best = min(best, time.perf_counter() - begun)
    return loops / best


def shared(path):
    """Loops a second as the first who asked has measured them."""
    if not path.exists():
        own = path.with_name(f"{{path.name}}.{{os.getpid()}}")
        own.write_text(str(measured()))
        with contextlib.suppress(FileExistsError):
            os.link(own, path)
        own.unlink()
    return float(path.read_text())


class Model:
    inputs = [("{INPUT}", "float64", (1, None))]
    outputs = [("{OUTPUT}", "float64", (1, None))]
    batched = False
    concurrent = True

    def load(self, directory, config):
        self.loops = shared(Path(config["calibration"])) if config["work"] == "spin" else 0

    def predict(self, {INPUT}):
        {OUTPUT} = {INPUT}.copy()
        if {INPUT}.shape[1] > 1:  # in the warm-up it is anything
            seconds = {INPUT}[0, 1]
            if self.loops:
                loop(int(self.loops * seconds))
            elif seconds:
                time.sleep(seconds)
            {OUTPUT}[0, 1] = os.getpid()
        return {{"{OUTPUT}": {OUTPUT}}}
'''


def write_timed_model(
    directory: Path, kind: WorkerKind, count: int, *, work: Work = "wait", settings: str = ""
) -> None:
    """Version 1 of a model that takes as long as each request says, one request at a time.

    Args:
        directory: of the model. Models beside it share the measurement of how fast the machine spins.
        settings: more lines for ``[workers]``.
    """
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").write_text(SOURCE)
    calibration = str(calibration_file(directory.parent))
    options = f"[engine.options]\nwork = {work!r}\ncalibration = {calibration!r}\n"
    (directory / "model.toml").write_text(workers_config(kind, count, settings) + options)


def calibration_file(repository: Path) -> Path:
    """Where the models of a repository keep how fast they spin."""
    return repository.parent / "loops-a-second"


def workers_config(kind: WorkerKind, count: int, settings: str = "") -> str:
    """``[workers]`` of a ``model.toml``."""
    return f"[workers]\nkind = {kind!r}\ncount = {count}\n{settings}\n"


def change_count(client: Client, directory: Path, count: int) -> None:
    """Have a model that serves run in another number of workers. It has ``model.toml`` in ``directory``."""
    path = directory / "model.toml"
    text, found = re.subn(r"(?m)^count = \d+$", f"count = {count}", path.read_text())
    if found != 1:
        raise ValueError(f"{path} has {found} lines with a count; expected 1")
    staged = path.with_name(".model.toml")
    staged.write_text(text)
    staged.rename(path)
    client.control("models.rescan")


def inputs_for(number: int, seconds: float, extra: int = 0) -> Mapping[str, Any]:
    """The inputs of one request, with so many numbers behind the two that the model looks at."""
    x = np.full((1, 2 + extra), number, np.float64)
    x[0, 1] = seconds
    return {INPUT: x}


def is_right(number: int, extra: int, y: Array) -> bool:
    """Whether an answer is that to :func:`inputs_for`."""
    return y.shape == (1, 2 + extra) and y[0, 0] == number and bool((y[0, 2:] == number).all())
