"""What the dispatcher needs from whoever runs its thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..manager.handle import ServableHandle
from .batch import Batch, Outcome
from .runtime import VersionRuntime


class Desk(Protocol):
    """What the dispatcher needs from the front end, for workers that are not the front-end thread."""

    def completed(self, runtime: VersionRuntime, worker: int, batch: Batch, outcome: Outcome) -> None:
        """A batch is done; any thread."""
        ...

    def post(self, action: Callable[[], None]) -> None:
        """Have the front-end thread call something; any thread."""
        ...

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Have the front-end thread call something whenever a descriptor is readable."""
        ...

    def unwatch(self, fd: int) -> None:
        """End that."""
        ...

    def broken(self, handle: ServableHandle, reason: str) -> None:
        """A version's workers keep dying."""
        ...
