"""What each system can do at most, measured before a scenario that goes by it."""

from __future__ import annotations

from collections.abc import Mapping

from ..load import Job
from ..processes import ChildError
from .scenario import Stage


def capacities(stage: Stage, job: Job, processes: int = 1) -> dict[str, float]:
    """System -> answers a second in a closed loop, twice and the lower one; who fails is given up."""
    found: dict[str, float] = {}
    for system in stage.systems:
        try:
            rates = [stage.measure(system, job, processes).throughput for _ in range(2)]
        except ChildError as error:
            stage.lose(system, str(error))
            continue
        if min(rates) > 0:
            found[system] = min(rates)
        else:
            stage.lose(system, "no call was answered when the capacity was measured")
    return found


def slowest(found: Mapping[str, float]) -> tuple[str, float]:
    """The system with the least capacity, and that."""
    return min(found.items(), key=lambda item: item[1])
