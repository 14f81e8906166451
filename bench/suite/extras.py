"""Beside the scenarios: what the load generator itself can do, and network and computing apart.

Both are run as the scenarios are, with rounds that take turns, in a book of their own.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ...client import Client
from ..load import Job
from ..models import case_of, sized
from ..systems import FUSED, GRPC, GRPC_ECHO, NULL, NULL_THREADS, RPC_ECHO, ceiling_of
from .engine import Asked, ask, engine
from .figures import FEWEST_CALLERS
from .results import Ceiling, Point, ScenarioInfo, Split
from .scenario import Scenario, Situation, category

#: Keys of these two, which are no scenarios of the report.
CEILINGS: Final = "ceilings"
SPLITS: Final = "splits"
_SMALL: Final = sized(1024).name
_IMAGE: Final = "602,112 B"
_CALLERS: Final = 50
_COMMAND_SECONDS: Final = 10.0
_ENGINE_SECONDS: Final = 0.3
#: Server with a model -> the same RPC layer with an echo behind it.
_ECHO_OF: Final = {FUSED: RPC_ECHO, GRPC: GRPC_ECHO}
#: Last words of the gRPC server: model -> rows, batches.
_BATCHES: Final = re.compile(r"^batches: (\{.*\})$", re.MULTILINE)


def _info(key: str, systems: tuple[str, ...]) -> ScenarioInfo:
    return ScenarioInfo(
        key=key, title=key, question="", method="", axis=category(key), figure="throughput", systems=systems
    )


def beside(scenarios: Sequence[Scenario], *, apart: bool) -> list[Scenario]:
    """What is measured beside scenarios; its results are no points.

    Args:
        apart: network and computing apart as well, not only what the load generator can do.
    """
    ceilings = _ceilings(scenarios)
    return [*([ceilings] if ceilings is not None else []), *([splits()] if apart else [])]


def _ceilings(scenarios: Sequence[Scenario]) -> Scenario | None:
    """The null systems with the numbers of callers that scenarios have in closed loops, one process each.

    Few callers wait for each other, and the machine for them: that is no ceiling of the generator.
    """
    callers = {
        situation.job.concurrency
        for scenario in scenarios
        for situation in scenario.situations
        if situation.job.arrivals == "closed" and situation.processes == 1
        if situation.job.concurrency >= FEWEST_CALLERS
    }
    if not callers:
        return None
    situations = tuple(
        Situation(count, str(count), Job(case=_SMALL, concurrency=count, warmup=0.0, duration=0.0))
        for count in sorted(callers)
    )
    return Scenario(info=_info(CEILINGS, (NULL, NULL_THREADS)), situations=situations)


def found_ceilings(points: Sequence[Point], systems: Sequence[str]) -> list[Ceiling]:
    """What the null systems reached, for the systems that are held against them."""
    return [
        Ceiling(
            client=point.system,
            systems=tuple(system for system in systems if ceiling_of(system) == point.system),
            concurrency=int(point.x),
            throughput=statistics.median(rates),
            low=min(rates),
            high=max(rates),
        )
        for point in points
        if (rates := [measurement.throughput for measurement in point.rounds])
    ]


def splits() -> Scenario:
    """Systems with a model and with an echo behind the same RPC layer."""
    situations = (
        Situation(0, "1 KiB", Job(case=_SMALL, concurrency=_CALLERS, warmup=0.0, duration=0.0)),
        Situation(1, "image", Job(case=_IMAGE, concurrency=_CALLERS, warmup=0.0, duration=0.0), length=2.0),
    )
    systems = tuple(system for pair in _ECHO_OF.items() for system in pair)
    return Scenario(info=_info(SPLITS, systems), situations=situations)


def tensorwire_batches(address: str) -> dict[str, float]:
    """Model -> rows of its batches, on average since the server started."""
    with Client(address, timeout=_COMMAND_SECONDS) as client:
        stats: dict[str, Any] = client.control("stats")
    return {each["model"]: each["rows"] / each["batches"] for each in stats["versions"] if each["batches"]}


def grpc_batches(logs: Path) -> dict[str, float]:
    """The same, as the gRPC server in Python writes it down when it ends."""
    found = _BATCHES.findall((logs / "grpc-server.log").read_text(errors="replace"))
    counted: dict[str, tuple[int, int]] = json.loads(found[-1]) if found else {}
    return {model: rows / batches for model, (rows, batches) in counted.items() if batches}


def found_splits(
    points: Sequence[Point], batches: Mapping[str, Mapping[str, float]], repository: Path, logs: Path
) -> list[Split]:
    """What follows from the rounds, with the engine measured alone.

    Args:
        batches: system -> model -> rows of a batch.
        repository: with the models that were called.

    Raises:
        ChildError: the engine could not be measured.
    """
    rates = {
        (point.system, point.x): statistics.median(measurement.throughput for measurement in point.rounds)
        for point in points
        if point.rounds
    }
    found: list[Split] = []
    with engine(repository, logs) as child:
        for situation in splits().situations:
            for system, echo in _ECHO_OF.items():
                rows = batches.get(system, {}).get(case_of(situation.job.case).model)
                both, rpc = (rates.get((name, situation.x), 0.0) for name in (system, echo))
                if rows is None or not both or not rpc:
                    continue
                asked = Asked(case=situation.job.case, requests=max(1, round(rows)), seconds=_ENGINE_SECONDS)
                found.append(_split(system, situation, rows, 1 / rpc, ask(child, asked), 1 / both))
    return found


def _split(
    system: str, situation: Situation, rows: float, rpc: float, computing: float, both: float
) -> Split:
    return Split(
        system=system,
        concurrency=situation.job.concurrency,
        rpc=rpc,
        engine=computing,
        both=both,
        predicted=rpc + computing,
        request=situation.label,
        batch=rows,
    )
