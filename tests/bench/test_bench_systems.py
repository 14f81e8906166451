"""Every system under test: its real server and its own client where it can run, else the reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from tensorwire.bench.load import Job
from tensorwire.bench.load_clients import open_clients
from tensorwire.bench.models import CASE_OF_NAME, OUTPUT, SIZED_REPLY, build_repository, sized
from tensorwire.bench.processes import ChildError
from tensorwire.bench.servers import SERVERS, Server, start_server
from tensorwire.bench.systems import (
    CPP_ASYNC,
    CPP_CALLBACK,
    CPP_CHANNELS,
    FRONT_ENDS,
    FUSED,
    GRPC,
    GRPC_CHANNELS,
    GRPC_ECHO,
    GRPC_THREADS,
    PROCESSES,
    RPC_ECHO,
    SYSTEMS,
    THREADS,
    THRIFT,
    THRIFT_CPP,
    TRITON,
    UNFUSED,
    System,
    ceiling_of,
    options_of,
    unavailable,
)

CASE = CASE_OF_NAME["64 B"]
COMPARED = (
    FUSED,
    UNFUSED,
    THREADS,
    PROCESSES,
    FRONT_ENDS,
    GRPC,
    GRPC_CHANNELS,
    GRPC_THREADS,
    TRITON,
    THRIFT,
    RPC_ECHO,
    GRPC_ECHO,
)
#: Nobody has to wait whether the models change; batches may leave the event loop.
FLAGS = {
    "tensorwire": ("--settle-time", "0"),
    "tensorwire processes": ("--settle-time", "0"),
    "tensorwire front ends": ("--settle-time", "0"),
    "grpc": ("--executor", "2"),
}
NATIVE = (CPP_CALLBACK, CPP_ASYNC, CPP_CHANNELS, THRIFT_CPP)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_repository(tmp_path_factory.mktemp("models"))


@contextmanager
def running(name: str, repository: Path, logs: Path) -> Generator[Server]:
    if reason := unavailable(name):
        pytest.skip(f"{name}: {reason}")
    with start_server(SYSTEMS[name].server, repository, logs, FLAGS.get(SYSTEMS[name].server, ())) as server:
        yield server


def answer(system: System, server: Server) -> np.ndarray:
    inputs = CASE.inputs(1)[0]
    if not system.asynchronous:
        with system.open_sync(server.address) as client:
            return client.caller(CASE, inputs)()[OUTPUT]

    async def call() -> np.ndarray:
        async with system.open_async(server.address) as client:
            return (await client.caller(CASE, inputs)())[OUTPUT]

    return asyncio.run(call())


@pytest.mark.parametrize("server_key", dict.fromkeys(SYSTEMS[name].server for name in COMPARED))
def test_systems_answer_and_leave_nothing_behind(server_key: str, repository: Path, tmp_path: Path) -> None:
    names = [name for name in COMPARED if SYSTEMS[name].server == server_key]
    inputs = CASE.inputs(1)[0]
    with running(names[0], repository, tmp_path) as server:
        assert psutil.pid_exists(server.pid)
        for system in map(SYSTEMS.__getitem__, names):
            output = answer(system, server)
            if system.verified:
                CASE.verify(inputs, output)
            else:
                assert output.tobytes() == inputs.tobytes()[:SIZED_REPLY]
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize("name", NATIVE)
def test_a_native_system_measures_closed_and_open_loops(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path, tmp_path) as server, open_clients(name, server, 2, tmp_path) as clients:
        closed = Job(case=sized(1024).name, concurrency=4, warmup=0.05, duration=0.1)
        measured = clients.measure(closed, 2)
        assert measured.requests > 4
        assert measured.errors == {}
        assert measured.max >= measured.p99 >= measured.p50 > 0
        assert measured.histogram
        assert min(measured.server_rss, measured.client_rss) > 1 << 20
        measured = clients.measure(
            Job(case="64 B", concurrency=8, warmup=0.05, duration=0.2, arrivals="fixed", rate=500.0), 1
        )
        assert measured.errors == {}
        assert measured.offered == 500
        assert 0 < measured.requests <= 126  # what was due in warm-up and measured part
        with pytest.raises(ValueError, match="3 client processes"):
            clients.measure(closed, 3)
    assert not psutil.Process().children(recursive=True)


def test_calls_that_come_too_early_for_their_callers_wait_with_their_clock_running(tmp_path: Path) -> None:
    job = Job(case=sized(1 << 20).name, concurrency=1, warmup=0.0, duration=0.2, arrivals="fixed", rate=1e5)
    with running(CPP_CALLBACK, tmp_path, tmp_path) as server:
        measured = open_clients(CPP_CALLBACK, server, 1, tmp_path)
        with measured as clients:
            found = clients.measure(job, 1)
    assert found.unsent > found.requests
    assert found.max > 0.1
    assert found.throughput < 1e5


def test_a_native_system_tells_of_a_server_that_is_gone(tmp_path: Path) -> None:
    with running(THRIFT_CPP, tmp_path, tmp_path) as server:
        clients = open_clients(THRIFT_CPP, server, 1, tmp_path)
    job = Job(case="64 B", concurrency=1, warmup=0.0, duration=0.05)
    with clients as gone, pytest.raises(ChildError, match="cannot connect"):
        gone.measure(job, 1)


def test_a_grpc_server_with_a_limit_refuses_what_comes_beyond(repository: Path, tmp_path: Path) -> None:
    limited = start_server("grpc", repository, tmp_path, ("--max-concurrent-rpcs", "1"))
    with limited as server, open_clients(GRPC, server, 1, tmp_path) as clients:
        measured = clients.measure(Job(case="64 B", concurrency=8, warmup=0.0, duration=0.1), 1)
    assert measured.requests > 0
    assert measured.refused == measured.errors["RESOURCE_EXHAUSTED"] > 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_complete(name: str) -> None:
    system = SYSTEMS[name]
    assert system.name == name
    assert system.server in SERVERS
    assert isinstance(unavailable(name), str)
    assert not (system.native and ceiling_of(name))
    if name in (*COMPARED, *NATIVE):
        assert options_of(name)


def test_a_missing_module_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = System("x", "echo", ".echo:open_client", modules=("no_such_module", "no_such.part", "json"))
    monkeypatch.setitem(SYSTEMS, "x", missing)
    assert unavailable("x") == "not installed: no_such_module, no_such.part (pip install 'tensorwire[bench]')"
