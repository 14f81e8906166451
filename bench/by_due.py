"""Sorts the calls of an open loop by when they were due: into the warm-up or into what counts."""

from __future__ import annotations

import math
import time
from array import array
from typing import Final, Generic

import msgspec

from .arrivals import Due
from .calls import Call, Calls
from .meters import CpuMeter
from .period import Period
from .recorder import Recorder, Samples

_TOO_LATE: Final = "DEADLINE_EXCEEDED"
_clock = time.monotonic


class ByDue(Generic[Call]):
    """Notes what became of calls. Threads may share it. Times are those of :func:`time.monotonic`.

    Args:
        timeout: seconds that a call has from when it was due. Its client counts from when it was sent; an
            answer after that is late for who asked, and counts as a call whose time was over.
    """

    def __init__(self, recorder: Recorder, calls: Calls[Call], timeout: float = math.inf) -> None:
        self._recorder = recorder
        self._timeout = timeout
        self._calls = calls
        self._waits = array("d")
        #: Calls that are due before are the warm-up.
        self.counts_from = math.inf

    def choose(self) -> tuple[Call, bool]:
        """The next call, and whether it is a slow one."""
        slow = self._calls.is_slow()
        return (self._calls.slow if slow else self._calls.ordinary)(), slow

    def answered(self, due: float, slow: bool) -> None:
        """A call has been answered now."""
        took = _clock() - due
        if took > self._timeout:
            if due >= self.counts_from:
                self._recorder.error(_TOO_LATE)
        elif due < self.counts_from:
            self._recorder.other()
        elif slow:
            self._recorder.slow()
        else:
            self._recorder.record(took)

    def failed(self, error: Exception, due: float) -> None:
        """A call has failed now."""
        if due >= self.counts_from:
            self._recorder.error(self._calls.code_of(error), _clock() - due)

    def unsent(self, due: float, now: float) -> None:
        """A call was still waiting to be sent when the run ended."""
        if due >= self.counts_from:
            self._waits.append(now - due)

    def period(self, meter: CpuMeter) -> Period:
        """The measured part begins."""
        return Period(meter, self._recorder, forget=False)

    def samples(self, period: Period, due: Due) -> Samples:
        """What was measured. All calls have ended."""
        samples = period.samples(by_due=True)
        return msgspec.structs.replace(
            samples,
            counted=samples.counted + self._waits.tobytes(),
            offered=due.counted / (due.end - due.counts_from),
            unsent=len(self._waits),
        )
