"""Command line of the benchmarks: ``python -m tensorwire.bench quick``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from .checks import expectations, verify
from .models import CASE_OF_NAME
from .processes import ChildError, NotBuiltError
from .proof_commands import add_proofs
from .quick import CONCURRENCIES, plan, run
from .report import as_text, render
from .results import Document, Settings
from .systems import SYSTEMS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; the exit status: 0, or 1 where a check failed or a process died, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return options.run(options)
    except (ChildError, NotBuiltError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; all processes were stopped", file=sys.stderr)
        return 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # SIGTERM unwinds as Ctrl-C does, so that the children are stopped.
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tensorwire.bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    quick = commands.add_parser(
        "quick",
        help="tensorwire against grpc.aio in under two minutes",
        description="Side by side on this machine: tensorwire (fused and unfused) against grpc.aio with the "
        "same model manager and engine behind it, and the blocking client against a bare pyzmq echo.",
    )
    quick.set_defaults(run=_quick)
    quick.add_argument(
        "--rounds", type=_positive(int), default=3, help="interleaved rounds (default %(default)s)"
    )
    quick.add_argument(
        "--duration",
        type=_positive(float),
        default=0.8,
        help="seconds of each measurement (default %(default)s)",
    )
    quick.add_argument(
        "--warmup", type=float, default=0.15, help="seconds before each measurement (default %(default)s)"
    )
    quick.add_argument(
        "--case", action="append", choices=list(CASE_OF_NAME), help="only this request size; may be repeated"
    )
    quick.add_argument(
        "--system", action="append", choices=list(SYSTEMS), help="only this system; may be repeated"
    )
    quick.add_argument(
        "--concurrency", action="append", type=_positive(int), help="only this many callers; may be repeated"
    )
    quick.add_argument(
        "--out", type=Path, default=Path("out/bench-quick.json"), help="JSON results, and .txt next to it"
    )
    quick.add_argument(
        "--check", action="store_true", help="verify the expected ratios; exit status 1 on failure"
    )
    add_proofs(commands)
    pump = commands.add_parser(
        "pump",
        help="the compiled pump against the one in Python",
        description="Time per request that reading and answering takes, in both pumps by turns.",
    )
    pump.set_defaults(run=_pump)
    pump.add_argument(
        "--rounds", type=_positive(int), default=30, help="interleaved rounds (default %(default)s)"
    )
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return parse


def _quick(options: argparse.Namespace) -> int:
    groups = plan(
        options.case or list(CASE_OF_NAME),
        options.concurrency or CONCURRENCIES,
        options.system or list(SYSTEMS),
    )
    settings = Settings(rounds=options.rounds, warmup=options.warmup, duration=options.duration)
    with _progress() as progress:
        results = run(groups, settings, progress)
    checks = verify(results, expectations(groups)) if options.check else None
    report = render(results, groups, checks)
    Console().print(report) if sys.stdout.isatty() else print(as_text(report), end="")
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(Document.of(results))) + b"\n")
    out.with_suffix(".txt").write_text(as_text(report))
    print(f"written: {out} and {out.with_suffix('.txt')}")
    return 0 if checks is None or all(check.passed for check in checks) else 1


def _pump(options: argparse.Namespace) -> int:
    from .pump import measure, report

    print(report(measure(options.rounds)))
    return 0


@contextmanager
def _progress() -> Generator[Callable[[float, float, str], None]]:
    """A bar with the remaining time on a terminal; nothing where stderr is a file."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Redrawn between measurements only: a thread that draws meanwhile would be part of the load.
    with Progress(*columns, console=console, disable=not console.is_terminal, auto_refresh=False) as bar:
        task = bar.add_task("starting the servers", total=None)

        def update(done: float, total: float, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what, refresh=True)

        yield update
