"""Part ``pauses``: latency from the intended time at half of the maximum, beside gRPC, and who stood still.

The maximum is what the same client gets answered when far more calls are due, with 256 of them under way.
Each client then calls at a constant rate: at half of tensorwire's maximum, which gRPC may not carry (then its
latency there is that of an overload, and the report says so), and at half of gRPC's own. A time without
replies is a pause unless a process on one of the machine's cores, see :mod:`.pulse`, was kept waiting at the
same time.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from ..child import Ready
from ..models import build_repository
from ..processes import Child
from ..proofs import Figures, Proof, serving, workplace
from ..quick import rotated
from ..recorder import Spread
from ..servers import Server, start_server
from ..steady import percentile
from ..systems import CALL_TIMEOUT, FUSED, GRPC
from ..workers.scene import spread_ms
from .pulse import GAP, Gap, Pulses, overlapping
from .stream import CASE, PAUSE, Arrived, Stream

NAME: Final = "pauses"
SYSTEMS: Final = (FUSED, GRPC)
#: 99.9th percentile of the latency over gRPC's at the same rate.
P999_LIMIT: Final = 0.1
#: Share of the maximum at which is called.
LOAD: Final = 0.5
#: A rate is carried where so much of it is answered.
_CARRIED: Final = 0.95
_START_SECONDS: Final = 30.0
_SHOWN: Final = 5


class PausesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds. Each system has ``rounds`` slices of ``seconds`` at each rate."""

    rounds: int = 5
    seconds: float = 2.0
    #: For the maximum: due calls a second, and how many of them are under way.
    flood: float = 200_000.0
    callers: int = 256
    maximum_rounds: int = 3
    maximum_seconds: float = 1.0
    quiet: float = 2.0


class Slice(NamedTuple):
    """One system's turn, and the machine's gaps meanwhile."""

    arrived: Arrived
    machine: list[Gap]

    @property
    def latencies(self) -> list[float]:
        """In seconds."""
        return np.frombuffer(self.arrived.latencies, np.float64).tolist()

    def p(self, level: float) -> float:
        """A percentile of the latency in seconds."""
        return percentile(self.latencies, level)

    def pauses(self) -> list[Gap]:
        """Times without replies that the machine has no part in."""
        return [gap for gap in self.arrived.pauses if not overlapping(gap, self.machine)]


class Level(NamedTuple):
    """What was called at one rate."""

    name: str
    rate: float
    slices: dict[str, list[Slice]]


