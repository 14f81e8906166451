"""Overload (H): every system is asked for multiples of what it can do itself."""

from __future__ import annotations

from typing import Final

import msgspec

from ..load import Job
from ..recorder import Measurement
from .capacity import capacities
from .scenario import Beginning, Course, Situation, Stage

#: Seconds that a call has.
CALL_SECONDS: Final = 0.5
FACTORS: Final = (1, 2, 5)
#: Calls that the gRPC server has at the same time. At about a millisecond each for its one worker, the last
#: of them is answered after half of what a call has.
GRPC_LIMIT: Final = 256
_CALLERS: Final = 32
#: More than a server that refuses nothing holds back within the time of a call.
_IN_FLIGHT: Final = 8192


class OverloadCourse(Course):
    """Offers each system multiples of its own capacity."""

    def __init__(self) -> None:
        self._capacity: dict[str, float] = {}

    @staticmethod
    def situations(case: str) -> tuple[Situation, ...]:
        """The closed loop, and the multiples."""
        closed = Job(case=case, concurrency=_CALLERS, warmup=0.0, duration=0.0)
        opened = Job(
            case=case,
            concurrency=_IN_FLIGHT,
            warmup=0.0,
            duration=0.0,
            arrivals="poisson",
            timeout=CALL_SECONDS,
        )
        return (
            Situation(0, "capacity", closed),
            *(Situation(factor, f"{factor}x", opened) for factor in FACTORS),
        )

    def begin(self, stage: Stage, situations: tuple[Situation, ...]) -> Beginning:
        """Measure what each system can do."""
        job = msgspec.structs.replace(situations[0].job, warmup=0.2, duration=0.4)
        self._capacity = capacities(stage, job)
        told = ", ".join(f"{system} {rate:,.0f}/s" for system, rate in self._capacity.items())
        return Beginning(situations, (f"Capacity before the rounds: {told}.",))

    def measure(self, stage: Stage, system: str, situation: Situation, job: Job) -> Measurement:
        """At the multiple of the system's own capacity."""
        if situation.x:
            job = msgspec.structs.replace(job, rate=situation.x * self._capacity[system])
        return stage.measure(system, job, situation.processes)
