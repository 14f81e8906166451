"""Waiting for the effect of a command: look at the server's status again and again until it is there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from ...client import Client
    from ...rpc.types import VersionStatus

#: Seconds between two looks.
INTERVAL: Final = 0.1
_FINAL: Final = frozenset({"AVAILABLE", "FAILED"})
_PENDING: Final = frozenset({"NEW", "WAITING", "LOADING", "WARMING", "CANCELLING"})


class Look(NamedTuple):
    """The server at one moment."""

    rows: list[VersionStatus]
    #: Nothing is on its way: what is wanted serves, failed, or waits for others' memory.
    settled: bool


#: What a command waits for: None = not yet; else "" = done, or why it will not be.
Verdict = Callable[[Look], str | None]


class Waited(NamedTuple):
    """How the waiting ended. ``problem``: empty if the effect is there."""

    problem: str
    rows: list[VersionStatus]


def look(client: Client, model: str | None) -> Look:
    """Ask the server."""
    from ...rpc.errors import NotFoundError

    settled = bool(client.control("health").get("settled"))
    try:
        rows = client.status(model)
    except NotFoundError:
        rows = []
    # Settled before and after the rows were read, or they may be older than the state.
    return Look(rows, settled and bool(client.control("health").get("settled")))


def wait_for(
    client: Client, model: str | None, verdict: Verdict, timeout: float, *, show: bool = True
) -> Waited:
    """Look until ``verdict`` is reached or ``timeout`` seconds are over; ``show``: progress, meanwhile."""
    until = time.monotonic() + timeout
    shown = _Shown(show and sys.stderr.isatty())
    with shown:
        while True:
            seen = look(client, model)
            reached = verdict(seen)
            if reached is not None:
                return Waited(reached, seen.rows)
            if time.monotonic() >= until:
                what = describe(seen.rows) or "no version is there yet"
                return Waited(f"not done after {timeout:g} s, the server goes on: {what}", seen.rows)
            shown.update(describe(seen.rows))
            time.sleep(INTERVAL)


class _Shown:
    """The line with the present states: in place on a terminal, nothing elsewhere."""

    def __init__(self, moving: bool) -> None:
        self._status: AbstractContextManager[Any] = nullcontext()
        if moving:
            from rich.console import Console

            self._status = Console(stderr=True, markup=False).status("waiting")

    def __enter__(self) -> None:
        self._status.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._status.__exit__(*error)

    def update(self, text: str) -> None:
        """Show another text."""
        change: Any = getattr(self._status, "update", None)
        if change is not None:
            change(text or "waiting")


def describe(rows: Sequence[VersionStatus]) -> str:
    """States in one line."""
    return ", ".join(
        f"{row.model}{f':{row.version}' if row.version >= 0 else ''} {row.state}"
        + (f" ({row.reason})" if row.reason else "")
        for row in rows
    )


def loaded(before: Collection[VersionStatus], version: int | None) -> Verdict:
    """AVAILABLE or FAILED as the result of a command that was given after ``before`` was seen.

    A version that stood at its end before the command counts only once it has been seen on its way, or
    once the server says that nothing is on its way any more.
    """
    old = {row.version for row in before if row.state in _FINAL}
    moved: set[int] = set()

    def verdict(seen: Look) -> str | None:
        rows = [row for row in seen.rows if version is None or row.version == version]
        moved.update(row.version for row in rows if row.state in _PENDING)
        if any(row.state in _PENDING for row in rows):
            return None
        stale = not rows or any(row.version in old - moved for row in rows)
        if stale and not seen.settled:
            return None
        if not rows:
            return "the server does not want that version; `tensorwire models` lists what it does"
        failed = [row for row in rows if row.state == "FAILED"]
        return describe(failed)

    return verdict


def unloaded(version: int | None) -> Verdict:
    """No row of the version, or of the whole model, is left."""

    def verdict(seen: Look) -> str | None:
        rows = [row for row in seen.rows if version is None or row.version == version]
        return None if any(row.state != "FAILED" or row.version >= 0 for row in rows) else ""

    return verdict


def labelled(label: str, version: int | None) -> Verdict:
    """The label points at the version; ``None``: at nothing."""

    def verdict(seen: Look) -> str | None:
        at = [row.version for row in seen.rows if label in row.labels]
        if at == ([] if version is None else [version]):
            return ""
        target = [row for row in seen.rows if row.version == version]
        if not seen.settled or any(row.state in _PENDING for row in target):
            return None
        where = f"stays at version {at[0]}" if at else "points at nothing yet"
        state = describe(target) or f"version {version} is not in the repository"
        return f"label {label!r} {where}: {state}; it moves when version {version} serves"

    return verdict


def settled(seen: Look) -> str | None:
    """Nothing is on its way."""
    return "" if seen.settled else None
