"""The ratios that a quick run is expected to show, and whether it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from .quick import Group
from .recorder import Measurement
from .results import Results, p50, p99, throughput
from .systems import ECHO, FUSED, GRPC, SYNC, UNFUSED

Figure = Literal["throughput", "p50", "p99"]
_FIGURES: Final[dict[str, Callable[[Measurement], float]]] = {
    "throughput": throughput,
    "p50": p50,
    "p99": p99,
}
#: 99th percentile of tensorwire over gRPC's, in every situation.
P99_LIMIT: Final = 0.25


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """``figure`` of ``system`` over ``baseline``: at least ``limit`` for a throughput, else at most."""

    figure: Figure
    system: str
    baseline: str
    case: str
    concurrency: int
    limit: float

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.figure == "throughput"


class Check(msgspec.Struct, frozen=True):
    """One line of the verdict."""

    passed: bool
    text: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.text}"


#: system, case, concurrency, least throughput ratio to gRPC.
_THROUGHPUT: Final = (
    (FUSED, "64 B", 256, 40.0),
    (FUSED, "64 B", 32, 12.0),
    (UNFUSED, "64 B", 256, 10.0),
    (FUSED, "602,112 B", 32, 3.5),
    (FUSED, "602,112 B", 256, 3.5),
)


def expectations(groups: Sequence[Group]) -> list[Expectation]:
    """What is expected of a run of ``groups``; situations that it does not measure are left out."""
    wanted: list[Expectation] = []
    for group in groups:
        for system in group.compared:
            wanted += _expected_of(system, group)
    return wanted


def _expected_of(system: str, group: Group) -> list[Expectation]:
    case, concurrency = group.case, group.concurrency

    def expect(figure: Figure, limit: float) -> Expectation:
        return Expectation(
            figure=figure,
            system=system,
            baseline=group.baseline,
            case=case,
            concurrency=concurrency,
            limit=limit,
        )

    if group.baseline == ECHO:
        # The larger cases compute for longer than a small message travels, which an echo does not.
        return [expect("p50", 1.3)] if (system, case) == (SYNC, "64 B") else []
    if group.baseline != GRPC:
        return []
    least = [
        limit
        for name, size, callers, limit in _THROUGHPUT
        if (name, size, callers) == (system, case, concurrency)
    ]
    return [*(expect("throughput", limit) for limit in least), expect("p99", P99_LIMIT)]


def verify(results: Results, wanted: Sequence[Expectation]) -> list[Check]:
    """Compare a run with what is expected; last, that no call failed in any system."""
    checks = [_verify_one(results, expectation) for expectation in wanted]
    failed = [
        f"{cell.system}, {cell.case} at {cell.concurrency}: {cell.errors or cell.failures}"
        for cell in results.cells
        if cell.errors or cell.failures
    ]
    return [
        *checks,
        Check(not failed, "no call failed" if not failed else "calls failed: " + "; ".join(failed)),
    ]


def _verify_one(results: Results, wanted: Expectation) -> Check:
    what = f"{wanted.case} at {wanted.concurrency}, {wanted.system}: {wanted.figure}"
    sign = ">=" if wanted.at_least else "<="
    goal = f"expected {sign} {wanted.limit:g}x of {wanted.baseline}"
    cell = results.cell(wanted.system, wanted.case, wanted.concurrency)
    comparison = cell and results.compare(cell, wanted.baseline, _FIGURES[wanted.figure])
    if not comparison or not comparison.ratio:
        return Check(False, f"{what} was not measured; {goal}")
    passed = comparison.ratio >= wanted.limit if wanted.at_least else comparison.ratio <= wanted.limit
    measured = f"{comparison.ratio:.3g}x (rounds {comparison.low:.3g}x to {comparison.high:.3g}x)"
    return Check(passed, f"{what} {measured}; {goal}")
