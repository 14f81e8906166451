"""How far a run is, and how long it still takes: a bar on a terminal, lines elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

#: ``(seconds done, seconds in all, what comes next, seconds left)``; the first two as planned.
Progress = Callable[[float, float, str, float], None]
#: Seconds between two lines where there is no terminal.
_LINES: Final = 10.0


class Clock:
    """Counts what was planned against what it took.

    Args:
        total: seconds that are planned.
    """

    def __init__(self, progress: Progress, total: float, now: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._total = total
        self._now = now
        self._begun = now()
        self._done = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._now() - self._begun

    @property
    def left(self) -> float:
        """Seconds that are left if the rest goes on as it went so far."""
        planned = max(0.0, self._total - self._done)
        # The first seconds say little about the rest.
        pace = max(1.0, self.elapsed) / self._done if self._done > 0.02 * self._total else 1.0
        return planned * min(max(pace, 0.5), 2.0)

    def at(self, what: str) -> None:
        """Show what comes next."""
        self._progress(self._done, self._total, what, self.left)

    def did(self, seconds: float) -> None:
        """So many planned seconds are over."""
        self._done = min(self._total, self._done + seconds)

    def finish(self, what: str) -> None:
        """Show the end."""
        self._progress(self._total, self._total, what, 0.0)


def left_text(seconds: float) -> str:
    """Such as ``12 min left`` or ``40 s left``."""
    return f"{seconds / 60:.0f} min left" if seconds >= 120 else f"{seconds:.0f} s left"


@contextmanager
def shown() -> Generator[Progress]:
    """A progress on stderr until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
    )
    # Redrawn between measurements only: a thread that draws meanwhile would be part of the load.
    with Bar(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None, left="")

        def update(done: float, total: float, what: str, left: float) -> None:
            bar.update(
                task, completed=done, total=total, description=what, left=left_text(left), refresh=True
            )

        yield update


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, done: float, total: float, what: str, left: float) -> None:
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + _LINES
        share = done / total if total else 1.0
        print(f"{share:4.0%}  {left_text(left):>12}  {what}", file=sys.stderr, flush=True)
