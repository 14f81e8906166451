"""Several client processes of one system that make load together, and are measured as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from .child import Ready
from .load import Job, Outcome
from .processes import Child, ChildError
from .recorder import Measurement, Samples, merge
from .servers import Server
from .systems import CALL_TIMEOUT

_READY_SECONDS: Final = 30.0


class Clients:
    """Connected client processes of an asynchronous system; a context manager that never leaves them running.

    Args:
        system: of :data:`.systems.SYSTEMS`.
        count: of processes.
        logs: folder for what they write to stderr.
        label: tells their logs from those of other clients of the same system.
    """

    def __init__(self, system: str, server: Server, count: int, logs: Path, label: str = "") -> None:
        arguments = ["-m", f"{__package__}.worker", system, server.address, str(server.pid)]
        stem = (label or system).replace(" ", "-")
        self._children = [
            Child(f"the {label or system} client {number + 1}", arguments, logs / f"{stem}-{number + 1}.log")
            for number in range(count)
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Clients:
        with self._stack:
            for child in self._children:
                self._stack.enter_context(child)
            for child in self._children:
                child.receive(Ready, _READY_SECONDS)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def measure(self, job: Job, processes: int) -> Measurement:
        """Have the first so many processes share the callers of a job.

        Raises:
            ChildError: a process died or could not measure.
        """
        working = self._children[:processes]
        for child, callers in zip(working, shares(job.concurrency, processes), strict=True):
            child.send(msgspec.structs.replace(job, concurrency=callers, samples=True))
        # Calls in flight at the end may take their whole timeout.
        limit = job.warmup + job.duration + 3 * CALL_TIMEOUT
        return merge([_samples(child, limit) for child in working])


def _samples(child: Child, limit: float) -> Samples:
    outcome = child.receive(Outcome, limit)
    if outcome.samples is None:
        raise ChildError(f"{child.name} could not measure: {outcome.failure}")
    return outcome.samples


def shares(callers: int, processes: int) -> Sequence[int]:
    """How many of at least as many callers each process has; no two differ by more than one."""
    each, over = divmod(callers, processes)
    return [each + (number < over) for number in range(processes)]
