"""One table a scenario, as text in cells: the same for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from ..recorder import Measurement, Spread
from .figures import (
    FIGURES,
    NO_DIFFERENCE,
    answered,
    baseline_of,
    enough_rounds,
    failed_calls,
    gain,
    highest_rate,
    is_ours,
    near_ceiling,
    number,
    points_of,
    situations,
    spread,
    systems_of,
    times,
    too_many_failed,
    with_spread,
)
from .results import Point, ScenarioInfo, Suite

#: Beside a throughput that may be the generator's.
CEILING_MARK: Final = "†"
CEILING_HEADS: Final = ("client", "callers", "requests/s", "most of a system", "holds for")
_MIB: Final = 2**20


class Column(msgspec.Struct, frozen=True):
    """A heading. ``detail``: left out where there is little room."""

    title: str
    align: Literal["left", "right"] = "right"
    detail: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One system in one situation. ``first``: of its situation."""

    cells: list[str]
    system: str
    ours: bool
    first: bool


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Columns, and rows with as many cells. ``marked``: :data:`CEILING_MARK` occurs."""

    columns: list[Column]
    rows: list[Row]
    marked: bool = False

    def brief(self) -> Table:
        """Without the columns of detail."""
        kept = [index for index, column in enumerate(self.columns) if not column.detail]
        return Table(
            columns=[self.columns[index] for index in kept],
            rows=[
                msgspec.structs.replace(row, cells=[row.cells[index] for index in kept]) for row in self.rows
            ],
            marked=self.marked,
        )


#: A column and what stands in it.
_Part = tuple[Column, Callable[[Point], str]]


def scenario_table(suite: Suite, info: ScenarioInfo) -> Table:
    """All that was measured in a scenario: situation by situation, systems in the order of the legend."""
    points = points_of(suite, info)
    parts = _parts(suite, info, points)
    order = systems_of(suite, info)
    rows: list[Row] = []
    for variant, x in situations(points):
        here = [point for point in points if (point.variant, point.x) == (variant, x)]
        here.sort(key=lambda point: order.index(point.system))
        for index, point in enumerate(here):
            rows.append(
                Row(
                    cells=[of(point) for _, of in parts],
                    system=point.system,
                    ours=is_ours(point.system),
                    first=index == 0,
                )
            )
    marked = any(near_ceiling(suite, point) for point in points)
    return Table(columns=[column for column, _ in parts], rows=rows, marked=marked)


def ceiling_rows(suite: Suite) -> list[tuple[str, str, str, str, str]]:
    """What the load generator reaches, under :data:`CEILING_HEADS`."""
    return [
        (
            one.client,
            str(one.concurrency),
            with_spread(Spread(one.throughput, one.low, one.high)) if one.high else number(one.throughput),
            number(highest) if (highest := highest_rate(suite, one)) else "",
            ", ".join(one.systems),
        )
        for one in suite.ceilings
    ]


def _parts(suite: Suite, info: ScenarioInfo, points: Sequence[Point]) -> list[_Part]:
    """The columns that have something in them here."""
    rounds = [measured for point in points for measured in point.rounds]
    baseline = baseline_of(suite, info)
    parts: list[_Part] = [(Column(info.axis.name, "left"), lambda point: point.label)]
    if any(point.variant for point in points):
        parts.append((Column("kind", "left"), lambda point: point.variant))
    parts.append((Column("system", "left"), lambda point: point.system))
    if any(measured.offered for measured in rounds):
        parts.append((Column("offered/s"), _figure(lambda m: m.offered)))
    parts.append((Column("requests/s"), lambda point: _rate(suite, point)))
    if baseline:
        title = f"{FIGURES[info.figure].title} to {baseline}"
        parts.append((Column(title), lambda point: _ratio(suite, info, point, baseline)))
    parts += [
        (Column("p50 ms"), _latency("p50")),
        (Column("p99 ms"), _latency("p99")),
        (Column("p99.9 ms"), _latency("p999")),
        (Column("max ms", detail=True), _figure(lambda m: m.max, 1e3)),
        (Column("server CPU µs"), _figure(lambda m: m.server_cpu_per_request, 1e6)),
        (Column("client CPU µs"), _figure(lambda m: m.client_cpu_per_request, 1e6)),
    ]
    if any(measured.refused for measured in rounds):
        parts += [
            (Column("refused"), _refused),
            (Column("refusal p50 ms", detail=True), _refusal(lambda m: m.refused_p50)),
            (Column("refusal p99 ms"), _refusal(lambda m: m.refused_p99)),
        ]
    if any(measured.server_rss for measured in rounds):
        parts += [
            (Column("server RSS MiB", detail=True), _figure(lambda m: m.server_rss, 1 / _MIB)),
            (Column("client RSS MiB", detail=True), _figure(lambda m: m.client_rss, 1 / _MIB)),
        ]
    parts.append((Column("errors"), _errors))
    return parts


def _rate(suite: Suite, point: Point) -> str:
    found = spread(point, FIGURES["throughput"].of)
    if found is None:
        return "failed"
    return with_spread(found) + (f" {CEILING_MARK}" if near_ceiling(suite, point) else "")


def _latency(key: str) -> Callable[[Point], str]:
    return _figure(FIGURES[key].of, FIGURES[key].factor, spreads=True)


def _figure(
    of: Callable[[Measurement], float], factor: float = 1.0, *, spreads: bool = False
) -> Callable[[Point], str]:
    def cell(point: Point) -> str:
        found = spread(point, of)
        if found is None:
            return ""
        return with_spread(found, factor) if spreads else number(found.median * factor)

    return cell


def _ratio(suite: Suite, info: ScenarioInfo, point: Point, baseline: str) -> str:
    """How many times as good as the baseline in the same situation."""
    figure = FIGURES[info.figure]
    if point.system == baseline:
        return "1x"
    other = next(
        (
            one
            for one in points_of(suite, info)
            if (one.system, one.variant, one.x) == (baseline, point.variant, point.x)
        ),
        None,
    )
    found = gain(point, other, figure) if other is not None else None
    if other is None or found is None or not found.ratio:
        return ""
    if too_many_failed(point, figure) or too_many_failed(other, figure):
        return "calls failed"
    if not enough_rounds(point, other):
        return f"({times(found.ratio)})"
    return times(found.ratio) if found.shown else NO_DIFFERENCE


def _refused(point: Point) -> str:
    """Share of what ended; refusals are among the errors."""
    ended = [(one.refused, one.requests + sum(one.errors.values())) for one in point.rounds]
    shares = [refused / count for refused, count in ended if count]
    return f"{Spread.of(shares).median:.1%}" if any(shares) else ""


def _refusal(of: Callable[[Measurement], float]) -> Callable[[Point], str]:
    def cell(point: Point) -> str:
        values = [of(measured) for measured in point.rounds if measured.refused]
        return number(Spread.of(values).median * 1e3) if values else ""

    return cell


def _errors(point: Point) -> str:
    parts = [f"{code} {count:,}" for code, count in sorted(failed_calls(point).items())]
    if point.failures:
        several = "rounds" if len(point.failures) > 1 else "round"
        parts.append(f"{len(point.failures)} {several} failed")
    rounds = len(answered(point))
    if not parts and not rounds:
        return "no answer"
    return ", ".join(parts) or "-"
