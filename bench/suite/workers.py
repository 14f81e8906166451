"""Worker counts (I): what an operator tunes, changed on the live server."""

from __future__ import annotations

import time
from typing import Any, Final

from ...client import Client
from ..environment import cores as cores_here
from ..load import Job
from ..models import case_of
from ..processes import ChildError
from ..recorder import Measurement
from .scenario import Course, Situation, Stage

_COMMAND_SECONDS: Final = 10.0
#: Workers, processes above all, take a while to come.
_EFFECT_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02


def worker_counts(cores: int | None = None) -> list[int]:
    """From one to twice the cores, each count up to four, then doubled.

    Args:
        cores: None: those of this machine.
    """
    most = 2 * (cores or cores_here())
    small = [count for count in (1, 2, 3, 4) if count <= most]
    doubled = [2**power for power in range(3, 11) if 2**power < most]
    return sorted({*small, *doubled, most})


class WorkersCourse(Course):
    """Sets the count before each turn."""

    def measure(self, stage: Stage, system: str, situation: Situation, job: Job) -> Measurement:
        """With ``situation.x`` workers.

        Raises:
            ChildError: the server did not take the count, or the workers did not come.
        """
        count, model = int(situation.x), case_of(job.case).model
        with Client(stage.address(system), timeout=_COMMAND_SECONDS) as client:
            client.control("models.set", {"model": model, "values": {"workers.count": count}, "reset": []})
            # Workers come with the requests.
            stage.measure(system, _short(job), situation.processes)
            _await(client, model, count)
        return stage.measure(system, job, situation.processes)


def _short(job: Job) -> Job:
    """A short load that has the workers come."""
    return Job(case=job.case, concurrency=job.concurrency, warmup=0.0, duration=0.1)


def _await(client: Client, model: str, count: int) -> None:
    until = time.monotonic() + _EFFECT_SECONDS
    while _present(client, model) != count:
        if time.monotonic() > until:
            raise ChildError(
                f"{model}: {count} workers were asked for and {_present(client, model)} are there"
            )
        time.sleep(_LOOK_SECONDS)


def _present(client: Client, model: str) -> int:
    stats: dict[str, Any] = client.control("stats")
    return sum(version["workers"] for version in stats["versions"] if version["model"] == model)
