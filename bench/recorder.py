"""Latency recording and its statistics; the same few instructions for every system under test."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

Latencies = np.ndarray[tuple[int], np.dtype[np.float64]]


class Recorder:
    """Latencies of one measurement, in seconds.

    A growing array of doubles: one append costs about 30 ns, keeps every sample exactly and makes no
    Python object that lives on. Percentiles are computed once, afterwards.

    Samples that end before :meth:`begin` are the warm-up and are dropped. Calls that were in flight at
    :meth:`end` are outside of the throughput and the percentiles, but count for the maximum and the errors:
    otherwise a system that left calls hanging would look better for it.
    """

    def __init__(self) -> None:
        self._samples = array("d")
        #: Bound once: callers record with ``record(seconds)``.
        self.record = self._samples.append
        self.errors: dict[str, int] = {}
        self._counted = 0
        self._forgotten = 0

    def error(self, code: str) -> None:
        """Count a failed call; failed calls have no latency."""
        self.errors[code] = self.errors.get(code, 0) + 1

    @property
    def ended(self) -> int:
        """Calls that ended so far, failed ones included."""
        return len(self._samples) + sum(self.errors.values())

    def begin(self) -> None:
        """The measured part starts now: forget the warm-up."""
        self._forgotten = self.ended
        del self._samples[:]
        self.errors.clear()

    def end(self) -> None:
        """The measured part is over."""
        self._counted = len(self._samples)

    def samples(self, seconds: float, cpu: CpuUse) -> Samples:
        """Every latency of the measured part, for :func:`merge`."""
        samples = np.array(self._samples, np.float64)
        return Samples(
            counted=samples[: self._counted].tobytes(),
            late=samples[self._counted :].tobytes(),
            errors=dict(self.errors),
            calls=self._forgotten + self.ended,
            seconds=seconds,
            cpu=cpu,
        )

    def summary(self, seconds: float, cpu: CpuUse) -> Measurement:
        """Statistics of the measured part, which took ``seconds`` and used ``cpu``."""
        # A copy: a view would pin the array, which callers still in flight append to.
        samples = np.array(self._samples, np.float64)
        return summarise(samples[: self._counted], seconds, cpu, self.errors, samples[self._counted :])


class CpuUse(NamedTuple):
    """CPU seconds used during one measurement; processes with all threads and children."""

    server: float
    client: float
    #: By everything else on the machine, time stolen by its host included.
    others: float


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """What one of several processes that made load together measured.

    ``counted`` and ``late`` are latencies as native float64; ``calls`` all that ended, those of the warm-up
    included. ``cpu.server`` is of the same server in all of them.
    """

    counted: bytes
    late: bytes
    errors: dict[str, int]
    calls: int
    seconds: float
    cpu: CpuUse


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What one measurement of one system gave. Latencies are in seconds; 0 where no call completed."""

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


def summarise(
    samples: Latencies,
    seconds: float,
    cpu: CpuUse,
    errors: dict[str, int],
    late: Latencies | None = None,
) -> Measurement:
    """Statistics over latencies in seconds. Percentiles are observed values, never interpolated.

    ``late`` are calls that ended after the measured part; they count for the maximum only.
    """
    count = len(samples)
    if count:
        levels = np.percentile(samples, (50, 90, 99, 99.9, 100), method="higher")
        p50, p90, p99, p999, largest = (float(level) for level in levels)
    else:
        p50 = p90 = p99 = p999 = largest = 0.0
    if late is not None and len(late):
        largest = max(largest, float(late.max()))
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


def merge(parts: Sequence[Samples]) -> Measurement:
    """One measurement from those of processes that made load together. Percentiles are over all samples."""
    counted, late = (
        np.concatenate([np.frombuffer(getattr(part, name), np.float64) for part in parts])
        for name in ("counted", "late")
    )
    errors: dict[str, int] = {}
    for part in parts:
        for code, count in part.errors.items():
            errors[code] = errors.get(code, 0) + count
    first, *others = (part.cpu for part in parts)
    beside = sum(cpu.client for cpu in others)
    # What the others took is among "everything else" for the first.
    cpu = CpuUse(first.server, first.client + beside, max(0.0, first.others - beside))
    return summarise(counted, sum(part.seconds for part in parts) / len(parts), cpu, errors, late)


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
