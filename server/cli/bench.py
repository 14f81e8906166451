"""``tensorwire bench``: the side-by-side benchmark against gRPC."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .common import FAILED, USAGE, fail, print_table, table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ...bench.suite.results import Suite

app = typer.Typer(
    help="Measure side by side against gRPC and others, and report.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: What the extra brings that nothing else does.
_MODULES: Final = ("grpc", "google.protobuf", "onnx", "hdrh", "jinja2", "matplotlib")
_INTERRUPTED: Final = 130
_OUT: Final = Path("out/bench")

_Keys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SCENARIO ...]", help="A to I, as `list` names them. Default: all.", show_default=False
    ),
]
_Quick = Annotated[bool, typer.Option("--quick", help="Some of A, B and C, in under two minutes.")]
_Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="Rounds of each measurement. Default: three.", show_default=False),
]
_Duration = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        metavar="SECONDS",
        help="One measurement. Default: what the budget allows.",
        show_default=False,
    ),
]
_Budget = Annotated[
    float | None,
    typer.Option(
        min=1.0,
        metavar="SECONDS",
        help="All of it; measurements are shortened to keep it. Default: 18 minutes, 104 s with --quick.",
        show_default=False,
    ),
]
_Systems = Annotated[
    list[str] | None,
    typer.Option("--system", metavar="NAME", help="Only this system. Repeatable.", show_default=False),
]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="results.json, report.html and summary.md.")]
_File = Annotated[Path, typer.Argument(metavar="RESULTS.json", exists=True, dir_okay=False)]


def _need_extra() -> None:
    missing = [name for name in _MODULES if not _installed(name)]
    if missing:
        fail(f"the benchmark needs {', '.join(missing)}: pip install 'tensorwire[bench]'", USAGE)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


@app.command("list")
def list_() -> None:
    """Show the scenarios, and the systems that can run here."""
    _need_extra()
    from ...bench.suite.keep import systems_of
    from ...bench.suite.scenarios import SCENARIOS
    from ...bench.systems import options_of, unavailable

    infos = [scenario.info for scenario in SCENARIOS.values()]
    shown = table("scenario", "title", "question")
    for info in infos:
        shown.add_row(info.key, info.title, info.question)
    print_table(shown)
    systems = table("system", "in", "settings, or why it cannot run")
    for system in systems_of(infos):
        where = "".join(info.key for info in infos if system in info.systems)
        reason = unavailable(system)
        systems.add_row(system, where, f"NOT RUN: {reason}" if reason else options_of(system))
    print_table(systems)


@app.command("run")
def run(
    scenarios: _Keys = None,
    quick: _Quick = False,
    rounds: _Rounds = None,
    duration: _Duration = None,
    systems: _Systems = None,
    budget: _Budget = None,
    out: _Out = _OUT,
) -> None:
    """Run scenarios and write results.json, report.html and summary.md.

    Ctrl-C keeps what was measured. Exit status 1 if nothing was measured, 130 if interrupted.
    """
    _need_extra()
    from ...bench.suite import command
    from ...bench.suite.scenarios import SCENARIOS
    from ...bench.systems import SYSTEMS

    keys = tuple(dict.fromkeys(key.upper() for key in scenarios or ()))
    _check("scenario", keys, SCENARIOS)
    _check("--system", systems or (), SYSTEMS)
    wanted = command.Wanted(
        scenarios=keys,
        systems=tuple(systems or ()),
        quick=quick,
        rounds=rounds,
        duration=duration,
        budget=budget,
    )
    try:
        suite = command.run(wanted, out)
    except command.NothingToRun as error:
        fail(str(error), USAGE)
    _tell(suite, out)
    if suite.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if not any(point.rounds for point in suite.points):
        fail("nothing was measured; see the failures in the results", FAILED)


def _check(what: str, given: Sequence[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            fail(f"{what}: found {name!r}; expected {', '.join(known)}", USAGE)


def _tell(suite: Suite, out: Path) -> None:
    """The answer, and where it is written."""
    from ...bench.suite.lead import lead
    from ...bench.suite.verdict import judge

    first = lead(suite, judge(suite))
    tails = [f"by p99, where throughput decides: {line}" for line in first.tails]
    for line in (f"{first.headline} {first.counts}", *first.slower, *tails, *first.cautions):
        typer.echo(line)
    for each in suite.not_run:
        where = f" in {each.scenario}" if each.scenario else ""
        typer.echo(f"not run{where}: {each.system}: {each.reason}")
    if suite.interrupted:
        typer.echo("interrupted: what was measured before is kept", err=True)
    typer.echo(f"took {suite.seconds:,.0f} s; written: {out}/results.json, report.html, summary.md")


@app.command("report")
def report(
    results: _File,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: beside the results.", show_default=False)
    ] = None,
    docs: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="A Markdown page to put it into instead.", show_default=False),
    ] = None,
) -> None:
    """Write the page and the summary of a result file anew."""
    from ...bench.suite.command import write_reports
    from ...bench.suite.docs import NoMarks, write_docs

    if docs is not None:
        try:
            paths = write_docs(_read(results), docs)
        except (OSError, NoMarks) as error:
            fail(str(error), USAGE)
        for path in paths:
            typer.echo(f"written: {path}")
        return
    for path in write_reports(_read(results), out or results.parent):
        typer.echo(f"written: {path}")


@app.command("compare")
def compare(old: _File, new: _File) -> None:
    """Say which figures of two runs agree, and which have changed by more than their spreads."""
    from rich.console import Console

    from ...bench.report import as_text
    from ...bench.suite.compare import compare as compared
    from ...bench.suite.compare import render

    shown = render(compared(_read(old), _read(new)))
    Console().print(shown) if sys.stdout.isatty() else typer.echo(as_text(shown), nl=False)


def _read(path: Path) -> Suite:
    from ...bench.suite.command import read_suite

    try:
        return read_suite(path)
    except (OSError, ValueError) as error:
        fail(str(error), USAGE)
