"""Closed-loop load: a fixed number of callers, each with one call in flight, no think time.

The same loop, clock and recorder serve every system. Throughput and latency come from the same calls; the
next call starts where the last one ended, so one clock reading a call is enough.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final

from .calls import Calls
from .meters import CpuMeter
from .period import Meeting, Period, met, met_later, pause, settle
from .recorder import Recorder, Samples
from .systems import AsyncCall, SyncCall

#: Seconds by which slow calls may prolong a warm-up.
_MAX_EXTRA_WARMUP: Final = 3.0
_LOOK: Final = 0.005
_clock = time.perf_counter


async def closed_loop(
    calls: Calls[AsyncCall],
    callers: int,
    warmup: float,
    duration: float,
    meter: CpuMeter,
    *,
    recorder: Recorder | None = None,
    stop: asyncio.Event | None = None,
    meeting: Meeting | None = None,
) -> Samples:
    """Keep so many calls in flight for ``warmup + duration`` seconds, of which the first part does not count.

    What several processes that make load together give, :func:`.recorder.merge` joins.

    Args:
        recorder: for who wants to look at it meanwhile.
        stop: ends it earlier.
        meeting: where the processes of one load wait for each other: before the first call, and when each has
            warmed up. So their measured parts are the same, and their rates add up.
    """
    recorder, stop = recorder or Recorder(), stop or asyncio.Event()
    over = asyncio.Event()
    settle()
    meter.prepare()
    await pause(await met_later(meeting) - time.monotonic(), stop)
    tasks = [asyncio.create_task(_caller(calls, recorder, over)) for _ in range(callers)]
    try:
        await pause(warmup, stop)
        limit = _clock() + _MAX_EXTRA_WARMUP
        # A steady load: as many calls have ended as there are callers.
        while warmup and recorder.ended < callers and _clock() < limit:
            await asyncio.sleep(_LOOK)
        await pause(await met_later(meeting) - time.monotonic(), stop)
        period = Period(meter, recorder)
        # From now, not from when it should have begun: a busy event loop would make it shorter.
        await pause(duration, stop)
        period.end()
    finally:
        over.set()
        await asyncio.gather(*tasks)
    return period.samples()


async def _caller(calls: Calls[AsyncCall], recorder: Recorder, over: asyncio.Event) -> None:
    """Each caller has one call of either kind and keeps to it."""
    ordinary, slow_call = calls.ordinary(), calls.slow()
    is_slow, record, is_over, clock = calls.is_slow, recorder.record, over.is_set, _clock
    started = clock()
    while not is_over():
        slow = is_slow()
        try:
            await (slow_call if slow else ordinary)()
        except Exception as error:  # noqa: BLE001 - every failure is counted under its code
            recorder.error(calls.code_of(error), clock() - started)
            await asyncio.sleep(0)  # a call that fails at once must not starve the loop
            started = clock()
            continue
        ended = clock()
        if slow:
            recorder.slow()
        else:
            record(ended - started)
        started = ended


def closed_threads(
    calls: Calls[SyncCall],
    callers: int,
    warmup: float,
    duration: float,
    meter: CpuMeter,
    *,
    meeting: Meeting | None = None,
) -> Samples:
    """The same for a blocking client: so many threads share what is behind the calls."""
    recorder, over = Recorder(), threading.Event()
    settle()
    meter.prepare()
    threads = [
        threading.Thread(target=_blocking_caller, args=(calls, recorder, over), name=f"caller-{number}")
        for number in range(callers)
    ]
    _sleep_until(met(meeting))
    for thread in threads:
        thread.start()
    try:
        time.sleep(warmup)
        limit = _clock() + _MAX_EXTRA_WARMUP
        while warmup and recorder.ended < callers and _clock() < limit:
            time.sleep(_LOOK)
        _sleep_until(met(meeting))
        period = Period(meter, recorder)
        time.sleep(duration)
        period.end()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return period.samples()


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def _blocking_caller(calls: Calls[SyncCall], recorder: Recorder, over: threading.Event) -> None:
    ordinary, slow_call = calls.ordinary(), calls.slow()
    is_slow, record, is_over, clock = calls.is_slow, recorder.record, over.is_set, _clock
    started = clock()
    while not is_over():
        slow = is_slow()
        try:
            (slow_call if slow else ordinary)()
        except Exception as error:  # noqa: BLE001 - every failure is counted under its code
            recorder.error(calls.code_of(error), clock() - started)
            started = clock()
            continue
        ended = clock()
        if slow:
            recorder.slow()
        else:
            record(ended - started)
        started = ended
