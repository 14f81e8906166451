"""The engine alone, in a process of its own: ``python -m tensorwire.bench.suite.engine REPOSITORY``.

Loads the models as the servers do. Reads an :class:`Asked` as a JSON line from stdin, answers with a
:class:`Took`, and stops when stdin closes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from ..child import Ready, say
from ..models import INPUT, case_of
from ..processes import Child

_START_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 60.0
#: Calls of the engine between two looks at the clock.
_CALLS: Final = 4


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Run batches of so many requests of a case, one after the other, for so many seconds."""

    case: str
    requests: int
    seconds: float


class Took(msgspec.Struct, frozen=True):
    """Seconds of one request of a batch."""

    seconds: float


@contextmanager
def engine(repository: Path, logs: Path) -> Generator[Child]:
    """The process, until the block ends.

    Raises:
        ChildError: it did not become ready.
    """
    with Child("the engine", ["-m", __name__, str(repository)], logs / "engine.log") as child:
        child.receive(Ready, _START_SECONDS)
        yield child


def ask(child: Child, asked: Asked) -> float:
    """Seconds that one request takes.

    Raises:
        ChildError: the process ended or said nothing.
    """
    child.send(asked)
    return child.receive(Took, asked.seconds + _ANSWER_SECONDS).seconds


def _main(repository: Path) -> None:
    from ..peers.backend import ManagerBackend

    with ManagerBackend(repository) as backend:
        say(Ready())
        for line in sys.stdin.buffer:
            asked = msgspec.json.decode(line, type=Asked)
            case = case_of(asked.case)
            run = backend.runner(case.model)
            batch = {INPUT: np.concatenate(case.inputs(asked.requests))}
            run(batch)
            say(Took(_seconds(partial(run, batch), asked.seconds) / asked.requests))


def _seconds(call: Callable[[], object], seconds: float) -> float:
    """Of one call, on average over so many seconds."""
    calls, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds or not calls:
        for _ in range(_CALLS):
            call()
        calls += _CALLS
    return elapsed / calls


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
