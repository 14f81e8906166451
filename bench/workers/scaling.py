"""Part ``scaling``: Python that computes runs beside itself in processes, and does not in threads.

One process worker, two of them, and two threads serve the same model, whose requests hold the interpreter's
lock for 2 ms. They take turns in short slices. So does the same work in bare processes: what two of them do
on this machine is the most that two workers could.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec

from ..proofs import Figures, Proof, serving, workplace
from ..quick import rotated
from ..recorder import Spread
from .caller import Aim, Caller, Salvo
from .models import WorkerKind, calibration_file, write_timed_model
from .spin import Spinners, Turn

NAME: Final = "scaling"
#: Two processes over one: answers a second.
PROCESSES_LIMIT: Final = 1.7
#: Model -> what runs it.
_SYSTEMS: Final[dict[str, tuple[WorkerKind, int]]] = {
    "one-process": ("process", 1),
    "two-processes": ("process", 2),
    "two-threads": ("thread", 2),
}
_BARE: Final = {"bare-one": 1, "bare-two": 2}
#: The server shares its cores among the models that were called within the last 0.25 s.
_PAUSE: Final = 0.3
#: Seconds at the start of a slice that do not count.
_FILLING: Final = 0.1


class ScalingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds."""

    work: float = 0.002
    callers: int = 8
    #: Short slices, so that a machine that slows down does so for all.
    rounds: int = 8
    seconds: float = 0.4


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a process died.
    """
    settings = ScalingSettings(rounds=20, seconds=1.0) if full else ScalingSettings()
    rates = measure(settings)
    titles = {
        "one-process": "one process worker",
        "two-processes": "two process workers",
        "two-threads": "two thread workers",
        "bare-one": "bare: one process, no server",
        "bare-two": "bare: two processes, no server",
    }
    rows: list[tuple[str, ...]] = []
    for name, title in titles.items():
        base = "bare-one" if name in _BARE else "one-process"
        found, rate = _over(rates, name, base), Spread.of(rates[name])
        ratio = "" if name == base else f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"
        rows.append((title, f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})", ratio))
    title = f"{NAME}: {settings.work * 1e3:g} ms of Python a request, {settings.callers} callers, "
    title += f"{settings.rounds} slices of {settings.seconds:g} s each, in turn"
    proof.figures.append(Figures(title, ("run by", "requests/s (slices)", "over one (rounds)"), rows))
    proof.raw[NAME] = rates
    _verify(proof, rates)


def _over(rates: dict[str, list[float]], name: str, base: str) -> Spread:
    """Ratio in each round: on a machine that others slow down, neighbours in time are compared."""
    return Spread.of([ours / theirs for ours, theirs in zip(rates[name], rates[base], strict=True)])


def _verify(proof: Proof, rates: dict[str, list[float]]) -> None:
    processes = _over(rates, "two-processes", "one-process").median
    bare = _over(rates, "bare-two", "bare-one").median
    text = f"{NAME}: two process workers {processes:.2f}x of one; expected >= {PROCESSES_LIMIT:g}x "
    proof.check(processes >= PROCESSES_LIMIT, f"{text}(two bare processes: {bare:.2f}x of one)")


def measure(settings: ScalingSettings) -> dict[str, list[float]]:
    """Requests a second in each slice, by model; of bare processes as well."""
    with workplace() as (repository, logs):
        for model, (kind, count) in _SYSTEMS.items():
            write_timed_model(repository / model, kind, count, work="spin")
        with (
            serving(repository, logs) as server,
            Caller.start(Aim(address=server.address, timeout=5.0), logs) as caller,
            Spinners.start(max(_BARE.values()), calibration_file(repository), logs) as spinners,
        ):
            return _slices(settings, caller, spinners)


def _slices(settings: ScalingSettings, caller: Caller, spinners: Spinners) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in (*_SYSTEMS, *_BARE)}

    def fire(model: str, seconds: float) -> float:
        salvo = Salvo(model=model, seconds=seconds, callers=settings.callers, work=settings.work)
        tally = caller.fire(salvo)
        if tally.calls.failed:
            raise RuntimeError(f"{model}: {tally.messages}")
        return tally.throughput(_FILLING)

    for model in _SYSTEMS:  # its workers come with its first request
        fire(model, 2 * _FILLING)
    turn = Turn(seconds=settings.seconds, work=settings.work)
    for number in range(settings.rounds):
        for name in rotated(list(rates), number):
            if bare := _BARE.get(name):
                rates[name].append(spinners.turn(bare, turn))
            else:
                time.sleep(_PAUSE)
                rates[name].append(fire(name, settings.seconds))
    return rates
