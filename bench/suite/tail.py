"""The long tail (C and E): slow requests among quick ones, at a rate that every system sustains."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import msgspec

from ..load import Job
from .capacity import capacities, slowest
from .models import QUICK, SLOW, SLOW_SECONDS, TAIL_WORKERS
from .scenario import Beginning, Course, Situation, Stage

#: Share of the workers' time that slow requests take on brpc's page: 10,000/s, 1 % of them 5 ms, 24 workers.
OCCUPANCY: Final = 10_000 * 0.01 * 0.005 / 24
#: Of the slowest system's capacity: it sustains the rate, and does not queue all the time.
_OF_CAPACITY: Final = 0.5
#: Share of slow requests on brpc's page; a machine that can do more keeps it, and limits the rate instead.
_SHARE: Final = 0.01
_CALLERS: Final = 32
#: Calls in flight at most; beyond that the generator would be measured.
_IN_FLIGHT: Final = 256


def slow_share(rate: float) -> float:
    """Share of slow requests that keeps :data:`OCCUPANCY`, at so many requests a second."""
    return OCCUPANCY * TAIL_WORKERS / (rate * SLOW_SECONDS)


class TailCourse(Course):
    """Finds the rate, then measures with the tail and without."""

    @staticmethod
    def situations(arrivals: Literal["fixed", "poisson"], processes: int) -> tuple[Situation, ...]:
        """With the tail, and the control."""
        job = Job(
            case=QUICK, concurrency=_IN_FLIGHT, warmup=0.0, duration=0.0, arrivals=arrivals, slow_case=SLOW
        )
        return (
            Situation(0, "long tail", job, processes=processes, quick=True),
            Situation(1, "no slow requests", job, variant="control", processes=processes, quick=True),
        )

    def begin(self, stage: Stage, situations: tuple[Situation, ...]) -> Beginning:
        """Measure every system's capacity for quick requests, in a closed loop."""
        processes = situations[0].processes
        job = Job(case=QUICK, concurrency=_CALLERS, warmup=0.1, duration=0.3)
        found = capacities(stage, job, processes)
        if not found:
            return Beginning(())
        system, least = slowest(found)
        most = OCCUPANCY * TAIL_WORKERS / (_SHARE * SLOW_SECONDS)
        rate = min(_OF_CAPACITY * least, most)
        share = slow_share(rate)
        note = (
            f"Rate {rate:,.0f}/s: {_OF_CAPACITY:.0%} of the capacity of the slowest system ({system}, "
            f"{least:,.0f}/s), at most {most:,.0f}/s. So {share:.2%} of the requests are slow."
        )
        return Beginning(tuple(_at(each, rate, share) for each in situations), (note,))


def _at(situation: Situation, rate: float, share: float) -> Situation:
    control = bool(situation.variant)
    job = msgspec.structs.replace(
        situation.job,
        rate=rate,
        slow_share=0.0 if control else share,
        slow_case="" if control else situation.job.slow_case,
    )
    return replace(situation, job=job)
