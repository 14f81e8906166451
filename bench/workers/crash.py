"""Part ``crash``: workers that are killed, or stop, cost no request.

A closed loop of callers runs against a few process workers, whose requests wait for a millisecond. First one
of their processes is killed every second, whichever, also one that is only starting. Then one is stopped, as
if it hung: it is replaced when it has been at one request for as long as ``hang_timeout`` allows.

Every answer names its request; some requests are so large that they travel in shared memory.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ...client import Client
from ..overload import counters
from ..proofs import Figures, Proof, serving, until, workplace
from ..recorder import Spread
from ..servers import Server
from ..steady import WRONG_ANSWER
from .caller import Aim, Caller, Salvo, Tally
from .models import write_timed_model
from .scene import (
    PHASE_COLUMNS,
    Span,
    cut,
    over,
    phase_raw,
    phase_rows,
    spend,
    spread,
    wait_for_workers,
    worker_pids,
)

NAME: Final = "crash"
MODEL: Final = "mortal"
#: Failed requests over all.
FAILED_LIMIT: Final = 0.01
#: 99th percentile some seconds after the last kill over that before the first.
P99_LIMIT: Final = 1.5
_WINDOW: Final = 0.5
_APART: Final = 0.2
#: Numbers that some requests have besides: 16 KiB do not fit into a message between processes.
_EXTRA: Final = 2048
#: By how much, in seconds, the client's clock may be late.
_CLOCK_SLACK: Final = 0.1
_DEADLINE: Final = "DEADLINE_EXCEEDED"
#: Seconds to wait for workers that should be there.
_PATIENCE: Final = 20.0


class CrashSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds."""

    workers: int = 3
    callers: int = 32
    work: float = 0.001
    timeout: float = 2.0
    hang_timeout: float = 1.0
    #: Before the first kill.
    calm: float = 3.0
    kills: int = 15
    every: float = 1.0
    #: After the last: from when to when the latency counts.
    after: Span = (2.0, 4.0)
    stops: int = 2
    seed: int = 1


class Disturbance(NamedTuple):
    """One worker was killed or stopped.

    Attributes:
        at: ``time.monotonic``.
        gone: seconds until its process was gone.
        whole: seconds until as many workers served as before; 0: not waited for.
    """

    at: float
    gone: float
    whole: float = 0.0


class CrashRun(NamedTuple):
    """What happened; spans of ``time.monotonic``.

    Attributes:
        lost: workers that the server says it has lost.
    """

    tally: Tally
    disturbances: list[Disturbance]
    phases: Mapping[str, Sequence[Span]]
    lost: int


