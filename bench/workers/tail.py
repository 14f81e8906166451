"""Part ``tail``: a few slow requests do not delay the others, as long as workers are free.

bRPC's test of the long tail in small: one request in a hundred takes 5 ms, the others 0.2 ms, four workers, a
constant rate of calls at 30 % of what they can do. What the others take with and without slow ones takes
turns. Requests sleep: on two cores four workers that compute would wait for a core, not for each other.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import msgspec

from ..proofs import Figures, Proof, serving, workplace
from ..recorder import Spread
from ..steady import percentile
from .caller import Aim, Caller, Salvo, Tally
from .models import WorkerKind, write_timed_model
from .scene import spread_ms

NAME: Final = "tail"
KINDS: Final[tuple[WorkerKind, ...]] = ("process", "thread")
#: 99th percentile of the other requests with slow ones among them over that without.
P99_LIMIT: Final = 1.3
#: The server shares its cores among the models that were called within the last 0.25 s.
_PAUSE: Final = 0.3


class TailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds."""

    workers: int = 4
    work: float = 0.0002
    slow_work: float = 0.005
    slow_every: int = 100
    #: Share of the capacity at which is called.
    load: float = 0.3
    #: Of the closed loop that measures the capacity.
    callers: int = 64
    #: Short slices, so that a machine that slows down does so for both.
    rounds: int = 11
    seconds: float = 0.5


class TailRun(NamedTuple):
    """What one kind of workers did: answers a second at most, calls a second, and the slices in turn."""

    capacity: float
    rate: float
    mixed: list[Tally]
    plain: list[Tally]


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: the server, or the callers, died.
    """
    settings = TailSettings(rounds=40, seconds=1.0) if full else TailSettings()
    with workplace() as (repository, logs):
        for kind in KINDS:
            write_timed_model(repository / kind, kind, settings.workers)
        with (
            serving(repository, logs) as server,
            Caller.start(Aim(address=server.address), logs) as caller,
        ):
            for kind in KINDS:
                found = measure(caller, kind, settings)
                _report(proof, kind, found, settings)
                _verify(proof, kind, found)
                time.sleep(_PAUSE)


def measure(caller: Caller, model: str, settings: TailSettings) -> TailRun:
    """All slices of one model."""
    mixed = Salvo(
        model=model,
        seconds=settings.seconds,
        work=settings.work,
        slow_work=settings.slow_work,
        slow_every=settings.slow_every,
    )
    busy = caller.fire(msgspec.structs.replace(mixed, callers=settings.callers))
    capacity = busy.answered / (busy.ended - busy.started)
    mixed = msgspec.structs.replace(mixed, rate=settings.load * capacity)
    plain = msgspec.structs.replace(mixed, slow_every=0)
    found = TailRun(capacity, mixed.rate, [], [])
    caller.fire(plain)
    for number in range(settings.rounds):
        for salvo in (mixed, plain) if number % 2 else (plain, mixed):
            (found.mixed if salvo is mixed else found.plain).append(caller.fire(salvo))
    return found


def _p(tallies: list[Tally], level: float) -> Spread:
    return Spread.of([percentile(tally.calls.seconds, level) for tally in tallies])


def _report(proof: Proof, kind: WorkerKind, found: TailRun, settings: TailSettings) -> None:
    def row(name: str, tallies: list[Tally], slow: bool) -> tuple[str, ...]:
        latencies = [seconds for tally in tallies for seconds in tally.slow]
        return (
            name,
            f"{sum(len(tally.calls.seconds) for tally in tallies):,}",
            *(spread_ms(_p(tallies, level)) for level in (50, 99, 99.9)),
            f"{percentile(latencies, 50) * 1e3:.2f}" if slow else "",
        )

    title = f"{NAME}: {settings.workers} workers of kind {kind}, {settings.work * 1e3:g} ms a request, "
    title += f"{found.rate:,.0f} calls/s ({settings.load:.0%} of {found.capacity:,.0f}), slices in turn"
    rows = [
        row("without slow ones", found.plain, False),
        row(f"1 of {settings.slow_every} takes {settings.slow_work * 1e3:g} ms", found.mixed, True),
    ]
    columns = ("requests", "others", "p50 ms (slices)", "p99 ms", "p99.9 ms", "slow ones, p50 ms")
    proof.figures.append(Figures(title, columns, rows))
    proof.raw[f"{NAME}_{kind}"] = {
        "capacity": found.capacity,
        "rate": found.rate,
        "plain": {"p50": _p(found.plain, 50), "p99": _p(found.plain, 99), "p999": _p(found.plain, 99.9)},
        "mixed": {"p50": _p(found.mixed, 50), "p99": _p(found.mixed, 99), "p999": _p(found.mixed, 99.9)},
    }


def _verify(proof: Proof, kind: WorkerKind, found: TailRun) -> None:
    failed = {
        code: count
        for tally in (*found.mixed, *found.plain)
        for code, count in tally.calls.failures().items()
    }
    proof.check(not failed, f"{NAME}: {kind}: no request failed: {failed or 'none'}")
    mixed, plain = _p(found.mixed, 99).median, _p(found.plain, 99).median
    ratio = mixed / plain if plain else 0.0
    text = f"{NAME}: {kind}: p99 of the others {ratio:.2f}x of that without slow ones; "
    proof.check(0 < ratio <= P99_LIMIT, f"{text}expected <= {P99_LIMIT:g}x")
