"""Open loops: every call that is due is accounted for, from when it was due; a stall of a server shows."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorwire.bench import histogram, load
from tensorwire.bench.arrivals import due_times
from tensorwire.bench.calls import Calls
from tensorwire.bench.clients import Clients
from tensorwire.bench.load import Job, verify_async, verify_sync
from tensorwire.bench.meters import CpuMeter
from tensorwire.bench.models import build_repository
from tensorwire.bench.open_load import OpenLoop, open_threads
from tensorwire.bench.peers.tensorwire_client import open_fused, open_sync
from tensorwire.bench.recorder import Samples, latencies, merge
from tensorwire.bench.servers import Server, start_server
from tensorwire.bench.systems import NULL, NULL_LOOP, NULL_THREADS

STALL = 0.5


class Failed(Exception):
    """A call that fails; its message is its code."""


def code_of(error: Exception) -> str:
    return str(error)


def every(rate: float) -> Callable[[float], Iterator[float]]:
    return lambda begin: due_times("fixed", rate, begin)


def run_async(calls: Calls[Any], rate: float, limit: int, warmup: float, duration: float) -> Samples:
    async def run() -> Samples:
        return await OpenLoop(calls, every(rate), limit).run(warmup, duration, CpuMeter(os.getpid()))

    return asyncio.run(run())


def run_threads(calls: Calls[Any], rate: float, limit: int, warmup: float, duration: float) -> Samples:
    return open_threads(calls, every(rate), limit, warmup, duration, CpuMeter(os.getpid()))


class Counting:
    """A call of both kinds that counts itself."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.in_flight = self.most = self.begun = 0
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()

    def begin(self) -> None:
        with self.lock:
            self.begun += 1
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)

    def end(self) -> None:
        with self.lock:
            self.in_flight -= 1

    async def later(self) -> None:
        self.begin()
        await asyncio.sleep(self.seconds)
        self.end()

    def block(self) -> None:
        self.begin()
        time.sleep(self.seconds)
        self.end()


RUNS = pytest.mark.parametrize("kind", ["async", "threads"])


def run(kind: str, call: Counting, rate: float, limit: int, duration: float, **more: Any) -> Samples:
    if kind == "async":
        return run_async(Calls([call.later], code_of, **more), rate, limit, 0.05, duration)
    return run_threads(Calls([call.block], code_of, **more), rate, limit, 0.05, duration)


@RUNS
def test_calls_that_find_no_place_wait_with_their_clock_running(kind: str) -> None:
    call = Counting(0.02)
    samples = run(kind, call, rate=1000, limit=2, duration=0.2)
    assert call.most == 2
    assert call.in_flight == 0
    found = merge([samples])
    # 1000 a second are due, and two places answer 100 at most.
    assert found.unsent > 100
    assert found.requests < 40
    assert found.p50 > 0.05
    assert len(latencies([samples])) == round(samples.offered * 0.2)


@RUNS
def test_what_is_due_in_the_warm_up_does_not_count(kind: str) -> None:
    call = Counting()
    samples = run(kind, call, rate=400, limit=8, duration=0.1)
    due = round(samples.offered * 0.1)
    assert due in (39, 40, 41)
    assert len(latencies([samples])) == due
    assert call.begun + samples.unsent - due in (19, 20, 21)


@RUNS
def test_failures_count_by_code_and_only_refusals_are_timed(kind: str) -> None:
    codes = itertools.cycle(["RESOURCE_EXHAUSTED", "INTERNAL", ""])

    def fail() -> None:
        if code := next(codes):
            raise Failed(code)

    async def fail_later() -> None:
        await asyncio.sleep(0)
        fail()

    if kind == "async":
        samples = run_async(Calls([fail_later], code_of), 500, 4, 0.0, 0.1)
    else:
        samples = run_threads(Calls([fail], code_of), 500, 4, 0.0, 0.1)
    found = merge([samples])
    assert set(found.errors) == {"RESOURCE_EXHAUSTED", "INTERNAL"}
    assert found.refused == found.errors["RESOURCE_EXHAUSTED"] > 0
    assert 0 < found.refused_p50 <= found.refused_p99
    failed = sum(found.errors.values())
    assert failed + len(latencies([samples])) == round(samples.offered * 0.1)


@pytest.mark.parametrize("blocking", [False, True])
def test_answers_that_come_too_late_for_who_asked_have_failed(blocking: bool) -> None:
    class Late:
        """Answers after the calls behind it have waited for longer than they have."""

        code_of = staticmethod(code_of)

        def caller(self, *_: Any) -> Any:
            call = Counting(0.02)
            return call.block if blocking else call.later

    job = Job(case="64 B", concurrency=1, warmup=0.0, duration=0.2, arrivals="fixed", rate=1000, timeout=0.05)
    system: Any = Late()
    meter = CpuMeter(os.getpid())
    samples = (
        load.run_sync(system, job, meter) if blocking else asyncio.run(load.run_async(system, job, meter))
    )
    found = merge([samples])
    assert found.errors["DEADLINE_EXCEEDED"] > 0
    assert found.requests + found.errors["DEADLINE_EXCEEDED"] + found.unsent <= samples.offered * 0.2 + 1
    answered = len(latencies([samples])) - found.unsent
    assert found.requests <= answered <= 3  # the first ones


