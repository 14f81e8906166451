"""Spinning without a server: what the machine gives to processes that do nothing but compute.

``python -m tensorwire.bench.workers.spin CALIBRATION``: reads a :class:`Turn` as a JSON line from stdin,
answers with a :class:`Turned`, stops when stdin closes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from ..child import Ready, say
from ..processes import Child
from .models import SOURCE

_START_SECONDS: Final = 30.0


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """Work to do again and again: runs of ``work`` seconds each, for ``seconds``."""

    seconds: float
    work: float


class Turned(msgspec.Struct, frozen=True):
    """Runs a second."""

    rate: float


class Spinners:
    """The harness's side of some such processes."""

    def __init__(self, children: list[Child]) -> None:
        self._children = children

    @classmethod
    @contextmanager
    def start(cls, count: int, calibration: Path, logs: Path) -> Generator[Self]:
        """Run so many until the block ends; they do nothing until :meth:`turn`."""
        with ExitStack() as stack:
            children = [
                stack.enter_context(
                    Child(f"spinner {index}", ["-m", __name__, str(calibration)], logs / f"spin-{index}.log")
                )
                for index in range(count)
            ]
            for child in children:
                child.receive(Ready, _START_SECONDS)
            yield cls(children)

    def turn(self, count: int, turn: Turn) -> float:
        """Runs a second of the first ``count`` together, beside each other."""
        for child in self._children[:count]:
            child.send(turn)
        return sum(
            child.receive(Turned, turn.seconds + _START_SECONDS).rate for child in self._children[:count]
        )


def _main(calibration: Path) -> None:
    names: dict[str, Any] = {}
    exec(SOURCE, names)  # the very loop that the models run
    loop, loops = names["loop"], names["shared"](calibration)
    say(Ready())
    for line in sys.stdin.buffer:
        turn = msgspec.json.decode(line, type=Turn)
        count, runs = int(loops * turn.work), 0
        begun = time.monotonic()
        while (now := time.monotonic()) < begun + turn.seconds:
            loop(count)
            runs += 1
        say(Turned(runs / (now - begun)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
