"""Clients that are programs of their own: what they are asked, and what becomes of what they write."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from tensorwire.bench.load import Job
from tensorwire.bench.peers.native import Found, Load, loads
from tensorwire.bench.processes import ChildError
from tensorwire.bench.recorder import CpuUse, merge

#: As a client writes it.
LINE = (
    b'{"counted":3,"late":1,"calls":9,"answered":3,"unsent":0,"seconds":0.5,"cpu_seconds":0.003,"rss":1048576,'
    b'"errors":{"14: gone":2,"14: refused":1,"wrong answer":1}}'
)


def test_the_command_line_has_every_setting() -> None:
    load = Load(in_flight=32, channels=3, nbytes=128, warmup=0.1, duration=0.5, arrivals="fixed", rate=50.0)
    arguments = load.arguments("127.0.0.1:1", Path("samples"))
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
        "--address": "127.0.0.1:1",
        "--in-flight": "32",
        "--channels": "3",
        "--bytes": "128",
        "--model": "matmul16",
        "--reply": "128",
        "--warmup": "0.1",
        "--duration": "0.5",
        "--timeout": "10.0",
        "--arrivals": "fixed",
        "--rate": "50.0",
        "--phase": "0.0",
        "--seed": "0",
        "--samples": "samples",
    }


def test_what_a_client_writes_becomes_samples() -> None:
    found = msgspec.json.decode(LINE, type=Found)
    latencies = np.array([0.001, 0.003, 0.002, 0.5]).tobytes()
    samples = found.samples(latencies, CpuUse(server=0.3, client=0.003, others=0.1))
    assert samples.errors == {"UNAVAILABLE": 3, "wrong answer": 1}
    measurement = merge([samples])
    assert measurement.requests == 3
    assert measurement.throughput == 6
    assert (measurement.p50, measurement.p99, measurement.max) == (0.002, 0.003, 0.5)
    assert measurement.client_cpu_per_request == pytest.approx(0.001)


def test_processes_share_callers_and_rate() -> None:
    job = Job(
        case="sized:1024",
        concurrency=5,
        warmup=0.1,
        duration=1.0,
        arrivals="poisson",
        rate=300.0,
        timeout=2.0,
    )
    parts = loads(job, 3)
    assert [part.in_flight for part in parts] == [2, 2, 1]
    assert {part.rate for part in parts} == {100.0}
    assert len({part.seed for part in parts}) == 3
    assert {(part.model, part.nbytes, part.reply, part.timeout) for part in parts} == {
        ("head", 1024, 16, 2.0)
    }


def test_no_process_has_more_channels_than_callers() -> None:
    job = Job(case="64 B", concurrency=11, warmup=0.1, duration=1.0)
    assert [part.channels for part in loads(job, 2, channels=6)] == [6, 5]
    assert [part.channels for part in loads(job, 2)] == [1, 1]


def test_other_cases_come_back_whole() -> None:
    (part,) = loads(Job(case="4 KiB", concurrency=1, warmup=0.1, duration=1.0), 1)
    assert (part.model, part.nbytes, part.reply) == ("vector1024", 4096, 0)


def test_an_echo_has_nothing_slow() -> None:
    job = Job(case="64 B", concurrency=1, warmup=0.1, duration=1.0, slow_share=0.01, slow_case="64 B")
    with pytest.raises(ChildError, match="slow"):
        loads(job, 1)
