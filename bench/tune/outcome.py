"""Everything that a sweep gave, as data: the JSON file, and the source of table, plot and model.toml."""

from __future__ import annotations

from typing import Any

import msgspec

from ..environment import Environment
from .choice import Choice, Line, Rung
from .durations import duration
from .points import Point, Space
from .session import Plan


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One sweep.

    Attributes:
        before: key -> value in force before it, of all keys that can be set live.
        sample: what was sent.
        load_processes: so many made the load.
        same_machine: the server runs on the machine where the load was made.
        noise: of the baselines' throughput: half their range, as a fraction of the median.
        others: requests that were not of the sweep, while it measured: for this model, for others.
        ended: why it ended before its time; empty: it did not.
        notes: what a reader must know.
        in_force: what was left in force.
    """

    server: str
    model: str
    version: int
    platform: str
    environment: Environment
    same_machine: bool
    load_processes: int
    sample: str
    plan: Plan
    space: Space
    present: Point
    before: dict[str, Any]
    lines: list[Line]
    baselines: list[Rung]
    noise: float
    choice: Choice | None
    others: tuple[int, int]
    seconds: float
    ended: str = ""
    notes: list[str] = []
    in_force: str = ""

    @property
    def chosen(self) -> Line | None:
        """The line of the choice."""
        if self.choice is None:
            return None
        return next(line for line in self.lines if line.number == self.choice.number)

    def machine(self) -> str:
        """Where the figures come from, in one line."""
        where = "server and load on" if self.same_machine else "load from"
        env = self.environment
        return f"{where} {env.cpu}, {env.cores} cores, {env.kernel}"

    def figures(self, line: Line) -> str:
        """A line's figures in words."""
        if line.rung is None:
            return "not measured"
        measured = line.rung.measured
        callers = f"{line.rung.callers} caller{'s' if line.rung.callers > 1 else ''}"
        relative = (
            "" if line.relative is None or line.present else f", {line.relative:.2f} x the settings before"
        )
        return (
            f"{measured.throughput:,.0f} requests/s with {callers}, p50 "
            f"{duration(measured.p50)}, p99 {duration(measured.p99)}{relative}"
        )
