"""Several client processes of one system that make load together, and are measured as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from .child import Ready
from .histogram import encode
from .load import Job, Onward, Outcome
from .processes import Child, ChildError
from .recorder import Measurement, Samples, latencies, merge
from .servers import Server
from .shares import seed_of, shares
from .systems import CALL_TIMEOUT

_READY_SECONDS: Final = 30.0
#: Seconds from the word to go on until they do: it has reached all processes by then.
AHEAD: Final = 0.02


class Clients:
    """Connected client processes of a system; a context manager that never leaves them running.

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
        """Have the first so many processes share the callers of a job, or its rate.

        Raises:
            ChildError: a process died or could not measure.
        """
        working = self._children[:processes]
        for child, part in zip(working, parts(job, processes), strict=True):
            child.send(part)
        # Calls in flight at the end may take their whole timeout.
        limit = job.warmup + job.duration + job.timeout + 2 * CALL_TIMEOUT
        _send_on(working, limit)
        if job.arrivals == "closed":  # slow calls prolong the warm-up: of all, where it is that of one
            _send_on(working, limit)
        samples = [_samples(child, limit) for child in working]
        return msgspec.structs.replace(merge(samples), histogram=encode(latencies(samples)))


def _send_on(children: Sequence[Child], limit: float) -> None:
    """Wait until all of them wait, and have them go on at one time."""
    for child in children:
        outcome = child.receive(Outcome, limit)
        if not outcome.waits:
            raise ChildError(f"{child.name} could not measure: {outcome.failure}")
    onward = Onward(at=time.monotonic() + AHEAD)
    for child in children:
        child.send(onward)


def _samples(child: Child, limit: float) -> Samples:
    outcome = child.receive(Outcome, limit)
    if outcome.samples is None:
        raise ChildError(f"{child.name} could not measure: {outcome.failure}")
    return outcome.samples


def parts(job: Job, processes: int) -> list[Job]:
    """What each of so many processes has to do of a job, which has at least as many callers."""
    return [
        msgspec.structs.replace(
            job,
            concurrency=callers,
            samples=True,
            rate=job.rate / processes,
            # Fixed arrivals of all processes together are evenly spaced; Poisson arrivals are independent.
            phase=number / job.rate if job.rate else 0.0,
            seed=seed_of(job.seed, number),
        )
        for number, callers in enumerate(shares(job.concurrency, processes))
    ]
