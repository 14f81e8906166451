"""``tensorwire bench run``: what is run, what it writes, and how it is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import msgspec

from .extras import beside
from .keep import write_suite
from .page import write_page
from .plan import FULL_SECONDS, QUICK_SECONDS, Timing, fit, select
from .progress import shown
from .results import FORMAT, Suite
from .runner import Runner
from .scenario import Scenario
from .scenarios import SCENARIOS
from .summary import write_summary

RESULTS: Final = "results.json"
PAGE: Final = "report.html"
SUMMARY: Final = "summary.md"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        scenarios: keys; empty for all of them.
        systems: empty for all of them.
        rounds, duration: None: as many, and as long, as the budget allows.
        budget: seconds; None: that of a whole or a quick run.
    """

    scenarios: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    quick: bool = False
    rounds: int | None = None
    duration: float | None = None
    budget: float | None = None


class NothingToRun(ValueError):
    """None of the scenarios has one of the systems; or a quick run does not have the scenario."""


class Plan(NamedTuple):
    """Scenarios as they are to be run, what is measured beside them, and how long each measurement is."""

    scenarios: list[Scenario]
    extras: list[Scenario]
    timing: Timing


def plan(wanted: Wanted) -> Plan:
    """What a run consists of.

    Raises:
        NothingToRun: nothing is left of them.
    """
    keys = wanted.scenarios or tuple(SCENARIOS)
    scenarios = select([SCENARIOS[key] for key in keys], systems=wanted.systems, quick=wanted.quick)
    if not scenarios:
        raise NothingToRun("none of these scenarios has these systems" + (" in a quick run" * wanted.quick))
    budget = wanted.budget or (QUICK_SECONDS if wanted.quick else FULL_SECONDS)
    # Where only some is wanted, nobody waits for what was not asked for.
    extras = beside(scenarios, apart=not (wanted.quick or wanted.systems or wanted.scenarios))
    return Plan(scenarios, extras, fit([*scenarios, *extras], budget, wanted.rounds, wanted.duration))


def run(wanted: Wanted, out: Path) -> Suite:
    """Run, and write the three outputs into ``out``, the JSON after each scenario.

    An interruption (Ctrl-C, SIGTERM, SIGHUP) ends it early; what was measured is written nevertheless.

    Raises:
        NothingToRun: see :func:`plan`.
    """
    planned = plan(wanted)
    results = out / RESULTS

    def save(suite: Suite) -> None:
        write_suite(suite, results)

    with _interruptible(), shown() as progress:
        suite = Runner(planned.scenarios, planned.timing, progress, save, extras=planned.extras).run()
    write_reports(suite, out)
    return suite


def write_reports(suite: Suite, out: Path) -> list[Path]:
    """Write the page and the summary of a result; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    writers: Sequence[tuple[str, Callable[[Suite, Path], object]]] = (
        (PAGE, write_page),
        (SUMMARY, write_summary),
    )
    for name, write in writers:
        write(suite, out / name)
    return [out / name for name, _ in writers]


def read_suite(path: Path) -> Suite:
    """Read a result file.

    Raises:
        ValueError: it is not one, or of another format.
        OSError: it cannot be read.
    """
    try:
        suite = msgspec.json.decode(path.read_bytes(), type=Suite)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is not a result of tensorwire bench: {error}") from error
    if suite.format != FORMAT:
        raise ValueError(f"{path} has format {suite.format}; this version reads format {FORMAT}")
    return suite


@contextmanager
def _interruptible() -> Generator[None]:
    """Signals that end a process interrupt it as Ctrl-C does, so that the children are stopped in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[int, Any] = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