class _Scene(NamedTuple):
    clients: dict[str, Child]
    pulses: Pulses

    def stream(self, system: str, stream: Stream) -> Slice:
        """One turn."""
        self.pulses.take()
        client = self.clients[system]
        client.send(stream)
        arrived = client.receive(Arrived, stream.seconds + 3 * CALL_TIMEOUT)
        return Slice(arrived, self.pulses.take())


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a server, or a client, died.
    """
    settings = PausesSettings(rounds=12, seconds=5.0) if full else PausesSettings()
    with _scene() as scene:
        scene.pulses.take()
        time.sleep(settings.quiet)
        quiet = scene.pulses.take()
        maxima = _maxima(scene, settings)
        levels = [
            _level(scene, f"{LOAD:.0%} of {name}'s maximum", LOAD * maxima[name].median, settings)
            for name in SYSTEMS
        ]
    shown = ", ".join(f"{name} {_rates(maxima[name])}" for name in SYSTEMS)
    proof.notes.append(f"{NAME}: maximum with {settings.callers} calls under way, calls/s: {shown}")
    proof.notes.append(
        f"{NAME}: {len(quiet) / settings.quiet:.1f} gaps/s of the machine while nothing ran, "
        f"{_longest(quiet)}; a gap is a wake-up {GAP * 1e3:g} ms after the last one, on any core"
    )
    for level in levels:
        report(proof, level, settings)
    verify_pauses(proof, levels)
    proof.raw[NAME] = {
        "maxima": maxima,
        "levels": {level.name: {"rate": level.rate, **_raw(level)} for level in levels},
    }


@contextmanager
def _scene() -> Generator[_Scene]:
    with (
        workplace() as (repository, logs),
        serving(build_repository(repository), logs) as ours,
        start_server("grpc", repository, logs) as theirs,
        _client(FUSED, ours, logs) as fused,
        _client(GRPC, theirs, logs) as grpc,
        Pulses.start(logs) as pulses,
    ):
        yield _Scene({FUSED: fused, GRPC: grpc}, pulses)


@contextmanager
def _client(name: str, server: Server, logs: Path) -> Generator[Child]:
    arguments = ["-m", f"{__package__}.stream", name, server.address]
    with Child(f"the {name} client", arguments, logs / f"{name.replace(' ', '-')}.log") as child:
        child.receive(Ready, _START_SECONDS)
        yield child


def _maxima(scene: _Scene, settings: PausesSettings) -> dict[str, Spread]:
    stream = Stream(seconds=settings.maximum_seconds, rate=settings.flood, callers=settings.callers)
    rates: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for number in range(settings.maximum_rounds):
        for name in rotated(SYSTEMS, number):
            rates[name].append(scene.stream(name, stream).arrived.rate)
    return {name: Spread.of(found) for name, found in rates.items()}


def _level(scene: _Scene, name: str, rate: float, settings: PausesSettings) -> Level:
    slices: dict[str, list[Slice]] = {system: [] for system in SYSTEMS}
    for number in range(settings.rounds):
        for system in rotated(SYSTEMS, number):
            slices[system].append(scene.stream(system, Stream(seconds=settings.seconds, rate=rate)))
    return Level(name, rate, slices)


def report(proof: Proof, level: Level, settings: PausesSettings) -> None:
    """Table and verdict of one rate."""
    rows = [_row(system, slices, settings) for system, slices in level.slices.items()]
    title = f"{NAME}: {CASE}, {level.rate:,.0f} calls/s ({level.name}), latency from the intended time; "
    title += f"{settings.rounds} slices of {settings.seconds:g} s in turn"
    columns = (
        "system", "answers/s", "not sent", "failed", "p50 ms (slices)", "p99 ms", "p99.9 ms", "max ms",
        "pauses", "the machine's gaps/s",
    )  # fmt: skip
    proof.figures.append(Figures(title, columns, rows))
    p999 = {system: Spread.of([each.p(99.9) for each in slices]) for system, slices in level.slices.items()}
    ratio = p999[FUSED].median / p999[GRPC].median if p999[GRPC].median else 0.0
    overload = (
        "" if carried(level, GRPC) else f", which does not carry {level.rate:,.0f} calls/s: an overload"
    )
    text = f"{NAME}: {level.name}: p99.9 {spread_ms(p999[FUSED])} ms, {ratio:.3f}x of {GRPC}'s "
    text += f"{spread_ms(p999[GRPC])} ms{overload}; expected <= {P999_LIMIT:g}x"
    proof.check(carried(level, FUSED) and 0 < ratio <= P999_LIMIT, text)
    failed = {system: _failures(slices) for system, slices in level.slices.items()}
    proof.check(
        not failed[FUSED], f"{NAME}: {level.name}: no call of {FUSED} failed: {failed[FUSED] or 'none'}"
    )
    if failed[GRPC]:
        proof.notes.append(f"{NAME}: {level.name}: calls of {GRPC} that failed: {failed[GRPC]}")


def _failures(slices: list[Slice]) -> dict[str, int]:
    """Failed calls by code."""
    total: dict[str, int] = {}
    for each in slices:
        for code, count in each.arrived.failed.items():
            total[code] = total.get(code, 0) + count
    return total


def carried(level: Level, system: str) -> bool:
    """Whether the system answered at the rate at which it was called."""
    rate = Spread.of([each.arrived.rate for each in level.slices[system]]).median
    return rate >= _CARRIED * level.rate


def verify_pauses(proof: Proof, levels: list[Level]) -> None:
    """No time without replies but those of the machine."""
    found: list[tuple[Gap, bool]] = []
    excused = 0
    for slices in (level.slices[FUSED] for level in levels):
        for each in slices:
            pauses = each.pauses()
            excused += len(each.arrived.pauses) - len(pauses)
            found += [(gap, overlapping(gap, each.arrived.still)) for gap in pauses]
    still = sum(of_client for _, of_client in found)
    text = f"{NAME}: {len(found)} times without a reply of {FUSED} for more than {PAUSE * 1e3:g} ms"
    if found:
        longest = sorted((f"{(gap[1] - gap[0]) * 1e3:.1f}" for gap, _ in found), key=float, reverse=True)
        text += f" (ms: {' '.join(longest[:_SHOWN])}; in {still} of them the client itself stood still)"
    text += f", besides {excused} with a gap of the machine in them; expected none"
    proof.check(not found, text)


def _row(system: str, slices: list[Slice], settings: PausesSettings) -> tuple[str, ...]:
    rate = Spread.of([each.arrived.rate for each in slices])
    machine = sum(len(each.machine) for each in slices) / (len(slices) * settings.seconds)
    pauses = sum(len(each.arrived.pauses) for each in slices)
    own = sum(len(each.pauses()) for each in slices)
    return (
        system,
        f"{rate.median:,.0f}",
        f"{sum(each.arrived.unsent for each in slices):,}",
        f"{sum(_failures(slices).values()):,}",
        *(spread_ms(Spread.of([each.p(level) for each in slices])) for level in (50, 99, 99.9)),
        f"{max(each.p(100) for each in slices) * 1e3:.1f}",
        f"{pauses} ({own} not the machine's)",
        f"{machine:.1f}",
    )


def _rates(found: Spread) -> str:
    return f"{found.median:,.0f} ({found.low:,.0f}-{found.high:,.0f})"


def _longest(gaps: list[Gap]) -> str:
    return f"the longest {max((end - start for start, end in gaps), default=0.0) * 1e3:.1f} ms"


def _raw(level: Level) -> dict[str, object]:
    return {
        system: [
            {
                "rate": each.arrived.rate,
                "unsent": each.arrived.unsent,
                "failed": each.arrived.failed,
                **{f"p{number:g}": each.p(number) for number in (50, 99, 99.9, 100)},
                "pauses": each.arrived.pauses,
                "machine": each.machine,
            }
            for each in slices
        ]
        for system, slices in level.slices.items()
    }
