"""Python models that stop where a test wants them to: ``import gates`` works in their ``model.py`` too."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

import numpy as np


class Gate:
    """Where a model waits. Open until a test closes it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._entered = threading.Semaphore(0)
        #: The values that the model has computed, a batch each.
        self.seen: list[list[float]] = []

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def entered(self, seconds: float = 10.0) -> bool:
        """Wait until a batch has arrived; each counts once."""
        return self._entered.acquire(timeout=seconds)

    def passed(self, x: np.ndarray) -> None:
        """Called by the model."""
        self.seen.append(x[:, 0].tolist())
        self._entered.release()
        if not self._open.wait(20):
            raise AssertionError("nobody opened the gate")


GATES: defaultdict[str, Gate] = defaultdict(Gate)

_MODEL = """
import gates

class Model:
    inputs = [("x", "float32", (None, 2))]
    outputs = [("y", "float32", (None, 2))]
    batched = True
    concurrent = True

    def predict(self, x):
        gates.GATES[{name!r}].passed(x)
        if (x == 13).any():
            raise ValueError("thirteen")
        return {{"y": x * 2}}
"""


def write(directory: Path, name: str, config: str = "") -> None:
    """Write ``model.py``, which waits at the gate of that name and doubles what is not 13.

    It runs in threads: the gate is an object of this process.
    """
    directory.mkdir(parents=True)
    (directory / "model.py").write_text(_MODEL.format(name=name))
    configure(directory.parent, config)


def configure(directory: Path, config: str) -> None:
    """Write ``model.toml`` for such a model."""
    config = config if "[workers]" in config else f"{config}\n[workers]\n"
    (directory / "model.toml").write_text(config.replace("[workers]", '[workers]\nkind = "thread"'))


def fresh(name: str) -> Gate:
    """A new gate for a model that has loaded: its warm-up has passed the old one."""
    gate = GATES[name] = Gate()
    return gate
