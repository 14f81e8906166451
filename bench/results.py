"""What a benchmark gave, as data: written as JSON, and the source of every table and check."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .environment import Environment
from .recorder import Comparison, Measurement, Spread


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How it was measured. Times are in seconds."""

    rounds: int
    warmup: float
    duration: float


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One system in one situation, over all rounds.

    ``failures`` are rounds that gave no measurement; a cell with failures has fewer ``rounds``.
    """

    system: str
    case: str
    concurrency: int
    rounds: list[Measurement] = []
    failures: list[str] = []

    def spread(self, figure: Callable[[Measurement], float]) -> Spread | None:
        """Median and extremes of one figure over the rounds; None where no round succeeded."""
        return Spread.of([figure(measurement) for measurement in self.rounds]) if self.rounds else None

    @property
    def errors(self) -> dict[str, int]:
        """Failed calls by status code, all rounds together."""
        total: dict[str, int] = {}
        for measurement in self.rounds:
            for code, count in measurement.errors.items():
                total[code] = total.get(code, 0) + count
        return total


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``baselines``: system -> the one it is compared with; ``seconds``: wall time."""

    environment: Environment
    settings: Settings
    cells: list[Cell]
    baselines: dict[str, str]
    seconds: float

    def cell(self, system: str, case: str, concurrency: int) -> Cell | None:
        """The cell, or None where it was not measured."""
        for cell in self.cells:
            if (cell.system, cell.case, cell.concurrency) == (system, case, concurrency):
                return cell
        return None

    def compare(self, cell: Cell, baseline: str, figure: Callable[[Measurement], float]) -> Comparison | None:
        """One figure of ``cell`` against ``baseline`` in the same situation; None where either is missing."""
        other = self.cell(baseline, cell.case, cell.concurrency)
        if other is None or not other.rounds or not cell.rounds:
            return None
        return Comparison.of([figure(m) for m in cell.rounds], [figure(m) for m in other.rounds])


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """One cell against its baseline."""

    system: str
    baseline: str
    case: str
    concurrency: int
    throughput: Comparison | None
    p50: Comparison | None
    p99: Comparison | None


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON file: everything that was measured, and the ratios that follow from it."""

    results: Results
    ratios: list[Ratios]

    @classmethod
    def of(cls, results: Results) -> Document:
        """With the ratios of every cell that has a baseline."""
        return cls(
            results=results, ratios=[ratios for cell in results.cells if (ratios := _ratios(results, cell))]
        )


def _ratios(results: Results, cell: Cell) -> Ratios | None:
    baseline = results.baselines.get(cell.system)
    if baseline is None:
        return None
    return Ratios(
        system=cell.system,
        baseline=baseline,
        case=cell.case,
        concurrency=cell.concurrency,
        throughput=results.compare(cell, baseline, throughput),
        p50=results.compare(cell, baseline, p50),
        p99=results.compare(cell, baseline, p99),
    )


def throughput(measurement: Measurement) -> float:
    """Requests per second."""
    return measurement.throughput


def p50(measurement: Measurement) -> float:
    """Median latency, seconds."""
    return measurement.p50


def p99(measurement: Measurement) -> float:
    """99th percentile of the latency, seconds."""
    return measurement.p99
