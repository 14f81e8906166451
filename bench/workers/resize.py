"""Part ``resize``: the number of a model's workers changes while it serves, and no request fails.

For both kinds of workers, an ONNX model in threads and a Python model in processes, at a constant rate of
calls. What a change may take is two seconds, and for more processes what loading the model takes besides.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ...client import Client
from ..proof_models import busy, write_model
from ..proofs import Figures, Proof, milliseconds, serving, until, workplace
from ..servers import Server
from ..steady import percentile
from .caller import Aim, Caller, Salvo, Tally
from .models import WorkerKind, change_count, workers_config, write_timed_model
from .scene import Span, phase_raw, spend, wait_for_workers, worker_pids

NAME: Final = "resize"
KINDS: Final[tuple[WorkerKind, ...]] = ("thread", "process")
#: Seconds that a change may take, besides loading.
LIMIT: Final = 2.0
_WIDTH: Final = 256
_PATIENCE: Final = 20.0


class ResizeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds, ``rate`` in calls a second."""

    counts: tuple[int, ...] = (1, 4, 2, 1)
    repeat: int = 1
    rate: float = 150.0
    #: Of the process model; the ONNX model has so many matrix products.
    work: float = 0.002
    products: int = 150
    #: After each change.
    stay: float = 1.0


class Change(NamedTuple):
    """One change of the number of workers.

    Attributes:
        took: seconds until the server had so many workers.
        settled: seconds until it had so many processes, too; those that are let go end a little later.
        span: from then on, for a while.
    """

    before: int
    after: int
    took: float
    settled: float
    span: Span


class ResizeRun(NamedTuple):
    """What happened with one kind of workers.

    Attributes:
        load_seconds: what loading the model took when nothing else was going on.
    """

    tally: Tally
    changes: list[Change]
    load_seconds: float


class Scene(NamedTuple):
    """A server with one model, and callers."""

    server: Server
    client: Client
    caller: Caller
    directory: Path
    kind: WorkerKind

    @property
    def model(self) -> str:
        """Its name."""
        return self.directory.name


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: the server, or the callers, died.
        TimeoutError: the number of workers did not become what it should.
    """
    settings = ResizeSettings(repeat=5, stay=2.0) if full else ResizeSettings()
    for kind in KINDS:
        with scene(kind, settings) as where:
            found = change(where, settings, load_again(where))
        _report(proof, kind, found, settings)
        _verify(proof, kind, found)


@contextmanager
def scene(kind: WorkerKind, settings: ResizeSettings) -> Generator[Scene]:
    """The model serves on entry."""
    with workplace() as (repository, logs):
        directory = repository / f"in-{kind}"
        first = settings.counts[0]
        if kind == "thread":
            write_model(directory, busy(settings.products, _WIDTH), workers_config(kind, first))
        else:
            write_timed_model(directory, kind, first)
        payload = "identity" if kind == "thread" else "numbered"
        with (
            serving(repository, logs) as server,
            Client(server.address, timeout=10.0) as client,
            Caller.start(Aim(address=server.address, payload=payload, width=_WIDTH), logs) as caller,
        ):
            yield Scene(server, client, caller, directory, kind)


def load_again(where: Scene) -> float:
    """Unload the model and load it again; what the load took, in seconds."""

    def serves(expected: bool) -> None:
        def found() -> bool:
            return any(line.state == "AVAILABLE" for line in where.client.status(where.model)) == expected

        if not until(found, _PATIENCE):
            raise TimeoutError(f"{where.model} did not change: {where.client.status(where.model)}")

    where.client.control("models.unload", {"model": where.model})
    serves(False)
    begun = time.monotonic()
    where.client.control("models.load", {"model": where.model})
    serves(True)
    return time.monotonic() - begun


def change(where: Scene, settings: ResizeSettings, load_seconds: float) -> ResizeRun:
    """All changes, under load."""
    salvo = Salvo(model=where.model, rate=settings.rate, work=settings.work)
    where.caller.begin(salvo)
    wait_for_workers(where.client, where.model, settings.counts[0], _PATIENCE)
    spend(settings.stay)
    changes: list[Change] = []
    now = settings.counts[0]
    for count in settings.counts[1:] * settings.repeat:
        changes.append(_change(where, now, count, settings.stay))
        now = count
    return ResizeRun(where.caller.stop(), changes, load_seconds)


def _change(where: Scene, before: int, after: int, stay: float) -> Change:
    begun = time.monotonic()
    change_count(where.client, where.directory, after)
    wait_for_workers(where.client, where.model, after, _PATIENCE)
    took = settled = time.monotonic() - begun
    if where.kind == "process":
        pid, name = where.server.pid, where.model
        if not until(lambda: len(worker_pids(pid, name)) == after, _PATIENCE, interval=0.02):
            raise TimeoutError(f"{name} has processes {worker_pids(pid, name)}; expected {after}")
        settled = time.monotonic() - begun
    return Change(before, after, took, settled, spend(stay))


def _report(proof: Proof, kind: WorkerKind, found: ResizeRun, settings: ResizeSettings) -> None:
    calls = found.tally.calls
    rows = [
        (
            f"{change.before} -> {change.after}",
            f"{change.took:.2f}",
            f"{change.settled:.2f}",
            *(milliseconds(percentile(calls.between(*change.span), level)) for level in (50, 99)),
        )
        for change in found.changes
    ]
    title = f"{NAME}: workers of kind {kind}, {settings.rate:g} calls/s, {found.tally.sent:,} sent; "
    title += f"loading the model takes {found.load_seconds:.2f} s"
    columns = ("workers", "there after s", "processes, too", "p50 ms then", "p99 ms then")
    proof.figures.append(Figures(title, columns, rows))
    proof.raw[f"{NAME}_{kind}"] = {
        "sent": found.tally.sent,
        "failed": calls.failures(),
        "messages": found.tally.messages,
        "load_seconds": found.load_seconds,
        "changes": found.changes,
        "after": phase_raw(calls, {f"{c.before}-{c.after}": [c.span] for c in found.changes}),
    }


def _verify(proof: Proof, kind: WorkerKind, found: ResizeRun) -> None:
    calls = found.tally.calls
    text = f"{NAME}: {kind}: no request failed: {calls.failures() or 'none'} of {found.tally.sent:,}"
    proof.check(not calls.failed and found.tally.answered == found.tally.sent > 0, text)
    longest = max(found.changes, key=lambda change: change.took)
    limit = LIMIT + found.load_seconds
    text = f"{NAME}: {kind}: the longest change, {longest.before} -> {longest.after}, took "
    text += f"{longest.took:.2f} s; expected <= {limit:.2f} s ({LIMIT:g} s and a load)"
    proof.check(longest.took <= limit, text)
