"""Part ``hop``: what a worker in a process costs each request, beside one in a thread.

The same ONNX models, which hardly compute, are served by two servers, one for each kind of workers. The one
with threads runs such batches in its front-end thread, because that is shorter than the way to any worker;
so this is the whole price of a process. No verdict: it is what isolation costs.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from ...client import Client
from ..child import Ready
from ..load import Job, Outcome
from ..models import CASES, build_repository
from ..processes import Child
from ..proofs import Figures, Proof, serving, workplace
from ..recorder import Comparison, Measurement, Spread
from ..results import p50, p99, throughput
from ..systems import CALL_TIMEOUT, FUSED
from .models import WorkerKind, workers_config

NAME: Final = "hop"
KINDS: Final[tuple[WorkerKind, ...]] = ("thread", "process")
_CASES: Final = ("64 B", "602,112 B")
_START_SECONDS: Final = 30.0


class HopSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds."""

    callers: tuple[int, ...] = (1, 32, 256)
    workers: int = 2
    rounds: int = 3
    warmup: float = 0.15
    seconds: float = 0.6


class Situation(NamedTuple):
    """What is measured for both kinds in turn."""

    case: str
    callers: int


Rounds = dict[Situation, dict[WorkerKind, list[Measurement]]]


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the figures to a proof.

    Raises:
        ChildError: a server, or a client, died.
        RuntimeError: a measurement failed.
    """
    settings = HopSettings(rounds=9, seconds=1.0) if full else HopSettings()
    with ExitStack() as stack:
        places = {kind: stack.enter_context(_place(kind, settings)) for kind in KINDS}
        rounds = measure({kind: places[kind].worker for kind in KINDS}, settings)
        shares = {kind: _inline_share(place.client) for kind, place in places.items()}
    rows = [row for situation, kinds in rounds.items() for row in _rows(situation, kinds)]
    title = f"{NAME}: {settings.workers} workers of either kind, {settings.rounds} rounds of "
    title += f"{settings.seconds:g} s in turn; medians"
    columns = ("request", "callers", "figure", "threads", "processes", "ratio (rounds)")
    proof.figures.append(Figures(title, columns, rows))
    proof.notes.append(
        f"{NAME}: of the batches {shares['thread']:.1%} ran in the front-end thread with threads, "
        f"{shares['process']:.1%} with processes; server CPU is with its children"
    )
    proof.raw[NAME] = [
        {"case": situation.case, "callers": situation.callers, **kinds} for situation, kinds in rounds.items()
    ]


def measure(workers: dict[WorkerKind, Child], settings: HopSettings) -> Rounds:
    """Both kinds in turn, in every situation."""
    situations = [Situation(case, callers) for case in _CASES for callers in settings.callers]
    rounds: Rounds = {situation: {kind: [] for kind in KINDS} for situation in situations}
    for number in range(settings.rounds):
        for situation in situations:
            for kind in KINDS if number % 2 else reversed(KINDS):
                found = _measure(workers[kind], situation, settings)
                rounds[situation][kind].append(found)
    return rounds


def _measure(worker: Child, situation: Situation, settings: HopSettings) -> Measurement:
    worker.send(
        Job(
            case=situation.case,
            concurrency=situation.callers,
            warmup=settings.warmup,
            duration=settings.seconds,
        )
    )
    outcome = worker.receive(Outcome, settings.warmup + settings.seconds + 3 * CALL_TIMEOUT)
    found = outcome.measurement
    if found is None or found.errors:
        raise RuntimeError(f"{situation}: {outcome.failure or (found and found.errors)}")
    return found


class _Place(NamedTuple):
    worker: Child
    client: Client


@contextmanager
def _place(kind: WorkerKind, settings: HopSettings) -> Generator[_Place]:
    """A server with one kind of workers, and its client process."""
    with workplace() as (repository, logs):
        build_repository(repository)
        for case in CASES:
            config = workers_config(kind, settings.workers)
            (repository / case.model / "model.toml").write_text(config)
        with (
            serving(repository, logs) as server,
            Client(server.address, timeout=10.0) as client,
            _client(server.address, server.pid, logs) as worker,
        ):
            yield _Place(worker, client)


@contextmanager
def _client(address: str, pid: int, logs: Path) -> Generator[Child]:
    arguments = ["-m", "tensorwire.bench.worker", FUSED, address, str(pid)]
    with Child(f"the {FUSED} client", arguments, logs / "client.log") as child:
        child.receive(Ready, _START_SECONDS)
        yield child


def _inline_share(client: Client) -> float:
    """Of all batches."""
    versions: list[dict[str, Any]] = client.control("stats")["versions"]
    batches = sum(version["batches"] for version in versions)
    return sum(version["inline_batches"] for version in versions) / batches if batches else 0.0


def _cpu(measurement: Measurement) -> float:
    return measurement.server_cpu_per_request


def _rows(situation: Situation, kinds: dict[WorkerKind, list[Measurement]]) -> list[tuple[str, ...]]:
    figures = {"server CPU us/request": (_cpu, 1e6)}
    if situation.callers == 1:
        figures = {"p50 ms": (p50, 1e3), "p99 ms": (p99, 1e3), **figures}
    else:
        figures = {"requests/s": (throughput, 1.0), "p99 ms": (p99, 1e3), **figures}
    rows: list[tuple[str, ...]] = []
    for name, (figure, scale) in figures.items():
        threads, processes = ([figure(found) for found in kinds[kind]] for kind in KINDS)
        ratio = Comparison.of(processes, threads)
        medians = [f"{Spread.of(values).median * scale:,.3g}" for values in (threads, processes)]
        if name == "requests/s":
            medians = [f"{Spread.of(values).median:,.0f}" for values in (threads, processes)]
        shown = f"{ratio.ratio:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
        rows.append((situation.case, str(situation.callers), name, *medians, shown))
    return rows
