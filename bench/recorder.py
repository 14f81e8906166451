"""Latency recording and its statistics; the same few instructions for every system under test."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

Latencies = np.ndarray[tuple[int], np.dtype[np.float64]]


#: Codes of calls that were refused at once, as against those that were tried and failed.
REFUSALS: Final = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})


class Recorder:
    """Latencies of one measurement, in seconds. Threads may share one.

    A growing array of doubles: one append costs about 30 ns, keeps every sample exactly and makes no
    Python object that lives on. Percentiles are computed once, afterwards.

    A closed loop drops what ended before :meth:`begin`, its warm-up. Calls of it that were in flight at
    :meth:`end` are outside of the throughput and the percentiles, but count for the maximum and the errors:
    otherwise a system that left calls hanging would look better for it. An open loop tells by when a call was
    due whether it counts, so all of its latencies do.
    """

    def __init__(self) -> None:
        self._samples = array("d")
        #: Bound once: callers record with ``record(seconds)``.
        self.record = self._samples.append
        self.errors: dict[str, int] = {}
        self._refusals = array("d")
        #: Answered calls without a latency that counts: slow ones, and others.
        self._slow = self._other = 0
        self._lock = threading.Lock()
        self._before = _Counts()
        self._at_end = _Counts()
        self._forgotten = 0

    def error(self, code: str, latency: float | None = None) -> None:
        """Count a failed call; only those that were refused have a latency."""
        with self._lock:
            self.errors[code] = self.errors.get(code, 0) + 1
            if latency is not None and code in REFUSALS:
                self._refusals.append(latency)

    def slow(self) -> None:
        """Count an answered call of the slow kind."""
        with self._lock:
            self._slow += 1

    def other(self) -> None:
        """Count an answered call of the warm-up of an open loop."""
        with self._lock:
            self._other += 1

    @property
    def ended(self) -> int:
        """Calls that ended so far, failed ones included."""
        return len(self._samples) + self._slow + self._other + sum(self.errors.values())

    def since(self, first: int) -> Latencies:
        """The latencies from number ``first`` on that were recorded until now."""
        return np.array(self._samples[first:], np.float64)

    def _counts(self) -> _Counts:
        return _Counts(len(self._samples), self._slow, self._other)

    def begin(self, *, forget: bool = True) -> None:
        """The measured part starts now. ``forget``: what was recorded until now was the warm-up."""
        if forget:
            self._forgotten = self.ended
            del self._samples[:]
            del self._refusals[:]
            self.errors.clear()
            self._slow = 0
        self._before = self._counts()

    def end(self) -> None:
        """The measured part is over."""
        self._at_end = self._counts()

    def samples(self, seconds: float, cpu: CpuUse, *, by_due: bool = False) -> Samples:
        """Every latency of the measured part, for :func:`merge`. ``by_due``: those after its end as well."""
        # A copy: a view would pin the array, which callers still in flight append to.
        samples = np.array(self._samples, np.float64)
        before, at_end = self._before, self._at_end
        counted = len(samples) if by_due else at_end.samples
        return Samples(
            counted=samples[:counted].tobytes(),
            late=samples[counted:].tobytes(),
            errors=dict(self.errors),
            calls=self._forgotten + self.ended,
            seconds=seconds,
            cpu=cpu,
            answered=sum(at_end) - sum(before),
            slow=at_end.slow - before.slow,
            refusals=self._refusals.tobytes(),
        )

    def summary(self, seconds: float, cpu: CpuUse) -> Measurement:
        """Statistics of the measured part, which took ``seconds`` and used ``cpu``."""
        return merge([self.samples(seconds, cpu)])


class _Counts(NamedTuple):
    """Answered calls up to some moment."""

    samples: int = 0
    slow: int = 0
    other: int = 0


class CpuUse(NamedTuple):
    """CPU seconds used during one measurement; processes with all threads and children."""

    server: float
    client: float
    #: By everything else on the machine, time stolen by its host included.
    others: float


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several processes that made load together measured.

    ``cpu.server`` and ``server_rss`` are of the same server in all of them.

    Attributes:
        counted: latencies as native float64.
        late: those of calls that ended after the measured part of a closed loop.
        calls: all that ended, those of the warm-up included.
        answered: within the measured part, slow ones included.
        refusals: how long those took, as ``counted``.
        offered: calls a second that were due.
        unsent: calls of an open loop that were due and not sent; what they had waited is in ``counted``.
    """

    counted: bytes
    late: bytes
    errors: dict[str, int]
    calls: int
    seconds: float
    cpu: CpuUse
    answered: int
    slow: int = 0
    refusals: bytes = b""
    offered: float = 0.0
    unsent: int = 0
    server_rss: int = 0
    client_rss: int = 0


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What one measurement of one system gave. Latencies are in seconds; 0 where no call completed.

    Those of an open loop count from when a call was due, and are of the calls that were due in the measured
    part, however late they were answered. ``requests`` and ``throughput`` are what was answered within it.
    """

    requests: int
    seconds: float
    throughput: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    errors: dict[str, int]
    #: CPU seconds per completed request, all threads and child processes.
    server_cpu_per_request: float
    client_cpu_per_request: float
    #: Cores that were busy with something else meanwhile; a disturbed measurement shows here.
    other_cores: float
    #: Calls a second that an open loop was to start; 0 for a closed loop.
    offered: float = 0.0
    #: Latencies in microseconds as a compressed HdrHistogram (V2, base64): 1 us to 60 s, three digits.
    histogram: str = ""
    #: Resident bytes at the end, all processes of each side together.
    server_rss: int = 0
    client_rss: int = 0
    #: Answered calls of the slow kind, which are in ``throughput`` but not in the latencies.
    slow: int = 0
    #: Calls that were refused (RESOURCE_EXHAUSTED, UNAVAILABLE), and how long their refusal took, seconds.
    refused: int = 0
    refused_p50: float = 0.0
    refused_p99: float = 0.0
    #: Calls of an open loop that were still waiting to be sent at the end. The percentiles hold what they had
    #: waited until then, which is less than what they would have taken.
    unsent: int = 0


def summarise(
    samples: Latencies,
    seconds: float,
    cpu: CpuUse,
    errors: dict[str, int],
    late: Latencies | None = None,
    answered: int | None = None,
) -> Measurement:
    """Statistics over latencies in seconds. Percentiles are observed values, never interpolated.

    Args:
        late: of calls that ended after the measured part; they count for the maximum only.
        answered: within the measured part, where that is not the number of samples.
    """
    p50, p90, p99, p999, largest = _levels(samples, (50, 90, 99, 99.9, 100))
    if late is not None and len(late):
        largest = max(largest, float(late.max()))
    count = len(samples) if answered is None else answered
    per_request = 1 / count if count else 0.0
    return Measurement(
        requests=count,
        seconds=seconds,
        throughput=count / seconds,
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=largest,
        errors=dict(errors),
        server_cpu_per_request=cpu.server * per_request,
        client_cpu_per_request=cpu.client * per_request,
        other_cores=cpu.others / seconds,
    )


def _levels(samples: Latencies, percents: Sequence[float]) -> list[float]:
    if not len(samples):
        return [0.0] * len(percents)
    return np.percentile(samples, percents, method="higher").tolist()


def merge(parts: Sequence[Samples]) -> Measurement:
    """One measurement from those of processes that made load together, whose measured parts are the same.

    Percentiles are over all samples.
    """
    counted, late, refusals = (_joined(parts, name) for name in ("counted", "late", "refusals"))
    refused_p50, refused_p99 = _levels(refusals, (50, 99))
    first, *others = (part.cpu for part in parts)
    beside = sum(cpu.client for cpu in others)
    # What the others took is among "everything else" for the first.
    cpu = CpuUse(first.server, first.client + beside, max(0.0, first.others - beside))
    seconds = sum(part.seconds for part in parts) / len(parts)
    errors = _added(part.errors for part in parts)
    answered = sum(part.answered for part in parts)
    return msgspec.structs.replace(
        summarise(counted, seconds, cpu, errors, late, answered),
        offered=sum(part.offered for part in parts),
        server_rss=max(part.server_rss for part in parts),
        client_rss=sum(part.client_rss for part in parts),
        slow=sum(part.slow for part in parts),
        refused=sum(count for code, count in errors.items() if code in REFUSALS),
        refused_p50=refused_p50,
        refused_p99=refused_p99,
        unsent=sum(part.unsent for part in parts),
    )


def latencies(parts: Sequence[Samples]) -> Latencies:
    """Every latency that counts, in seconds; those of refused and of slow calls do not."""
    return _joined(parts, "counted")


def _joined(parts: Sequence[Samples], name: str) -> Latencies:
    return np.concatenate([np.frombuffer(getattr(part, name), np.float64) for part in parts])


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for code, count in one.items():
            total[code] = total.get(code, 0) + count
    return total


class Spread(msgspec.Struct, frozen=True):
    """Median and extremes of one figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Spread of at least one value."""
        return cls(float(np.median(values)), min(values), max(values))

    @property
    def relative(self) -> float:
        """Half the range, as a fraction of the median; 0 for a median of 0."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


class Comparison(msgspec.Struct, frozen=True):
    """One figure of one system against the baseline's, measured in the same rounds.

    Attributes:
        ratio: median over median.
        low: the least favourable pairing of any round with any round: lowest over highest.
        high: the most favourable pairing.
        shown: whether the two ranges are disjoint. Where they overlap, the rounds do not show a difference.
    """

    ratio: float
    low: float
    high: float
    shown: bool

    @classmethod
    def of(cls, values: Sequence[float], baseline: Sequence[float]) -> Comparison:
        """Compare the rounds of one system with the rounds of another; values must be positive to compare."""
        ours, theirs = Spread.of(values), Spread.of(baseline)
        if theirs.low <= 0 or ours.low <= 0:
            return cls(0.0, 0.0, 0.0, False)
        shown = ours.low > theirs.high or ours.high < theirs.low
        return cls(ours.median / theirs.median, ours.low / theirs.high, ours.high / theirs.low, shown)
