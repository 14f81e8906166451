"""What the proofs share: a real server, its resources, and a verdict as table, JSON and exit status."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
from rich.console import Console, RenderableType
from rich.console import Group as Renderables
from rich.table import Table
from rich.text import Text

from .checks import Check
from .environment import Environment
from .processes import Child
from .report import as_text
from .servers import Server, free_port

_READY_SECONDS: Final = 60.0
_MIB: Final = 1 << 20
_SETTLE_INTERVAL: Final = 0.05


class Figures(msgspec.Struct, frozen=True):
    """A table: what was measured, one row each."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Proof(msgspec.Struct, kw_only=True):
    """What a proof found out. ``figures`` is for people, ``raw`` the same for programs."""

    name: str
    environment: Environment
    figures: list[Figures] = []
    raw: dict[str, Any] = {}
    checks: list[Check] = []
    notes: list[str] = []
    seconds: float = 0.0

    def check(self, passed: bool, text: str) -> None:
        """Add one line of the verdict."""
        self.checks.append(Check(bool(passed), text))

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


class Usage(msgspec.Struct, frozen=True):
    """Resources of a process: resident bytes, open descriptors, threads.

    ``used``: bytes in use of its heap, which only the process itself can tell; 0 where it was not asked.
    """

    rss: int
    fds: int
    threads: int
    used: int = 0

    def __str__(self) -> str:
        used = f" ({self.used / _MIB:.1f} in use)" if self.used else ""
        return f"{self.rss / _MIB:.1f} MiB{used}, {self.fds} fds, {self.threads} threads"


def usage(pid: int) -> Usage:
    """Resources of a process at this moment."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Usage(process.memory_info().rss, process.num_fds(), process.num_threads())


def settled_usage(read: Callable[[], Usage], settled: Callable[[Usage], bool], timeout: float) -> Usage:
    """Resources once they have settled, or after ``timeout`` seconds: closing takes a moment."""
    until = time.monotonic() + timeout
    while True:
        now = read()
        if settled(now) or time.monotonic() > until:
            return now
        time.sleep(_SETTLE_INTERVAL)


@contextmanager
def serving(repository: Path, logs: Path, *flags: str) -> Generator[Server]:
    """``tensorwire serve`` as a process of its own until the block ends; all models are loaded on entry.

    Raises:
        ChildError: it ended, or was not ready in time.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    ready = logs / "ready"
    arguments = ["-m", f"{__package__}.peers.tensorwire_server", "serve", str(repository), "--bind", address]
    arguments += ["--ready-file", str(ready), "--settle-time", "0", *flags]
    with Child("tensorwire serve", arguments, logs / "server.log", ends_with_stdin=False) as child:
        child.wait_until(ready.exists, _READY_SECONDS)
        yield Server(address, child.pid)


@contextmanager
def workplace() -> Generator[tuple[Path, Path]]:
    """A temporary model repository, and a directory for logs."""
    with tempfile.TemporaryDirectory(prefix="tensorwire-bench-") as name:
        repository, logs = Path(name, "models"), Path(name, "logs")
        repository.mkdir()
        logs.mkdir()
        yield repository, logs


def until(condition: Callable[[], bool], timeout: float, interval: float = 0.005) -> bool:
    """Poll until a condition holds; whether it did within ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def chunks(values: Sequence[Any], count: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into ``count`` parts of nearly equal length; empty parts are left out."""
    bounds = [len(values) * index // count for index in range(count + 1)]
    for low, high in pairwise(bounds):
        if low < high:
            yield values[low:high]


def milliseconds(seconds: float) -> str:
    """For a table."""
    return f"{seconds * 1e3:.2f}"


def mebibytes(nbytes: float) -> str:
    """For a table."""
    return f"{nbytes / _MIB:.1f}"


def render(proof: Proof, *, checked: bool) -> RenderableType:
    """The proof for people; the verdict is left out unless it was asked for."""
    parts: list[RenderableType] = [Text(line) for line in proof.environment.lines()]
    for figures in proof.figures:
        table = Table(title=figures.title, title_justify="left")
        for index, column in enumerate(figures.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in figures.rows:
            table.add_row(*row)
        parts.append(table)
    parts += [Text(note) for note in proof.notes]
    if checked:
        parts += [Text(str(check), style="green" if check.passed else "bold red") for check in proof.checks]
    parts.append(Text(f"took {proof.seconds:.0f} s"))
    return Renderables(*parts)


def conclude(proof: Proof, options: argparse.Namespace) -> int:
    """Print the proof, write it to ``options.out``; the exit status is 1 if a wanted check failed."""
    report = render(proof, checked=options.check)
    Console().print(report) if sys.stdout.isatty() else print(as_text(report), end="")
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(proof)) + b"\n")
    out.with_suffix(".txt").write_text(as_text(report))
    print(f"written: {out} and {out.with_suffix('.txt')}")
    return 0 if proof.passed or not options.check else 1