@RUNS
def test_slow_calls_are_answered_but_their_latency_is_left_out(kind: str) -> None:
    quick, slow = Counting(), Counting(0.05)
    more: dict[str, Any] = {"slow": [slow.later if kind == "async" else slow.block], "slow_share": 0.3}
    samples = run(kind, quick, rate=500, limit=64, duration=0.2, **more)
    found = merge([samples])
    assert found.slow > 0
    assert slow.begun > 10
    measured = latencies([samples])
    assert len(measured) < samples.offered * 0.2 - 10
    assert found.requests > len(measured)
    assert float(np.median(measured)) < 0.05


def test_slow_calls_that_nobody_named_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.0% of the calls"):
        Calls([object()], code_of, slow_share=0.01)


# ---------------------------------------------------------------- processes and servers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the models and the logs."""
    made = tmp_path_factory.mktemp("open-loop")
    build_repository(made / "models")
    return made


@contextmanager
def served(system: str, key: str, folder: Path, processes: int = 1) -> Generator[tuple[Server, Clients]]:
    with (
        start_server(key, folder / "models", folder) as server,
        Clients(system, server, processes, folder) as clients,
    ):
        yield server, clients


class Stalling:
    """A client whose n-th call finds the server stopped, for :data:`STALL` seconds."""

    def __init__(self, system: Any, pid: int, number: int) -> None:
        self.code_of = system.code_of
        self._system = system
        self._pid = pid
        self._numbers = itertools.count(1)
        self._number = number
        self._timer = threading.Timer(STALL, os.kill, (pid, signal.SIGCONT))

    def __enter__(self) -> Stalling:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._timer.ident is not None:
            self._timer.join()
        os.kill(self._pid, signal.SIGCONT)

    def caller(self, *arguments: Any) -> Any:
        """As the client's own."""
        call = self._system.caller(*arguments)

        def stalling() -> Any:
            if next(self._numbers) == self._number:
                os.kill(self._pid, signal.SIGSTOP)
                self._timer.start()
            return call()

        return stalling


def stalled(blocking: bool, server: Server, job: Job) -> Samples:
    """Measure, and stop the server after a while."""
    meter = CpuMeter(server.pid)
    if blocking:
        with open_sync(server.address) as client, Stalling(client, server.pid, 60) as system:
            verify_sync(client, job.cases()[0])
            return load.run_sync(system, job, meter)

    async def measure() -> Samples:
        async with open_fused(server.address) as client:
            await verify_async(client, job.cases()[0])
            with Stalling(client, server.pid, 60) as system:
                return await load.run_async(system, job, meter)

    return asyncio.run(measure())


@pytest.mark.parametrize("blocking", [False, True])
def test_a_stopped_server_shows_in_an_open_loop_and_not_in_a_closed_one(blocking: bool, folder: Path) -> None:
    few: dict[str, Any] = {"case": "64 B", "warmup": 0.05, "duration": 1.0}
    with start_server("tensorwire", folder / "models", folder) as server:
        open_ = stalled(blocking, server, Job(concurrency=4, arrivals="fixed", rate=200, **few))
        closed = stalled(blocking, server, Job(concurrency=1, **few))
    found = merge([open_])
    # Four in flight at most, and yet it shows: calls that were due meanwhile count from when they were due.
    assert found.p999 >= 0.4
    assert found.p99 >= 0.4
    assert found.errors == {}
    assert found.server_rss > 0 < found.client_rss
    assert sum(latencies([open_]) >= 0.4) >= 15
    # One caller has seen one long call in the same time: where nobody asks, nothing is late.
    assert sum(latencies([closed]) >= 0.4) <= 1


def test_several_processes_share_the_rate(folder: Path) -> None:
    with served(NULL, "echo", folder, processes=2) as (_, clients):
        fixed, poisson = (
            clients.measure(
                Job(case="64 B", concurrency=64, warmup=0.05, duration=0.3, arrivals=arrivals, rate=400), 2
            )
            for arrivals in ("fixed", "poisson")
        )
    assert histogram.quantiles(fixed.histogram, [1.0]) == pytest.approx([fixed.max], rel=2e-3)
    assert fixed.offered == pytest.approx(400, rel=0.1)
    assert poisson.offered == pytest.approx(400, rel=0.5)
    assert fixed.errors == poisson.errors == {}


@pytest.mark.parametrize(("system", "callers"), [(NULL, 16), (NULL_LOOP, 16), (NULL_THREADS, 4)])
def test_the_null_systems_tell_the_generator_s_own_ceiling(system: str, callers: int, folder: Path) -> None:
    with served(system, "echo", folder) as (_, clients):
        found = clients.measure(Job(case="64 B", concurrency=callers, warmup=0.02, duration=0.1), 1)
    assert found.requests > callers
    assert found.errors == {}
