"""Which cores a worker process computes on, and loading with less priority than what serves beside it.

Linux keeps a priority for each thread. A thread inherits that of the one that starts it, so what an engine
starts while it loads has to be given its own back, which not every user may do.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from ...manager.config import EngineConfig, WorkersConfig, parse_cpus
from ...manager.decode import bad_value

#: What is added to the priority number of a load: computing beside it gets nine tenths of a core.
_LOWER: Final = 10


@contextlib.contextmanager
def on_cpus(workers: WorkersConfig) -> Generator[None, None, None]:
    """Processes that this thread starts meanwhile compute on ``workers.cpus`` only, with all their threads.

    Set before they start, not by them: NumPy's threads are there once it is imported, one for each core.

    Raises:
        InvalidArgumentError: one of the cores is not there, or not for this process.
    """
    if workers.cpus is None:
        yield
        return
    wanted = set(parse_cpus(workers.cpus))
    before = os.sched_getaffinity(0)
    try:
        if not _pin(wanted):
            raise bad_value("workers.cpus", workers.cpus, f"cores that are there: {_cpus_there()}")
        yield
    finally:
        _pin(before)


def _pin(cpus: set[int]) -> bool:
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError):
        return False
    return os.sched_getaffinity(0) == cpus


def _cpus_there() -> str:
    try:
        return Path("/sys/devices/system/cpu/online").read_text().strip()
    except OSError:
        return ",".join(map(str, sorted(os.sched_getaffinity(0))))


@contextlib.contextmanager
def lower_priority(engine: EngineConfig) -> Generator[None, None, None]:
    """Run a load in this thread with less priority; then the whole process has the normal one.

    Where that could not be given back and the engine starts threads that go on computing, nothing is lowered.
    """
    several = max(engine.intra_op_threads or 1, engine.inter_op_threads or 1) > 1
    if several and not may_raise():
        yield
        return
    normal = _get(0)
    _set(0, normal + _LOWER)
    try:
        yield
    finally:
        for task in os.listdir("/proc/self/task"):
            _set(int(task), normal)


def may_raise() -> bool:
    """Whether a thread of this process may take back that it has lowered its priority: tried with one."""
    allowed: list[bool] = []

    def attempt() -> None:
        normal = _get(0)
        allowed.append(_set(0, normal + 1) and _set(0, normal))

    _in_thread(attempt)
    return allowed == [True]


def _in_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function, name="priority")
    thread.start()
    thread.join()


def _get(task: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, task)


def _set(task: int, priority: int) -> bool:
    """Whether it was done. Not where it is not permitted, or the thread has ended meanwhile."""
    try:
        os.setpriority(os.PRIO_PROCESS, task, priority)
    except OSError:
        return False
    return True
