"""Two runs side by side: does the second say the same as the first?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..environment import Environment
from ..recorder import Spread
from .figures import FIGURES, number, seconds, spread, times
from .results import Point, Suite

Outcome = Literal["agrees", "better", "worse"]
#: Compared at every point, besides what decides in its scenario.
_ALWAYS: Final = ("throughput", "p99")


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one point in both runs, in the unit it was measured in.

    Attributes:
        figure: key of :data:`~.figures.FIGURES`.
        ratio: the new median over the old one; 0 where the old one is 0.
        outcome: ``agrees`` where the ranges over the rounds overlap or touch.
    """

    scenario: str
    system: str
    variant: str
    label: str
    figure: str
    old: Spread
    new: Spread
    ratio: float
    outcome: Outcome


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs.

    Attributes:
        only_old: points that gave figures in the old run only, as (scenario, system, situation).
        only_new: the same of the new run.
        warnings: what differs besides the figures.
    """

    agreements: list[Agreement]
    only_old: list[tuple[str, str, str]]
    only_new: list[tuple[str, str, str]]
    warnings: list[str]

    def count(self, outcome: Outcome) -> int:
        """Of that outcome."""
        return sum(one.outcome == outcome for one in self.agreements)


_Key = tuple[str, str, str, float]


def compare(old: Suite, new: Suite) -> Compared:
    """All points that answered in both runs, figure by figure, in the order of the new run."""
    before, after = _points(old), _points(new)
    figures = {info.key: dict.fromkeys((info.figure, *_ALWAYS)) for info in new.scenarios}
    found = [
        _agreement(before[key], point, figure)
        for key, point in after.items()
        if key in before
        for figure in figures.get(point.scenario, dict.fromkeys(_ALWAYS))
    ]
    return Compared(
        agreements=found,
        only_old=[_named(point) for key, point in before.items() if key not in after],
        only_new=[_named(point) for key, point in after.items() if key not in before],
        warnings=_warnings(old, new),
    )


def _points(suite: Suite) -> dict[_Key, Point]:
    return {
        (point.scenario, point.system, point.variant, point.x): point
        for point in suite.points
        if spread(point, FIGURES["throughput"].of) is not None
    }


def _named(point: Point) -> tuple[str, str, str]:
    return point.scenario, point.system, " ".join(filter(None, (point.variant, point.label)))


def _agreement(old: Point, new: Point, figure: str) -> Agreement:
    of = FIGURES[figure].of
    before, after = spread(old, of), spread(new, of)
    # Only points that answered are compared.
    assert before is not None
    assert after is not None
    outcome: Outcome = "agrees"
    if before.low > after.high or after.low > before.high:
        outcome = "better" if (after.median > before.median) == FIGURES[figure].more_is_better else "worse"
    return Agreement(
        scenario=new.scenario,
        system=new.system,
        variant=new.variant,
        label=new.label,
        figure=figure,
        old=before,
        new=after,
        ratio=after.median / before.median if before.median else 0.0,
        outcome=outcome,
    )


def _warnings(old: Suite, new: Suite) -> list[str]:
    found = [
        f"{what} differs: {before} -> {after}"
        for what, before, after in (
            *_environments(old.environment, new.environment),
            ("rounds", old.settings.rounds, new.settings.rounds),
            ("length of a round", seconds(old.settings.duration), seconds(new.settings.duration)),
            ("warm-up", seconds(old.settings.warmup), seconds(new.settings.warmup)),
            *(
                (f"settings of {system}", old.options[system], new.options[system])
                for system in old.options
                if system in new.options
            ),
        )
        if before != after
    ]
    for name, suite in (("old", old), ("new", new)):
        if suite.interrupted:
            found.append(f"the {name} run was interrupted")
        if suite.settings.rounds < 2:
            found.append(f"the {name} run has one round, so no spread: whatever differs at all counts")
    return found


def _environments(old: Environment, new: Environment) -> list[tuple[str, object, object]]:
    """Everything but the load average, package by package and setting by setting."""
    fields = [
        (field, getattr(old, field), getattr(new, field))
        for field in old.__struct_fields__
        if field not in ("versions", "settings", "load_average")
    ]
    return [
        *fields,
        *_entries("version of {}", old.versions, new.versions),
        *_entries("{}", old.settings, new.settings),
    ]


def _entries(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, object, object]]:
    names = dict.fromkeys([*old, *new])
    return [(what.format(name), old.get(name, "none"), new.get(name, "none")) for name in names]


def render(compared: Compared) -> RenderableType:
    """For people: warnings, every figure, and how many agree."""
    parts: list[RenderableType] = [Text(line, style="yellow") for line in compared.warnings]
    if compared.agreements:
        parts.append(_table(compared.agreements))
    for name, points in (("old", compared.only_old), ("new", compared.only_new)):
        if points:
            told = "; ".join(" ".join(point) for point in points)
            parts.append(Text(f"only in the {name} run: {told}"))
    parts.append(Text(counts(compared), style="bold"))
    return Group(*parts)


def counts(compared: Compared) -> str:
    """How many figures agree, in one sentence."""
    total = len(compared.agreements)
    if not total:
        return "No point was measured in both runs."
    return (
        f"{compared.count('agrees')} of {total} figures agree within the spreads; "
        f"{compared.count('better')} are better, {compared.count('worse')} are worse."
    )


def _table(agreements: Sequence[Agreement]) -> Table:
    table = Table()
    for name in ("scenario", "situation", "system", "figure"):
        table.add_column(name)
    for name in ("old", "new", "new / old"):
        table.add_column(name, justify="right")
    table.add_column("")
    styles = {"agrees": "", "better": "green", "worse": "red"}
    for one in agreements:
        figure = FIGURES[one.figure]
        table.add_row(
            one.scenario,
            Text(" ".join(filter(None, (one.variant, one.label)))),
            Text(one.system),
            f"{figure.title}, {figure.unit}",
            _figures(one.old, figure.factor),
            _figures(one.new, figure.factor),
            times(one.ratio),
            Text(
                "agrees within the spreads" if one.outcome == "agrees" else f"{one.outcome}: {_changed(one)}",
                style=styles[one.outcome],
            ),
        )
    return table


def _figures(found: Spread, factor: float) -> str:
    return f"{number(found.median * factor)} ±{found.relative:.0%}"


def _changed(one: Agreement) -> str:
    return f"changed by {one.ratio - 1:+.0%}" if one.ratio else "changed from 0"
