"""Cores and priorities of worker processes; what the kernel would refuse is acted out."""

from __future__ import annotations

import os
import threading

import pytest
from tensorwire.manager.config import EngineConfig, WorkersConfig
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.server.processes import priority
from tensorwire.server.processes.priority import lower_priority, may_raise, on_cpus


class Kernel:
    """Priorities of threads. ``strict``: lowering cannot be taken back."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.of: dict[int, int] = {}

    def get(self, task: int) -> int:
        return self.of.get(task or threading.get_native_id(), 0)

    def set(self, task: int, value: int) -> bool:
        if self.strict and value < self.get(task):
            return False
        self.of[task or threading.get_native_id()] = value
        return True


@pytest.fixture
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(strict=request.param)
    monkeypatch.setattr(priority, "_get", kernel.get)
    monkeypatch.setattr(priority, "_set", kernel.set)
    return kernel


@pytest.mark.parametrize("kernel", [True, False], indirect=True)
def test_whether_it_may_be_taken_back_is_tried(kernel: Kernel) -> None:
    assert may_raise() is not kernel.strict


@pytest.mark.parametrize(
    ("kernel", "threads", "during", "after"),
    [(False, 1, 10, 0), (False, 4, 10, 0), (True, 1, 10, 10), (True, 4, 0, 0)],
    indirect=["kernel"],
)
def test_loads_are_lowered_where_their_threads_do_not_stay_so(
    kernel: Kernel, threads: int, during: int, after: int
) -> None:
    with lower_priority(EngineConfig(intra_op_threads=threads)):
        assert kernel.get(0) == during
    assert kernel.get(0) == after


def test_cores_are_those_of_what_is_started_meanwhile() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with on_cpus(WorkersConfig(cpus=str(core))):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
    with on_cpus(WorkersConfig()):
        assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("cpus", ["0,4000", "9999"])
def test_cores_that_are_not_there(cpus: str) -> None:
    before = os.sched_getaffinity(0)
    with (
        pytest.raises(InvalidArgumentError, match="cores that are there: 0"),
        on_cpus(WorkersConfig(cpus=cpus)),
    ):
        pass
    assert os.sched_getaffinity(0) == before
