"""Hot swap (G): versions are put into the repository while calls go on at a constant rate."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from ..load import Job
from ..models import case_of
from ..recorder import Measurement
from .capacity import capacities, slowest
from .models import swapped_content
from .scenario import Beginning, Course, Situation, Stage

_FILE: Final = "model.onnx"
_MANIFEST: Final = "MANIFEST.sha256"
_DURING: Final = "during"
_PHASES: Final = ("before", _DURING, "after")
#: Swaps take time: the managers look once a second.
_LONGER: Final = 2.0
#: Seconds until a manager has looked once more, and the last version has replaced the one before.
_REST: Final = 1.5
_OF_CAPACITY: Final = 0.5
#: Calls a second at most: enough for a percentile, and no system is near its limit.
_MOST: Final = 1000.0
_CALLERS: Final = 32
_IN_FLIGHT: Final = 1024
#: Seconds between two versions.
_INTERVAL: Final = 0.5
#: Versions that stay on disk: the one that serves, the one that comes, and those between two looks.
_KEPT: Final = 6
_PHASES_NOTE: Final = (
    "Before and after: no swap is going on; from the second round on, before comes after the swaps of the "
    f"round before. After the swaps of each system nothing is measured for {_REST:g} s, so that its last one "
    "is over when the next system has its turn."
)


class Publisher:
    """Puts version after version of one model into a repository, each complete, by a rename."""

    def __init__(self, model: Path, content: bytes) -> None:
        self.published = 0
        self._model = model
        self._content = content
        self._manifest = f"{hashlib.sha256(content).hexdigest()}  {_FILE}\n"

    def publish(self) -> None:
        """One more version than there was; the oldest are deleted."""
        versions = sorted(int(entry.name) for entry in self._model.iterdir() if entry.name.isdigit())
        staged = self._model / f".staged-{versions[-1] + 1}"
        staged.mkdir()
        (staged / _FILE).write_bytes(self._content)
        # With a manifest the manager need not wait two seconds to see whether the file still grows.
        (staged / _MANIFEST).write_text(self._manifest)
        staged.rename(self._model / str(versions[-1] + 1))
        self.published += 1
        for version in versions[: -(_KEPT - 1)]:
            shutil.rmtree(self._model / str(version))

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Publish every half second until the block ends; what fails in doing so, is raised there."""
        done = threading.Event()
        failed: list[Exception] = []

        def work() -> None:
            try:
                while not done.is_set():
                    self.publish()
                    done.wait(_INTERVAL)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="bench-publisher")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if failed:
            raise failed[0]


class SwapCourse(Course):
    """Measures before, during and after the swaps, at one rate for all systems."""

    def __init__(self) -> None:
        self._content = b""

    @staticmethod
    def situations(case: str) -> tuple[Situation, ...]:
        """The phases."""
        job = Job(case=case, concurrency=_IN_FLIGHT, warmup=0.0, duration=0.0, arrivals="poisson")
        return tuple(
            Situation(x, phase, job, length=_LONGER, rest=_REST)
            if phase == _DURING
            else Situation(x, phase, job)
            for x, phase in enumerate(_PHASES)
        )

    def begin(self, stage: Stage, situations: tuple[Situation, ...]) -> Beginning:
        """Find a rate that every system sustains."""
        self._content = swapped_content()
        job = situations[0].job
        closed = Job(case=job.case, concurrency=_CALLERS, warmup=0.1, duration=0.3)
        found = capacities(stage, closed)
        if not found:
            return Beginning(())
        system, least = slowest(found)
        rate = min(_OF_CAPACITY * least, _MOST)
        note = (
            f"Rate {rate:,.0f}/s: {_OF_CAPACITY:.0%} of the capacity of the slowest system ({system}, "
            f"{least:,.0f}/s), at most {_MOST:,.0f}/s."
        )
        return Beginning(
            tuple(replace(each, job=msgspec.structs.replace(each.job, rate=rate)) for each in situations),
            (note, _PHASES_NOTE),
        )

    def measure(self, stage: Stage, system: str, situation: Situation, job: Job) -> Measurement:
        """With versions coming meanwhile, in that phase, and a rest after them."""
        if situation.label != _DURING:
            return stage.measure(system, job, situation.processes)
        model = Path(stage.repository(system), case_of(job.case).model)
        try:
            with Publisher(model, self._content).at_work():
                return stage.measure(system, job, situation.processes)
        finally:
            time.sleep(situation.rest)
