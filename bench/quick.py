"""The quick side-by-side benchmark: tensorwire against grpc.aio, and its blocking client against a bare echo.

Rounds are interleaved (A B C, B C A, C A B), so that a machine that slows down does so for every system. All
servers and clients run throughout, each in a process of its own; only one pair works at a time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from .child import Ready
from .environment import Environment
from .load import Job, Outcome
from .models import CASES, build_repository
from .processes import Child
from .results import Cell, Results, Settings
from .servers import Server, start_server
from .systems import CALL_TIMEOUT, ECHO, FUSED, GRPC, SPINNING, SYNC, SYSTEMS, UNFUSED

_READY_SECONDS: Final = 30.0
_BLOCKING_SLICES: Final = 12
CONCURRENCIES: Final = (1, 32, 256)


class Group(msgspec.Struct, frozen=True):
    """Systems that are measured in one situation, and the one that the others are compared with.

    A round of a group is cut into ``slices``, which take turns as the rounds do.
    """

    systems: tuple[str, ...]
    baseline: str
    case: str
    concurrency: int
    slices: int = 1

    @property
    def compared(self) -> tuple[str, ...]:
        """The systems that are not the baseline."""
        return tuple(name for name in self.systems if name != self.baseline)


#: How far a run is: ``(seconds done, seconds in all, what comes next)``.
Progress = Callable[[float, float, str], None]


def plan(
    cases: Sequence[str] = tuple(case.name for case in CASES),
    concurrencies: Sequence[int] = CONCURRENCIES,
    systems: Collection[str] = tuple(SYSTEMS),
) -> list[Group]:
    """The groups of a quick run, without the systems that are not in ``systems``."""
    wanted = tuple(name for name in (FUSED, UNFUSED, GRPC) if name in systems)
    groups = [Group(wanted, GRPC, case, concurrency) for case in cases for concurrency in concurrencies]
    wanted = tuple(name for name in (SYNC, SPINNING, ECHO) if name in systems)
    # One blocking caller measures wake-ups, whose cost drifts as the kernel moves processes between cores:
    # turns are short, so that both systems see the same share of every mood.
    groups += [Group(wanted, ECHO, case, 1, slices=_BLOCKING_SLICES) for case in cases]
    return [group for group in groups if group.systems]


def run(groups: Sequence[Group], settings: Settings, progress: Progress) -> Results:
    """Measure every group ``settings.rounds`` times.

    Raises:
        ChildError: a server or a client process died.
    """
    environment = Environment.read()
    started = time.monotonic()
    names = list(dict.fromkeys(name for group in groups for name in group.systems))
    cells = {
        (g, name): Cell(system=name, case=g.case, concurrency=g.concurrency)
        for g in groups
        for name in g.systems
    }
    turns = schedule(groups, settings.rounds)
    total = sum(_seconds(group, settings) for group, _ in turns)
    done = 0.0
    with _clients(names) as clients:
        for group, name in turns:
            cell = cells[group, name]
            progress(done, total, f"{cell.case}, {cell.concurrency} at a time: {name}")
            _measure(clients[name], cell, group, settings)
            done += _seconds(group, settings)
    progress(total, total, "done")
    return Results(
        environment=environment,
        settings=settings,
        cells=list(cells.values()),
        baselines=baselines(groups),
        seconds=time.monotonic() - started,
    )


def baselines(groups: Sequence[Group]) -> dict[str, str]:
    """System -> the system that it is compared with."""
    return {name: group.baseline for group in groups for name in group.compared}


def schedule(groups: Sequence[Group], rounds: int) -> list[tuple[Group, str]]:
    """Every turn of a run, in order: whose turn it is, in which group."""
    return [
        (group, name)
        for round_number in range(rounds)
        for group in groups
        for turn in range(group.slices)
        for name in rotated(group.systems, round_number * group.slices + turn)
    ]


def _seconds(group: Group, settings: Settings) -> float:
    return (settings.warmup + settings.duration) / group.slices


def rotated(systems: Sequence[str], round_number: int) -> list[str]:
    """The order of one round: every system is first, second, ... equally often."""
    start = round_number % len(systems)
    return [*systems[start:], *systems[:start]]


def _measure(client: Child, cell: Cell, group: Group, settings: Settings) -> None:
    job = Job(
        case=group.case,
        concurrency=group.concurrency,
        warmup=settings.warmup / group.slices,
        duration=settings.duration / group.slices,
    )
    client.send(job)
    # Calls in flight at the end may take their whole timeout.
    timeout = settings.warmup + settings.duration + 3 * CALL_TIMEOUT
    outcome = client.receive(Outcome, timeout)
    if outcome.measurement is None:
        cell.failures.append(outcome.failure)
    else:
        cell.rounds.append(outcome.measurement)


@contextmanager
def _clients(names: Sequence[str]) -> Generator[dict[str, Child]]:
    """A connected client process for every system, and the servers that they need, until the block ends."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tensorwire-bench-")))
        repository = build_repository(directory / "models")
        servers: dict[str, Server] = {}
        clients: dict[str, Child] = {}
        for name in names:
            key = SYSTEMS[name].server
            if key not in servers:
                servers[key] = stack.enter_context(start_server(key, repository, directory))
            clients[name] = stack.enter_context(_worker(name, servers[key], directory))
        for name in names:
            clients[name].receive(Ready, _READY_SECONDS)
        yield clients


def _worker(name: str, server: Server, logs: Path) -> Child:
    arguments = ["-m", f"{__package__}.worker", name, server.address, str(server.pid)]
    return Child(f"the {name} client", arguments, logs / f"{name.replace(' ', '-')}.log")
