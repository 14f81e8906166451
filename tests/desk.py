"""What workers and the dispatcher need from a front end, without one: it notes what it is told."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from tensorwire.server.workers import Finished, Surroundings


def surroundings(finished: Finished = lambda *_: None) -> Surroundings:
    """For workers of which only what they finish is of interest."""

    def unexpected(*_: Any) -> None:
        raise AssertionError("nobody else is needed for threads")

    return Surroundings(finished, *[unexpected] * 5)


class FakeDesk:
    """A front end whose thread is the test's: what is posted waits for :meth:`run`."""

    def __init__(self) -> None:
        self.finished: SimpleQueue[Any] = SimpleQueue()
        self.posted: list[Callable[[], None]] = []
        self.watched: dict[int, Callable[[], None]] = {}
        self.given_up: list[Any] = []

    def completed(self, *done: Any) -> None:
        self.finished.put(done)

    def post(self, action: Callable[[], None]) -> None:
        self.posted.append(action)

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        self.watched[fd] = action

    def unwatch(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def broken(self, handle: Any, reason: str) -> None:
        self.given_up.append((handle, reason))

    def run(self) -> None:
        while self.posted:
            self.posted.pop(0)()
