"""What the parts of the proof share: the server's worker processes, phases that take turns, and their p99."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psutil

from ...client import Client
from ..overload import counters
from ..proofs import milliseconds, until
from ..recorder import Spread
from ..steady import Calls, percentile

#: Module that worker processes run, as it stands in their command line.
_CHILD: Final = "tensorwire.server.processes.child"
#: From when to when, ``time.monotonic``.
Span = tuple[float, float]


def worker_pids(server_pid: int, model: str) -> set[int]:
    """The processes of a model, also those that are only starting, and those that were stopped."""
    found: set[int] = set()
    for child in psutil.Process(server_pid).children():
        with contextlib.suppress(psutil.Error):
            line = child.cmdline()
            if _CHILD in line and any(part.startswith(f"{model}:") for part in line):
                found.add(child.pid)
    return found


def resident(server_pid: int) -> int:
    """Resident bytes of the server and its children; what they share counts for each."""
    server = psutil.Process(server_pid)
    total = 0
    for process in (server, *server.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def workers_of(client: Client, model: str) -> int:
    """How many workers a model has at the moment."""
    return int(counters(client, model).get("workers", 0))


def wait_for_workers(client: Client, model: str, count: int, timeout: float) -> float:
    """Seconds until a model has so many workers.

    Raises:
        TimeoutError: it has not.
    """
    begun = time.monotonic()
    if not until(lambda: workers_of(client, model) == count, timeout, interval=0.02):
        found = workers_of(client, model)
        raise TimeoutError(f"{model} has {found} workers after {timeout:g} s; expected {count}")
    return time.monotonic() - begun


def spend(seconds: float) -> Span:
    """Let time pass."""
    begun = time.monotonic()
    time.sleep(seconds)
    return begun, time.monotonic()


def cut(span: Span, seconds: float) -> list[Span]:
    """Windows of about so many seconds."""
    count = max(1, round((span[1] - span[0]) / seconds))
    step = (span[1] - span[0]) / count
    return [(span[0] + step * index, span[0] + step * (index + 1)) for index in range(count)]


def spread(calls: Calls, spans: Sequence[Span], level: float = 99.0) -> Spread:
    """A percentile of the calls that were going on in each of these windows; zeros where there are none."""
    windows = [calls.between(*span) for span in spans]
    return Spread.of([percentile(window, level) for window in windows if window] or [0.0])


def spread_ms(found: Spread) -> str:
    """For a table: the median, and the range."""
    return f"{milliseconds(found.median)} ({milliseconds(found.low)}-{milliseconds(found.high)})"


def over(found: Spread, base: Spread) -> float:
    """Ratio of two medians; 0 where there is none."""
    return found.median / base.median if base.median else 0.0


def phase_rows(calls: Calls, phases: Mapping[str, Sequence[Span]]) -> list[tuple[str, ...]]:
    """A table: windows, calls, p50, p99 and maximum of each phase."""
    rows: list[tuple[str, ...]] = []
    for name, spans in phases.items():
        total = sum(len(calls.between(*span)) for span in spans)
        figures = [spread_ms(spread(calls, spans, level)) for level in (50, 99, 100)]
        rows.append((name, str(len(spans)), f"{total:,}", *figures))
    return rows


PHASE_COLUMNS: Final = ("windows", "calls", "p50 ms (windows)", "p99 ms (windows)", "max ms (windows)")


def phase_raw(calls: Calls, phases: Mapping[str, Sequence[Span]]) -> dict[str, Any]:
    """The same for programs."""
    levels = {"p50": 50.0, "p99": 99.0, "max": 100.0}
    return {
        name: {key: spread(calls, spans, level) for key, level in levels.items()}
        for name, spans in phases.items()
    }


def take_turns(phases: Mapping[str, Callable[[], Span]], rounds: int) -> dict[str, list[Span]]:
    """Every phase in every round, each first, second, ... equally often; the spans that they give."""
    spans: dict[str, list[Span]] = {name: [] for name in phases}
    names = list(phases)
    for number in range(rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            spans[name].append(phases[name]())
    return spans
