"""What one client process is asked to measure, and how its client does it: a closed or an open loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from .arrivals import due_times
from .calls import Call, Calls
from .closed_load import closed_loop, closed_threads
from .meters import CpuMeter
from .models import OUTPUT, Array, Case, case_of
from .open_load import OpenLoop, open_threads
from .period import Meeting
from .recorder import REFUSALS, Measurement, Samples
from .systems import CALL_TIMEOUT, AsyncCall, AsyncSystem, SyncCall, SyncSystem

#: Different inputs in a run; callers share them.
_INPUTS: Final = 16
#: Seconds until a server that refused is asked again.
_AGAIN: Final = 0.05


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement to make. Times are in seconds.

    Attributes:
        concurrency: callers of a closed loop; in an open loop, the most calls that may be in flight. Others
            that are due wait, with their clock running.
        samples: every latency is wanted, because other processes make load at the same time. Each waits for
            the others, see :class:`Onward`: so all measure the same part of it.
        arrivals: ``closed``: the next call of a caller starts where its last one ended. ``fixed`` and
            ``poisson``: calls start when they are due, whatever became of those before, and their latency
            counts from when they were due.
        rate: calls a second of an open loop, of all processes together.
        timeout: of each call; in an open loop an answer that comes later than that after the call was due is
            none.
        slow_share: share of the calls that are of ``slow_case``; their latency is not counted.
        seed: of Poisson arrivals and of which calls are slow.
        phase: of fixed arrivals; see :func:`.arrivals.due_times`.
    """

    case: str
    concurrency: int
    warmup: float
    duration: float
    samples: bool = False
    arrivals: Literal["closed", "fixed", "poisson"] = "closed"
    rate: float = 0.0
    timeout: float = CALL_TIMEOUT
    slow_share: float = 0.0
    slow_case: str = ""
    seed: int = 0
    phase: float = 0.0

    def cases(self) -> list[Case]:
        """The ordinary one, and the slow one where there is one."""
        return [case_of(name) for name in (self.case, self.slow_case) if name]

    def due_times(self, begin: float) -> Iterator[float]:
        """When the calls of an open loop are due; see :func:`.arrivals.due_times`."""
        assert self.arrivals != "closed"
        return due_times(self.arrivals, self.rate, begin, phase=self.phase, seed=self.seed)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job: a measurement, or samples where they were asked for, or neither and why.

    ``waits``: nothing yet: the process has got so far, and waits for :class:`Onward`.
    """

    waits: bool = False
    measurement: Measurement | None = None
    samples: Samples | None = None
    failure: str = ""


class Onward(msgspec.Struct, frozen=True, kw_only=True):
    """All processes are there, and go on ``at`` this time of :func:`time.monotonic`."""

    at: float


async def run_async(
    system: AsyncSystem, job: Job, meter: CpuMeter, meeting: Meeting | None = None
) -> Samples:
    """Measure an asynchronous client. ``meeting``: of the processes that share the load.

    Raises:
        ValueError: the job makes no sense.
    """
    calls: Calls[AsyncCall] = _calls(job, system.caller, system.code_of)
    if job.arrivals == "closed":
        return await closed_loop(calls, job.concurrency, job.warmup, job.duration, meter, meeting=meeting)
    loop = OpenLoop(calls, job.due_times, job.concurrency, timeout=job.timeout)
    return await loop.run(job.warmup, job.duration, meter, meeting=meeting)


def run_sync(system: SyncSystem, job: Job, meter: CpuMeter, meeting: Meeting | None = None) -> Samples:
    """Measure a blocking client, which ``job.concurrency`` threads share. ``meeting``: as :func:`run_async`.

    Raises:
        ValueError: the job makes no sense.
    """
    calls: Calls[SyncCall] = _calls(job, system.caller, system.code_of)
    if job.arrivals == "closed":
        return closed_threads(calls, job.concurrency, job.warmup, job.duration, meter, meeting=meeting)
    return open_threads(
        calls,
        job.due_times,
        job.concurrency,
        job.warmup,
        job.duration,
        meter,
        timeout=job.timeout,
        meeting=meeting,
    )


async def verify_async(system: AsyncSystem, case: Case, *, compared: bool = True) -> None:
    """Make one call of a case. ``compared``: its answer must be the model's.

    A server that is busy with the calls of other processes may refuse: it is asked again.

    Raises:
        ValueError: the system answered wrongly.
    """
    inputs = case.inputs(1)[0]
    call = system.caller(case, inputs)
    until = time.monotonic() + CALL_TIMEOUT
    while True:
        try:
            outputs = await call()
            break
        except Exception as error:
            if system.code_of(error) not in REFUSALS or time.monotonic() > until:
                raise
            await asyncio.sleep(_AGAIN)
    if compared:
        case.verify(inputs, outputs[OUTPUT])


def verify_sync(system: SyncSystem, case: Case, *, compared: bool = True) -> None:
    """The same for a blocking client.

    Raises:
        ValueError: the system answered wrongly.
    """
    inputs = case.inputs(1)[0]
    call = system.caller(case, inputs)
    until = time.monotonic() + CALL_TIMEOUT
    while True:
        try:
            outputs = call()
            break
        except Exception as error:
            if system.code_of(error) not in REFUSALS or time.monotonic() > until:
                raise
            time.sleep(_AGAIN)
    if compared:
        case.verify(inputs, outputs[OUTPUT])


def _calls(
    job: Job, caller: Callable[[Case, Array, float], Call], code_of: Callable[[Exception], str]
) -> Calls[Call]:
    """As many of each kind as can be in flight: a client with several connections uses all of them."""

    def made(case: Case) -> list[Call]:
        inputs = case.inputs(_INPUTS)
        return [caller(case, inputs[number % _INPUTS], job.timeout) for number in range(job.concurrency)]

    ordinary, *slow = map(made, job.cases())
    return Calls(
        ordinary,
        code_of,
        slow=slow[0] if slow else (),
        slow_share=job.slow_share,
        seed=job.seed,
    )
