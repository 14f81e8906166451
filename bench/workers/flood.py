"""Part ``flood``: a model that is asked for ten times what it can do does not take the others along.

Both models run Python in processes. One is flooded by a generator in a process of its own; the other is
called at a modest constant rate. Three phases take turns: *calm*, *flood*, and *elsewhere*: the same flood
on a second server that nobody else calls. What that costs the calls is the machine: a core that computes and
one that sends.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import msgspec

from ..proofs import Figures, Proof, serving, workplace
from ..recorder import Spread
from .caller import Aim, Caller, Salvo, Tally
from .models import write_timed_model
from .scene import PHASE_COLUMNS, Span, over, phase_raw, phase_rows, spread, take_turns

NAME: Final = "flood"
FLOODED: Final = "flooded"
MODEST: Final = "modest"
#: 99th percentile of the other model's calls during a flood over that without.
P99_LIMIT: Final = 2.0
#: The generator must send at least this share of what it was told.
_RATE_KEPT: Final = 0.95
#: Answers of these kinds are what a flood is to get.
_REFUSALS: Final = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


class FloodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds, ``rate`` in calls a second."""

    workers: int = 2
    #: Of a request to the flooded model: it computes, with the interpreter's lock held.
    work: float = 0.005
    #: Of one to the other.
    modest_work: float = 0.001
    rate: float = 100.0
    flood: float = 10.0
    #: Of requests of the flood.
    timeout: float = 0.3
    callers: int = 16
    rounds: int = 4
    seconds: float = 1.6
    #: After a flood, until its last requests have ended, and of each that does not count: queues fill.
    settle: float = 0.3


class FloodRun(NamedTuple):
    """What happened.

    Attributes:
        capacity: requests a second that the flooded model can do when it is alone.
        floods: what became of each flood on the server that is called.
    """

    tally: Tally
    phases: dict[str, list[Span]]
    capacity: float
    floods: list[Tally]


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a server, or a generator, died.
    """
    settings = FloodSettings(rounds=15, seconds=2.0) if full else FloodSettings()
    found = measure(settings)
    calls = found.tally.calls
    title = f"{NAME}: {settings.rate:g} calls/s to one model; another is sent {settings.flood:g}x its "
    title += f"{found.capacity:,.0f} requests/s"
    rows = phase_rows(calls, found.phases)
    proof.figures.append(Figures(title, ("phase", *PHASE_COLUMNS), rows))
    answered = Spread.of([flood.throughput(settings.settle) for flood in found.floods])
    proof.notes.append(
        f"{NAME}: the flooded model answered {answered.median:,.0f} requests/s "
        f"({answered.low:,.0f}-{answered.high:,.0f}) meanwhile"
    )
    proof.raw[NAME] = {
        "capacity": found.capacity,
        "answered": answered,
        "sent": [flood.sent for flood in found.floods],
        "failed": calls.failures(),
        "phases": phase_raw(calls, found.phases),
    }
    _verify(proof, found, settings)


def _verify(proof: Proof, found: FloodRun, settings: FloodSettings) -> None:
    calls = found.tally.calls
    text = f"{NAME}: no call to the other model failed: {calls.failures() or 'none'} of {found.tally.sent:,}"
    proof.check(not calls.failed, text)
    calm, flood, elsewhere = (spread(calls, found.phases[name]) for name in ("calm", "flood", "elsewhere"))
    ratio = over(flood, calm)
    text = f"{NAME}: the other model's p99 {ratio:.2f}x of that without a flood; expected <= {P99_LIMIT:g}x "
    text += f"(during the same flood on another server: {over(elsewhere, calm):.2f}x)"
    proof.check(0 < ratio <= P99_LIMIT, text)
    wanted = settings.flood * found.capacity * settings.seconds
    kept = Spread.of([flood.sent / wanted for flood in found.floods]).median
    proof.check(kept >= _RATE_KEPT, f"{NAME}: the generator sent {kept:.1%} of its rate")
    odd = {
        code: text for flood in found.floods for code, text in flood.messages.items() if code not in _REFUSALS
    }
    proof.check(not odd, f"{NAME}: nothing of it failed but for overload: {odd or 'none'}")


def measure(settings: FloodSettings) -> FloodRun:
    """Flood in turns."""
    with _place(settings) as here, _place(settings) as elsewhere:
        capacity = here.capacity
        shot = Salvo(
            model=FLOODED, seconds=settings.seconds, rate=settings.flood * capacity, work=settings.work
        )
        floods: list[Tally] = []

        def flood(place: _Place) -> Span:
            begun = time.monotonic()
            tally = place.generator.fire(shot)
            if place is here:
                floods.append(tally)
            time.sleep(settings.settle)
            return begun + settings.settle, begun + settings.seconds

        def calm() -> Span:
            begun = time.monotonic()
            time.sleep(settings.seconds)
            return begun + settings.settle, begun + settings.seconds

        here.modest.begin(Salvo(model=MODEST, rate=settings.rate, work=settings.modest_work))
        phases = take_turns(
            {"calm": calm, "flood": lambda: flood(here), "elsewhere": lambda: flood(elsewhere)},
            settings.rounds,
        )
        return FloodRun(here.modest.stop(), phases, capacity, floods)


class _Place(NamedTuple):
    """A server with both models and the callers of each."""

    generator: Caller
    modest: Caller
    capacity: float


@contextmanager
def _place(settings: FloodSettings) -> Generator[_Place]:
    with workplace() as (repository, logs), ExitStack() as stack:
        write_timed_model(repository / FLOODED, "process", settings.workers, work="spin")
        write_timed_model(repository / MODEST, "process", 1, work="spin")
        server = stack.enter_context(serving(repository, logs))

        def caller(name: str, timeout: float) -> Caller:
            aim = Aim(address=server.address, timeout=timeout)
            return stack.enter_context(Caller.start(aim, logs, name))

        generator, modest = caller(FLOODED, settings.timeout), caller(MODEST, 2.0)
        yield _Place(generator, modest, _capacity(generator, settings))


def _capacity(generator: Caller, settings: FloodSettings) -> float:
    shot = Salvo(model=FLOODED, seconds=1.0, callers=settings.callers, work=settings.work)
    return generator.fire(shot).throughput(settings.settle)
