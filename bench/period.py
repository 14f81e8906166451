"""The measured part of a load: what counts, how long it took, what it used."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

import msgspec

from .meters import CpuMeter
from .recorder import CpuUse, Recorder, Samples

#: Where processes that make load together wait for each other: tells that this one is there, blocks until all
#: are, and gives when they go on, of :func:`time.monotonic`, which is one clock for the whole machine.
Meeting = Callable[[], float]
_clock = time.perf_counter


class Period:
    """Begins when it is made, and ends with :meth:`end`; calls may end later than that.

    Args:
        forget: see :meth:`.recorder.Recorder.begin`.
    """

    def __init__(self, meter: CpuMeter, recorder: Recorder, *, forget: bool = True) -> None:
        self._meter = meter
        self._recorder = recorder
        self._used = CpuUse(0.0, 0.0, 0.0)
        self._seconds = 0.0
        meter.start()
        recorder.begin(forget=forget)
        self._begun = _clock()

    def end(self) -> None:
        """The measured part is over."""
        self._seconds = _clock() - self._begun
        self._recorder.end()
        self._used = self._meter.stop()

    def samples(self, *, by_due: bool = False) -> Samples:
        """What was measured. All calls have ended. ``by_due``: see :meth:`.recorder.Recorder.samples`."""
        used = self._meter.finish(self._used)
        server, client = self._meter.resident()
        samples = self._recorder.samples(self._seconds, used, by_due=by_due)
        return msgspec.structs.replace(samples, server_rss=server, client_rss=client)


def settle() -> None:
    """The same collector state before every measurement, whatever ran before it in this process."""
    gc.collect()
    gc.freeze()


def met(meeting: Meeting | None) -> float:
    """When all processes go on; at once for one that makes load alone."""
    return time.monotonic() if meeting is None else meeting()


async def met_later(meeting: Meeting | None) -> float:
    """The same in an event loop, whose calls go on meanwhile."""
    return time.monotonic() if meeting is None else await asyncio.to_thread(meeting)


async def pause(seconds: float, stop: asyncio.Event) -> None:
    """So many seconds, or until ``stop`` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
