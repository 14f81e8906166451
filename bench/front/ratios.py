"""What the parts that compare systems share: tables and verdicts over measurements that took turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ..proofs import Proof
from ..recorder import Comparison, Measurement, Spread
from ..results import p99, throughput

Rounds = Mapping[str, Sequence[Measurement]]


def server_cpu(measurement: Measurement) -> float:
    """CPU seconds of the server for each request."""
    return measurement.server_cpu_per_request


def client_cpu(measurement: Measurement) -> float:
    """CPU seconds of the clients for each request."""
    return measurement.client_cpu_per_request


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one system's median over another's.

    Attributes:
        figure: as the verdict calls it.
        at_least: whether more is better.
        fraction: the limit as it is printed, where that reads better than a factor: ``1/8``.
    """

    figure: str
    of: Callable[[Measurement], float]
    ours: str
    theirs: str
    limit: float
    at_least: bool
    fraction: str = ""

    def check(self, proof: Proof, situation: str, rounds: Rounds) -> None:
        """Add a line to the verdict."""
        sign, limit = ">=" if self.at_least else "<=", self.fraction or f"{self.limit:g}x"
        wanted = f"{self.figure} {sign} {limit} of {self.theirs}"
        ours, theirs = rounds.get(self.ours, ()), rounds.get(self.theirs, ())
        if not ours or not theirs:
            proof.check(
                False, f"{situation}: {self.ours} was not measured beside {self.theirs}; expected {wanted}"
            )
            return
        found = Comparison.of([self.of(each) for each in ours], [self.of(each) for each in theirs])
        passed = found.ratio >= self.limit if self.at_least else 0 < found.ratio <= self.limit
        measured = f"{found.ratio:.3g}x (rounds {found.low:.3g}x to {found.high:.3g}x)"
        proof.check(passed, f"{situation}, {self.ours}: {self.figure} {measured}; expected {wanted}")


COLUMNS: Final = (
    "system",
    "requests/s (rounds)",
    "over the first",
    "p99 ms (rounds)",
    "server CPU us/request",
    "client CPU us/request",
)


def rows(situation: str, rounds: Rounds) -> list[tuple[str, ...]]:
    """A table: medians and extremes of every system over its rounds; those without any are left out."""
    measured = {name: found for name, found in rounds.items() if found}
    if not measured:
        return []
    first = Spread.of([each.throughput for each in next(iter(measured.values()))]).median
    table: list[tuple[str, ...]] = []
    for name, found in measured.items():
        rate = Spread.of([throughput(each) for each in found])
        table.append(
            (
                f"{situation}: {name}",
                f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})",
                f"{rate.median / first:.3g}x" if first else "",
                _scaled(found, p99, 1e3),
                _scaled(found, server_cpu, 1e6),
                _scaled(found, client_cpu, 1e6),
            )
        )
    return table


def _scaled(found: Sequence[Measurement], figure: Callable[[Measurement], float], scale: float) -> str:
    spread = Spread.of([figure(each) * scale for each in found])
    return f"{_short(spread.median)} ({_short(spread.low)}-{_short(spread.high)})"


def _short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def check_errors(proof: Proof, part: str, situations: Mapping[str, Rounds]) -> None:
    """One line of the verdict: that no call failed in any system."""
    failed = [
        f"{situation}, {name}: {each.errors}"
        for situation, rounds in situations.items()
        for name, found in rounds.items()
        for each in found
        if each.errors
    ]
    text = f"calls failed: {'; '.join(failed)}" if failed else "no call failed"
    proof.check(not failed, f"{part}: {text}")