class Scene(NamedTuple):
    """A server with a model in process workers, and callers."""

    server: Server
    client: Client
    caller: Caller
    settings: CrashSettings

    @property
    def salvo(self) -> Salvo:
        """The load."""
        settings = self.settings
        return Salvo(model=MODEL, callers=settings.callers, work=settings.work, extra=_EXTRA)


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: the server, or the callers, died.
        TimeoutError: workers were not replaced.
    """
    settings = CrashSettings(kills=60, stops=6) if full else CrashSettings()
    with scene(settings) as where:
        for name, found in (("killed", kill(where)), ("stopped", stop(where))):
            _report(proof, name, found, settings)
            _verify(proof, name, found)


@contextmanager
def scene(settings: CrashSettings) -> Generator[Scene]:
    """All workers serve on entry."""
    with workplace() as (repository, logs):
        write(repository / MODEL, settings)
        with (
            serving(repository, logs) as server,
            Client(server.address, timeout=10.0) as client,
            Caller.start(Aim(address=server.address, timeout=settings.timeout), logs) as caller,
        ):
            yield Scene(server, client, caller, settings)


def write(directory: Path, settings: CrashSettings) -> None:
    """The model."""
    hang = f"hang_timeout = {settings.hang_timeout}"
    write_timed_model(directory, "process", settings.workers, settings=hang)


def kill(where: Scene) -> CrashRun:
    """Kill workers, one after the other."""
    settings, draw = where.settings, random.Random(where.settings.seed)
    before = _lost(where)
    calm = _calm(where)
    begun = time.monotonic()
    disturbances: list[Disturbance] = []
    for number in range(settings.kills):
        time.sleep(max(0.0, begun + number * settings.every - time.monotonic()))
        pid = draw.choice(sorted(worker_pids(where.server.pid, MODEL)))
        disturbances.append(_signal(where, pid, signal.SIGKILL))
    last = disturbances[-1].at
    spend(max(0.0, last + settings.after[1] - time.monotonic()))
    wait_for_workers(where.client, MODEL, settings.workers, _PATIENCE)
    tally = where.caller.stop()
    phases = {
        "before": cut(calm, _WINDOW),
        "meanwhile": cut((begun, last + settings.every), settings.every),
        "after": cut((last + settings.after[0], last + settings.after[1]), _WINDOW),
    }
    return CrashRun(tally, disturbances, phases, _lost(where) - before)


def stop(where: Scene) -> CrashRun:
    """Stop workers, one after the other, each when the one before has been replaced."""
    settings, draw = where.settings, random.Random(where.settings.seed)
    lost = _lost(where)
    phases: dict[str, list[Span]] = {"before": cut(_calm(where), _WINDOW), "meanwhile": [], "after": []}
    disturbances: list[Disturbance] = []
    for number in range(settings.stops):
        pid = draw.choice(sorted(worker_pids(where.server.pid, MODEL)))
        stopped = _signal(where, pid, signal.SIGSTOP)
        # Until the server has seen that it is gone, it counts as there.
        until(lambda expected=lost + number + 1: _lost(where) >= expected, _PATIENCE)
        wait_for_workers(where.client, MODEL, settings.workers, _PATIENCE)
        whole = time.monotonic()
        disturbances.append(stopped._replace(whole=whole - stopped.at))
        phases["meanwhile"].append((stopped.at, whole))
        spend(max(0.0, stopped.at + stopped.gone + settings.after[0] - whole))
        phases["after"] += cut(spend(settings.after[1] - settings.after[0]), _WINDOW)
    return CrashRun(where.caller.stop(), disturbances, phases, _lost(where) - lost)


def _lost(where: Scene) -> int:
    """Workers that the server says it has lost."""
    return int(counters(where.client, MODEL).get("workers_lost", 0))


def _calm(where: Scene) -> Span:
    """Begin to call, and see how it is when all workers live."""
    where.caller.begin(where.salvo)
    wait_for_workers(where.client, MODEL, where.settings.workers, _PATIENCE)
    spend(_WINDOW)
    calm = spend(where.settings.calm)
    # What is done next must not strike calls of this window.
    spend(_APART)
    return calm


def _signal(where: Scene, pid: int, number: signal.Signals) -> Disturbance:
    """Do it, and wait until the process is gone."""
    at = time.monotonic()
    os.kill(pid, number)
    if not until(lambda: pid not in worker_pids(where.server.pid, MODEL), _PATIENCE, interval=0.01):
        raise TimeoutError(f"worker {pid} is still there {_PATIENCE:g} s after {number.name}")
    return Disturbance(at, time.monotonic() - at)


# -------------------------------------------------------------------- verdict


def _report(proof: Proof, name: str, found: CrashRun, settings: CrashSettings) -> None:
    tally, deeds = found.tally, found.disturbances
    title = f"{NAME}: {len(deeds)} of {settings.workers} process workers {name}, {settings.callers} callers, "
    title += f"{settings.work * 1e3:g} ms of waiting a request; {tally.sent:,} sent"
    rows = phase_rows(tally.calls, found.phases)
    proof.figures.append(Figures(title, ("phase", *PHASE_COLUMNS), rows))
    gone = Spread.of([deed.gone for deed in deeds])
    text = f"{NAME}: {name}: {found.lost} workers lost, {len(tally.workers)} processes have answered; "
    text += f"gone after {_seconds(gone)}"
    if any(deed.whole for deed in deeds):
        text += f", {settings.workers} serve again after {_seconds(Spread.of([d.whole for d in deeds]))}"
        text += f" (hang_timeout {settings.hang_timeout:g} s)"
    proof.notes.append(text)
    proof.raw[f"{NAME}_{name}"] = {
        "sent": tally.sent,
        "answered": tally.answered,
        "failed": tally.calls.failures(),
        "messages": tally.messages,
        "longest": tally.longest,
        "lost": found.lost,
        "disturbances": deeds,
        "phases": phase_raw(tally.calls, found.phases),
    }


def _seconds(found: Spread) -> str:
    return f"{found.median:.2f} s ({found.low:.2f}-{found.high:.2f})"


def _verify(proof: Proof, name: str, found: CrashRun) -> None:
    tally, failures = found.tally, found.tally.calls.failures()
    subject = f"{NAME}: {name}"
    for passed, text in correctness(tally):
        proof.check(passed, f"{subject}: {text}")
    share = len(tally.calls.failed) / tally.sent if tally.sent else 1.0
    text = f"{subject}: {share:.3%} of the requests ended with an error ({failures or 'none'}); "
    proof.check(share <= FAILED_LIMIT, f"{text}expected <= {FAILED_LIMIT:.0%}")
    base, after = (spread(tally.calls, found.phases[phase]) for phase in ("before", "after"))
    ratio = over(after, base)
    text = f"{subject}: p99 afterwards {ratio:.2f}x of before; expected <= {P99_LIMIT:g}x"
    proof.check(0 < ratio <= P99_LIMIT, text)


def correctness(tally: Tally, timeout: float = CrashSettings().timeout) -> list[tuple[bool, str]]:
    """What must hold on any machine: passed, and a line about it."""
    failures: Mapping[str, int] = tally.calls.failures()
    ended = tally.answered + len(tally.calls.failed)
    late, wrong = failures.get(_DEADLINE, 0), failures.get(WRONG_ANSWER, 0)
    in_time = not late and tally.longest <= timeout + _CLOCK_SLACK
    return [
        (
            ended == tally.sent > 0,
            f"{tally.sent:,} sent = {tally.answered:,} answered + {ended - tally.answered:,} failed",
        ),
        (wrong == 0, f"wrong answers: {wrong}"),
        (in_time, f"late: {late}; the longest took {tally.longest:.2f} s; expected <= {timeout:g} s"),
    ]
