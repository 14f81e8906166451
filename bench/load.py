"""Closed-loop load: a fixed number of callers, each with one call in flight, no think time.

The same loop, clock and recorder serve every system. Throughput and latency come from the same calls; the
next call starts where the last one ended, so one clock reading a call is enough.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal

import msgspec
import psutil

from .models import CASE_OF_NAME, OUTPUT
from .recorder import CpuUse, Measurement, Recorder, Samples
from .systems import CALL_TIMEOUT, AsyncCall, AsyncSystem, SyncCall, SyncSystem

#: Different inputs in a run; callers share them.
_INPUTS: Final = 16
#: Seconds by which slow calls may prolong a warm-up.
_MAX_EXTRA_WARMUP: Final = 3.0
_clock = time.perf_counter


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement to make. Times are in seconds.

    Attributes:
        concurrency: callers of a closed loop; in an open loop, the most calls that may be in flight.
        samples: every latency is wanted, because other processes make load at the same time.
        arrivals: ``closed``: the next call of a caller starts where its last one ended. ``fixed`` and
            ``poisson``: calls start when they are due, whatever became of those before, and their latency
            counts from when they were due.
        rate: calls a second of an open loop, of all processes together.
        timeout: of each call.
        slow_share: share of the calls that are of ``slow_case``; their latency is not counted.
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


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job: a measurement, or samples where they were asked for, or neither and why."""

    measurement: Measurement | None = None
    samples: Samples | None = None
    failure: str = ""


class CpuMeter:
    """CPU seconds of the server, of this process and of everything else, between two readings."""

    def __init__(self, server_pid: int | None) -> None:
        """``None``: the server is not to be seen from here; its share is 0."""
        self._server = None if server_pid is None else psutil.Process(server_pid)
        self._client = psutil.Process(os.getpid())
        self._last = (0.0, 0.0, 0.0)
        self.start()

    def start(self) -> None:
        """First reading."""
        self._last = self._read()

    def stop(self) -> CpuUse:
        """Second reading; gives what was used since the first."""
        server, client, machine = (now - then for now, then in zip(self._read(), self._last, strict=True))
        return CpuUse(max(0.0, server), client, max(0.0, machine - server - client))

    def _read(self) -> tuple[float, float, float]:
        server = 0.0
        if self._server is not None:
            server = sum(map(_seconds, (self._server, *self._server.children(recursive=True))))
        times = psutil.cpu_times()
        machine = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return server, _seconds(self._client), machine


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a worker that has just ended
        return 0.0
    return times.user + times.system


async def run_async(system: AsyncSystem, job: Job, meter: CpuMeter, *, verified: bool = True) -> Measurement:
    """Measure an asynchronous client with ``job.concurrency`` callers.

    Raises:
        ValueError: the system answered wrongly.
    """
    calls = await _callers(system, job, verified)
    return await closed_loop(calls, job.warmup, job.duration, system.code_of, meter)


async def run_async_samples(
    system: AsyncSystem, job: Job, meter: CpuMeter, *, verified: bool = True
) -> Samples:
    """The same for one of several processes, as :func:`closed_loop_samples`.

    Raises:
        ValueError: the system answered wrongly.
    """
    calls = await _callers(system, job, verified)
    return await closed_loop_samples(calls, job.warmup, job.duration, system.code_of, meter)


async def _callers(system: AsyncSystem, job: Job, verified: bool) -> list[AsyncCall]:
    case = CASE_OF_NAME[job.case]
    inputs = case.inputs(_INPUTS)
    if verified:
        case.verify(inputs[0], (await system.caller(case, inputs[0])())[OUTPUT])
    return [system.caller(case, inputs[index % _INPUTS]) for index in range(job.concurrency)]


async def closed_loop(
    calls: Iterable[AsyncCall],
    warmup: float,
    duration: float,
    code_of: Callable[[Exception], str],
    meter: CpuMeter,
) -> Measurement:
    """Keep every call in flight for ``warmup + duration`` seconds, of which the first part does not count."""
    recorder, seconds, cpu = await _drive(calls, warmup, duration, code_of, meter)
    return recorder.summary(seconds, cpu)


async def closed_loop_samples(
    calls: Iterable[AsyncCall],
    warmup: float,
    duration: float,
    code_of: Callable[[Exception], str],
    meter: CpuMeter,
) -> Samples:
    """The same for processes that make load together; :func:`.recorder.merge` joins what they give."""
    recorder, seconds, cpu = await _drive(calls, warmup, duration, code_of, meter)
    return recorder.samples(seconds, cpu)


async def _drive(
    calls: Iterable[AsyncCall],
    warmup: float,
    duration: float,
    code_of: Callable[[Exception], str],
    meter: CpuMeter,
) -> tuple[Recorder, float, CpuUse]:
    recorder = Recorder()
    stop = asyncio.Event()
    _settle()
    callers = [asyncio.create_task(_caller(call, recorder, stop, code_of)) for call in calls]
    try:
        await _warm(recorder, len(callers), warmup)
        meter.start()
        recorder.begin()
        started = _clock()
        await asyncio.sleep(duration)
        ended = _clock()
        recorder.end()
        cpu = meter.stop()
    finally:
        stop.set()
        await asyncio.gather(*callers)
    return recorder, ended - started, cpu


async def _warm(recorder: Recorder, callers: int, warmup: float) -> None:
    """At least ``warmup`` seconds, and until as many calls ended as there are callers: a steady load."""
    limit = _clock() + warmup + _MAX_EXTRA_WARMUP
    await asyncio.sleep(warmup)
    while recorder.ended < callers and _clock() < limit:
        await asyncio.sleep(0.005)


async def _caller(
    call: Callable[[], Awaitable[Any]],
    recorder: Recorder,
    stop: asyncio.Event,
    code_of: Callable[[Exception], str],
) -> None:
    record, stopped, clock = recorder.record, stop.is_set, _clock
    started = clock()
    while not stopped():
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - every failure is counted under its code
            recorder.error(code_of(error))
            await asyncio.sleep(0)  # a call that fails at once must not starve the loop
            started = clock()
            continue
        ended = clock()
        record(ended - started)
        started = ended


def run_sync(system: SyncSystem, job: Job, meter: CpuMeter, *, verified: bool = True) -> Measurement:
    """Measure a blocking client with one caller.

    Raises:
        ValueError: the system answered wrongly, or the job wants more than one caller.
    """
    if job.concurrency != 1:
        raise ValueError(f"a blocking client has one caller; the job asks for {job.concurrency}")
    case = CASE_OF_NAME[job.case]
    inputs = case.inputs(1)[0]
    call = system.caller(case, inputs)
    if verified:
        case.verify(inputs, call()[OUTPUT])
    recorder = Recorder()
    _settle()
    _blocking_loop(call, recorder, _clock() + job.warmup, system.code_of)
    meter.start()
    recorder.begin()
    started = _clock()
    _blocking_loop(call, recorder, started + job.duration, system.code_of)
    ended = _clock()
    recorder.end()
    return recorder.summary(ended - started, meter.stop())


def _blocking_loop(
    call: SyncCall, recorder: Recorder, until: float, code_of: Callable[[Exception], str]
) -> None:
    record, clock = recorder.record, _clock
    started = clock()
    while started < until:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - every failure is counted under its code
            recorder.error(code_of(error))
            started = clock()
            continue
        ended = clock()
        record(ended - started)
        started = ended


def _settle() -> None:
    """The same collector state before every measurement, whatever ran before it in this process."""
    gc.collect()
    gc.freeze()
