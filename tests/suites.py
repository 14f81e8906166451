"""Runs of the side-by-side benchmark made by hand, for the tests of its report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from tensorwire.bench.environment import Environment
from tensorwire.bench.histogram import encode
from tensorwire.bench.recorder import Measurement
from tensorwire.bench.suite.results import Axis, Point, ScenarioInfo, Settings, Suite

FUSED, UNFUSED, GRPC, CPP = "tensorwire fused", "tensorwire unfused", "grpc.aio", "gRPC C++ callback"


def measured(throughput: float = 1000.0, *, p99: float = 0.002, **others: Any) -> Measurement:
    fields: dict[str, Any] = {
        "requests": int(throughput),
        "seconds": 1.0,
        "throughput": throughput,
        "p50": p99 / 2,
        "p90": p99 * 0.9,
        "p99": p99,
        "p999": p99 * 2,
        "max": p99 * 3,
        "errors": {},
        "server_cpu_per_request": 1e-5,
        "client_cpu_per_request": 2e-5,
        "other_cores": 0.0,
    }
    return Measurement(**(fields | others))


def rounds(throughput: float, count: int = 3, **others: Any) -> list[Measurement]:
    """With a spread of one in a hundred."""
    return [measured(throughput * (1 + 0.01 * (index - count // 2)), **others) for index in range(count)]


def point(system: str, throughput: float, x: float = 64, *, scenario: str = "A", **others: Any) -> Point:
    fields = {"label": f"{x:g} B", "callers": 50, "rounds": rounds(throughput)}
    return Point(**({"scenario": scenario, "system": system, "x": x} | fields | others))


def info(key: str = "A", *systems: str, **others: Any) -> ScenarioInfo:
    fields: dict[str, Any] = {
        "title": f"title of {key}",
        "question": "How fast?",
        "method": "Closed loop.",
        "axis": Axis(name="request size", unit="bytes"),
        "figure": "throughput",
        "systems": systems or (FUSED, UNFUSED, GRPC, CPP),
    }
    return ScenarioInfo(key=key, **(fields | others))


@cache
def environment() -> Environment:
    return Environment.read()


def suite(points: Sequence[Point], scenarios: Sequence[ScenarioInfo] | None = None, **others: Any) -> Suite:
    fields: dict[str, Any] = {
        "environment": environment(),
        "settings": Settings(rounds=3, warmup=0.1, duration=1.0),
        "scenarios": [info()] if scenarios is None else list(scenarios),
        "points": list(points),
    }
    return Suite(**(fields | others))


def histogram() -> str:
    return encode(np.linspace(1e-4, 5e-3, 2000))
