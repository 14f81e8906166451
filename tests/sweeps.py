"""Simulated servers for the tests of ``tensorwire tune``: a clock that moves when something is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorwire.bench.environment import Environment
from tensorwire.bench.recorder import Measurement
from tensorwire.bench.tune.choice import Measured, choose, lines, noise
from tensorwire.bench.tune.outcome import Outcome
from tensorwire.bench.tune.points import Point, Space
from tensorwire.bench.tune.search import Search
from tensorwire.bench.tune.session import Plan, Refused, Session

SPACE = Space.of(("thread", "process"), (1, 2, 4), (1, 2, 4, 8, 16, 32), (0.0, 0.001, 0.002))
PRESENT = Point("thread", 1, 32, 0.0)

#: Settings, callers -> throughput, p99 in seconds.
Surface = Callable[[Point, int], tuple[float, float]]


def measurement(
    throughput: float, p99: float, errors: dict[str, int] | None = None, **other: Any
) -> Measurement:
    values: dict[str, Any] = {
        "requests": int(throughput),
        "seconds": 1.0,
        "throughput": throughput,
        "p50": p99 / 2,
        "p90": p99 * 0.9,
        "p99": p99,
        "p999": p99,
        "max": p99,
        "errors": errors or {},
        "server_cpu_per_request": 1e-5,
        "client_cpu_per_request": 1e-5,
        "other_cores": 0.0,
        **other,
    }
    return Measurement(**values)


def queue(point: Point, callers: int) -> tuple[float, float]:
    """Workers that take 1 ms for a batch and 0.1 ms for each row; process workers are half as fast.

    The best is 4 threads with batches of 32 and no delay, however many callers there are.
    """
    rows = max(1, min(point.batch, callers / point.count))
    seconds = (0.001 + 0.0001 * rows + point.delay) * (2 if point.kind == "process" else 1)
    rate = min(point.count, callers) * rows / seconds
    return rate, max(seconds, callers / rate) * 1.2


class Simulated:
    """A site; what was asked of it is in ``applied`` and ``driven``."""

    def __init__(self, surface: Surface = queue, refused: Callable[[Point], str] = lambda _: "") -> None:
        self.now = 0.0
        self.applied: list[Point] = []
        self.driven: list[tuple[Point, int]] = []
        self.errors: Callable[[Point, int], dict[str, int]] = lambda point, callers: {}
        #: What the machine is worth at a time.
        self.speed: Callable[[float], float] = lambda now: 1.0
        self._surface = surface
        self._refused = refused
        self._point = PRESENT

    def clock(self) -> float:
        return self.now

    def apply(self, point: Point) -> None:
        self.now += 0.1
        why = self._refused(point)
        if why:
            raise Refused(why)
        self._point = point
        self.applied.append(point)

    def measure(self, callers: int, warmup: float, seconds: float) -> Measurement:
        self.now += warmup + seconds
        self.driven.append((self._point, callers))
        rate, p99 = self._surface(self._point, callers)
        speed = self.speed(self.now)
        return measurement(rate * speed, p99 / speed, self.errors(self._point, callers))


class Silent:
    """A narrator."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def starts(self, what: str, elapsed: float) -> None:
        self.told.append(what)

    def measured(self, one: Measured, what: str) -> None:
        self.told.append(f"{what}: {one.point}")


def sweep(
    site: Simulated, plan: Plan, space: Space = SPACE, present: Point = PRESENT, *, run: bool = True
) -> Session:
    """A session; ``run``: that has run."""
    search = Search(space, present, full_grid=plan.full_grid)
    session = Session(site, search, present, plan, Silent(), site.clock)
    if run:
        session.run()
    return session


def plan(**values: Any) -> Plan:
    return Plan(**{"objective": 0.02, "seconds": 1.0, "budget": 10_000.0, **values})


def outcome(session: Session, how: Plan, **values: Any) -> Outcome:
    """What the command makes of a session."""
    found = lines(session.measured, session.baselines, PRESENT, how.objective)
    spread = noise(session.baselines)
    given: dict[str, Any] = {
        "server": "tcp://127.0.0.1:8700",
        "model": "ranker",
        "version": 17,
        "platform": "python",
        "environment": Environment(
            cpu="a processor",
            cores=2,
            kernel="Linux",
            python="3.11",
            libzmq="4",
            versions={},
            load_average=0.5,
        ),
        "same_machine": True,
        "load_processes": 1,
        "sample": "requests of x float32[1, 4], given",
        "plan": how,
        "space": SPACE,
        "present": PRESENT,
        "before": {},
        "lines": found,
        "baselines": session.baselines,
        "noise": spread,
        "choice": choose(found, spread),
        "others": (0, 0),
        "seconds": session.elapsed,
        **values,
    }
    return Outcome(**given)
