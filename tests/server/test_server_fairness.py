"""Shares of the cores: who is limited, to what, and when not."""

from __future__ import annotations

import math

import pytest
from bundles import part, signature
from desk import surroundings
from fake_engine import FakeServable
from tensorwire.manager import ServableHandle
from tensorwire.manager.config import ModelConfig, WorkersConfig
from tensorwire.server.fairness import IN_USE, CoreShares
from tensorwire.server.runtime import VersionRuntime
from tensorwire.server.scheduler import BatchPolicy, Scheduler

X = signature(("x", "float32", (2,)))


def runtime(active_at: float = 0.0, workers: int = 8, cpus: str | None = None) -> VersionRuntime:
    config = ModelConfig(workers=WorkersConfig(count=workers, cpus=cpus))
    handle = ServableHandle("m", 1, FakeServable("m", 1), config)
    made = VersionRuntime(handle, surroundings(), 0.0)
    made.active_at = active_at
    return made


@pytest.mark.parametrize(("others", "limit"), [(0, math.inf), (1, 4), (2, 2), (3, 2), (7, 1), (20, 1)])
def test_the_cores_are_shared_by_those_in_use(others: int, limit: float) -> None:
    flooded = runtime()
    everyone = [flooded, *(runtime() for _ in range(others))]
    assert CoreShares(8).limit(flooded, everyone, 0.1) == limit


def test_who_was_not_called_for_a_while_leaves_his_share() -> None:
    flooded, quiet = runtime(active_at=10.0), runtime(active_at=9.9)
    shares = CoreShares(2)
    assert shares.limit(flooded, [flooded, quiet], 10.0) == 1
    flooded.active_at = 9.9 + IN_USE
    assert shares.limit(flooded, [flooded, quiet], 9.9 + IN_USE) == math.inf


def test_cores_of_ones_own_are_not_shared() -> None:
    flooded = runtime(cpus="0-3")
    assert CoreShares(8).limit(flooded, [flooded, runtime()], 0.0) == math.inf


def test_one_worker_is_no_flood() -> None:
    flooded = runtime(workers=1)
    assert CoreShares(8).limit(flooded, [flooded, runtime()], 0.0) == math.inf


def test_the_scheduler_keeps_the_limit_and_says_when_it_holds_back() -> None:
    scheduler = Scheduler(BatchPolicy(1))
    for worker in (1, 2, 3):
        scheduler.worker_idle(worker)
    scheduler.limit = 2
    for number in (1, 2, 3):
        scheduler.add(part(number, of=X), "key", 0.0)
    assert len(scheduler.decide(0.0).runs) == 2
    assert scheduler.held_back
    assert scheduler.decide(0.0).runs == []
    scheduler.worker_idle(3)
    assert len(scheduler.decide(0.0).runs) == 1
    assert not scheduler.held_back
    scheduler.add(part(4, of=X), "key", 0.0)
    scheduler.limit = 3
    assert len(scheduler.decide(0.0).runs) == 1
