"""What ``tensorwire serve`` tells about models in its log: lines for people, from the manager's state."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..manager.budget import format_bytes
from ..manager.publish import NO_VERSION
from ..manager.snapshot import Snapshot
from ..manager.states import State
from ..rpc.types import VersionStatus

#: Seconds after which the first line about loading is due, and the longest time between two of them.
_FIRST: Final = 1.0
_LONGEST: Final = 30.0
_SHOWN: Final = 6
_LOOPBACK: Final = re.compile(r"ipc://.*|tcp://(127\.|localhost:|\[::1\]).*")


def describe_available(snapshot: Snapshot) -> list[str]:
    """One line for each version that serves."""
    lines: list[str] = []
    for name, model in sorted(snapshot.models.items()):
        for version, handle in model.versions.items():
            workers = handle.config.workers.count or 0
            parts = [
                handle.metadata.platform,
                f"{workers} worker{'' if workers == 1 else 's'}",
                f"batches of up to {handle.metadata.max_batch_size} rows"
                if handle.metadata.batched
                else "no batches",
                format_bytes(handle.ram_bytes),
            ]
            labels = sorted(label for label, target in model.labels.items() if target == version)
            if labels:
                parts.append(f"label{'' if len(labels) == 1 else 's'} {', '.join(labels)}")
            if model.default == version:
                parts.append("default")
            lines.append(f"{name}:{version} {State.AVAILABLE}: {', '.join(parts)}")
    return lines


def describe_failed(status: Iterable[VersionStatus]) -> list[str]:
    """One line for each version that was given up, with the reason and the remedy."""
    lines: list[str] = []
    for line in status:
        if line.state != State.FAILED:
            continue
        again = f"tensorwire models load {line.model}"
        if line.version == NO_VERSION:
            lines.append(f"{line.model} {line.state}: {line.reason}; it is read again when that changes")
            continue
        lines.append(
            f"{line.model}:{line.version} {line.state}: {line.reason}; it is tried again when its files or "
            f"model.toml change, or with `{again} {line.version}`"
        )
    return lines


def describe_waiting(status: Iterable[VersionStatus]) -> list[str]:
    """One line for each version that is not there yet, though nothing is under way for it."""
    return [
        f"{line.model}:{line.version} {line.state}{': ' if line.reason else ''}{line.reason}"
        for line in status
        if line.state in (State.NEW, State.WAITING)
    ]


def empty_hint(repository: Path) -> str:
    """What to say when the repository holds no model."""
    hint = f"no models in {repository}; put one at {repository}/MODEL/1/model.onnx and it is served"
    try:
        versions = [entry for entry in repository.iterdir() if entry.name.isdigit() and entry.is_dir()]
    except OSError as error:
        return f"{repository} cannot be read: {error.strerror}"
    if versions:
        hint += f" ({repository.name} looks like one model: did you mean {repository.parent}?)"
    return hint


def reach_warning(endpoint: str) -> str:
    """What to say about an address that other machines can reach; empty for others."""
    if _LOOPBACK.match(endpoint):
        return ""
    return f"{endpoint} can be reached from other machines, and clients need no password"


class Progress:
    """When to say how far the loading has got: after a second, then ever more rarely."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._due = started + _FIRST

    def line(self, now: float, status: Iterable[VersionStatus]) -> str:
        """The line that is due at clock time ``now``; empty if none is."""
        if now < self._due:
            return ""
        elapsed = now - self._started
        self._due = now + min(_LONGEST, elapsed)
        lines = list(status)
        done = sum(line.state in (State.AVAILABLE, State.FAILED) for line in lines)
        parts = [
            f"{line.model}:{line.version} {line.state}" + (f" ({line.reason})" if line.reason else "")
            for line in lines
            if line.state not in (State.AVAILABLE, State.FAILED)
        ]
        more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
        pending = ", ".join(parts[:_SHOWN]) or "looking at the repository"
        return f"loading for {elapsed:.0f} s, {done} of {len(lines)} done: {pending}{more}"
