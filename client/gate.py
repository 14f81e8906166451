"""The blocking client's mutex, which a lone caller keeps while it waits."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, Protocol


class Holder(Protocol):
    """Who keeps the mutex while it waits."""

    def disturb(self) -> None:
        """Make it let go soon. Called by the threads that wait for the mutex, without it."""
        ...


class Gate:
    """A mutex; whoever waits for it disturbs the one that keeps it for long.

    Attributes:
        lock: the mutex itself, for those who only try whether it is free.
        holder: set by whoever is going to keep the mutex for long, before it looks at ``waiting``.
        waiting: one item for each thread that waits. Those who come here enter themselves before they look at
            ``holder``: so one of the two always sees the other.
    """

    __slots__ = ("holder", "lock", "waiting")

    def __init__(self) -> None:
        self.lock: Final = threading.Lock()
        self.holder: Holder | None = None
        self.waiting: Final[deque[None]] = deque()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self._wait()

    def __exit__(self, *exc_info: object) -> None:
        self.lock.release()

    def _wait(self) -> None:
        self.waiting.append(None)
        try:
            holder = self.holder
            if holder is not None:
                holder.disturb()
            self.lock.acquire()
        finally:
            self.waiting.pop()
