"""The processes that make the load, as one."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final

import msgspec

from ..child import Ready
from ..processes import Child, ChildError
from ..recorder import Measurement, merge
from .loader import Job, Made, Spec

_READY_SECONDS: Final = 30.0
#: For what may be in flight at the end of a measurement, on top of the calls' own timeout.
_PATIENCE: Final = 10.0
_CORES_PER_PROCESS: Final = 4
_MOST_PROCESSES: Final = 4


def sensible_processes(cores: int) -> int:
    """One process keeps a server on two cores busy; more would only take its cores."""
    return max(1, min(_MOST_PROCESSES, cores // _CORES_PER_PROCESS))


class Crew:
    """Load-making processes; a context manager that never leaves them running.

    Args:
        spec: what they call; ``requests`` is filled in.
        requests: the inputs of one or more requests.
        processes: so many at most; never more than there are callers.
    """

    def __init__(self, spec: Spec, requests: Sequence[dict[str, Any]], processes: int) -> None:
        self._spec = spec
        self._requests = list(requests)
        self._processes = processes
        self._stack = ExitStack()
        self._children: list[Child] = []
        #: Calls that ended, those of warm-ups included.
        self.calls = 0

    def __enter__(self) -> Crew:
        with self._stack:
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="tensorwire-tune-")))
            path = folder / "requests"
            # Pickled, because arrays of strings have no other form in a file; the folder is nobody else's.
            path.write_bytes(pickle.dumps(self._requests))
            spec = msgspec.structs.replace(self._spec, requests=str(path))
            arguments = ["-m", f"{__package__}.loader", msgspec.json.encode(spec).decode()]
            for number in range(self._processes):
                child = Child(f"load process {number + 1}", arguments, folder / f"{number}.log")
                self._children.append(self._stack.enter_context(child))
            for child in self._children:
                child.receive(Ready, _READY_SECONDS)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def drive(self, callers: int, warmup: float, seconds: float) -> Measurement:
        """Keep ``callers`` calls in flight and measure.

        Raises:
            ChildError: a process died or could not measure.
        """
        shares = _shares(callers, len(self._children))
        for child, share in zip(self._children, shares, strict=False):
            child.send(Job(callers=share, warmup=warmup, duration=seconds))
        limit = warmup + seconds + self._spec.timeout + _PATIENCE
        parts = [_samples(child, limit) for child, _ in zip(self._children, shares, strict=False)]
        self.calls += sum(part.calls for part in parts)
        return merge(parts)


def _samples(child: Child, limit: float) -> Any:
    made = child.receive(Made, limit)
    if made.samples is None:
        raise ChildError(f"{child.name} could not measure: {made.failure}")
    return made.samples


def _shares(callers: int, processes: int) -> list[int]:
    """How many callers each process has; those without any are left out."""
    each, over = divmod(callers, processes)
    return [share for number in range(processes) if (share := each + (number < over))]
