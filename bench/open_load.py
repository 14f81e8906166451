"""Open-loop load: calls start when they are due, whatever became of those before.

Latency counts from when a call was due, not from when it was sent, so a server that stalls shows it in every
call that was due meanwhile, and so does a client that falls behind. At most so many calls are in flight;
others that are due wait, with their clock running.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from .alarm import Alarm, sharpen_sleep
from .arrivals import Due
from .by_due import ByDue
from .calls import Calls
from .meters import CpuMeter
from .period import Meeting, met, met_later, pause, settle
from .recorder import Recorder, Samples
from .systems import AsyncCall, SyncCall

#: When calls are due that start from some time on; see :func:`.arrivals.due_times`.
Schedule = Callable[[float], Iterator[float]]
#: The clock of :meth:`.alarm.Alarm.at`.
_clock = time.monotonic
#: Seconds until the first call is due: everything is set up by then.
_AHEAD: Final = 0.01


class OpenLoop:
    """One run of an asynchronous client.

    Args:
        limit: calls in flight at most.
        recorder: for who wants to look at it meanwhile.
        timeout: seconds that a call has from when it was due.
    """

    def __init__(
        self,
        calls: Calls[AsyncCall],
        schedule: Schedule,
        limit: int,
        recorder: Recorder | None = None,
        *,
        timeout: float = math.inf,
    ) -> None:
        self._calls = calls
        self._schedule = schedule
        self._limit = limit
        self._record = ByDue(recorder or Recorder(), calls, timeout)
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(self._look)
        self._due = Due(iter((math.inf,)), 0.0, 0.0)

    @property
    def in_flight(self) -> int:
        """Calls that have started and not ended."""
        return len(self._tasks)

    async def run(
        self,
        warmup: float,
        duration: float,
        meter: CpuMeter,
        stop: asyncio.Event | None = None,
        *,
        meeting: Meeting | None = None,
    ) -> Samples:
        """Make load for ``warmup + duration`` seconds; calls that are due in the first part do not count.

        Args:
            stop: ends it earlier.
            meeting: where the processes of one load wait for each other before the first call.
        """
        stop = stop or asyncio.Event()
        settle()
        meter.prepare()
        begin = await met_later(meeting) + _AHEAD
        due = self._due = Due(self._schedule(begin), begin + warmup, begin + warmup + duration)
        self._record.counts_from = due.counts_from
        with self._alarm:
            self._alarm.at(due.next)
            await pause(due.counts_from - _clock(), stop)
            period = self._record.period(meter)
            await pause(due.end - _clock(), stop)
            due.end = min(due.end, _clock())
            self._look()  # what became due since it looked last, and finds a place
            period.end()
            # Nobody finds another call to start from here on.
            while (when := due.take()) < due.end:
                self._record.unsent(when, due.end)
        await asyncio.gather(*self._tasks)
        return self._record.samples(period, due)

    def _look(self) -> None:
        """Start what is due, and be called again when the next call is."""
        due, tasks, now = self._due, self._tasks, _clock()
        while due.next <= now and len(tasks) < self._limit:
            task = asyncio.create_task(self._caller(due.take()))
            tasks.add(task)
            task.add_done_callback(self._ended)
        if len(tasks) < self._limit and due.next < math.inf:
            self._alarm.at(due.next)

    def _ended(self, task: asyncio.Task[None]) -> None:
        full = len(self._tasks) == self._limit
        self._tasks.discard(task)
        if full and self._due.next < math.inf:
            self._alarm.at(self._due.next)

    async def _caller(self, due: float) -> None:
        """Make a call, and then others for as long as some are waiting."""
        record, queue = self._record, self._due
        while True:
            call, slow = record.choose()
            try:
                await call()
            except Exception as error:  # noqa: BLE001 - every failure is counted under its code
                record.failed(error, due)
                await asyncio.sleep(0)  # a call that fails at once must not starve the loop
            else:
                record.answered(due, slow)
            if queue.next > _clock():
                return
            due = queue.take()


def open_threads(
    calls: Calls[SyncCall],
    schedule: Schedule,
    limit: int,
    warmup: float,
    duration: float,
    meter: CpuMeter,
    *,
    timeout: float = math.inf,
    meeting: Meeting | None = None,
) -> Samples:
    """The same for a blocking client: ``limit`` threads share what is behind the calls."""
    settle()
    meter.prepare()
    record = ByDue(Recorder(), calls, timeout)
    gate, dues = threading.Event(), list[Due]()
    threads = [
        threading.Thread(target=_behind_gate, args=(gate, dues, record), name=f"caller-{number}")
        for number in range(limit)
    ]
    try:
        for thread in threads:
            thread.start()
        # Only now: to start many threads takes longer than some measurements.
        begin = met(meeting) + _AHEAD
        due = Due(schedule(begin), begin + warmup, begin + warmup + duration)
        record.counts_from = due.counts_from
        dues.append(due)
        gate.set()
        time.sleep(max(0.0, due.counts_from - _clock()))
        period = record.period(meter)
        time.sleep(max(0.0, due.end - _clock()))
        period.end()
    finally:
        gate.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    return record.samples(period, due)


def _behind_gate(gate: threading.Event, dues: list[Due], record: ByDue[SyncCall]) -> None:
    """Wait until all threads are there; without anything due the run was broken off before."""
    gate.wait()
    for due in dues:
        _blocking_caller(due, record)


def _blocking_caller(due: Due, record: ByDue[SyncCall]) -> None:
    sharpen_sleep()
    while (when := due.take()) < math.inf:
        now = _clock()
        if now >= due.end:
            record.unsent(when, now)
            continue
        if when > now:
            time.sleep(when - now)
        call, slow = record.choose()
        try:
            call()
        except Exception as error:  # noqa: BLE001 - every failure is counted under its code
            record.failed(error, when)
        else:
            record.answered(when, slow)
