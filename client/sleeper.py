"""What a blocking caller sleeps at while it waits for its answer."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Final

#: Longest sleep of a thread that nothing but the socket and other threads may wake, in seconds.
_LONGEST: Final = 3600.0
#: Longest sleep of the main thread, which runs the handlers of signals: one that comes after the interpreter
#: has looked for signals and before the kernel lets the thread sleep does not end the sleep.
_LONGEST_WITH_SIGNALS: Final = 0.1


def longest_sleep() -> float:
    """How long the calling thread may sleep before it looks again, in seconds."""
    main = threading.main_thread().ident
    return _LONGEST_WITH_SIGNALS if threading.get_ident() == main else _LONGEST


class Sleeper:
    """Sleeps until something may have arrived, until another thread calls, or for so long.

    Args:
        spin: seconds to look again and again before sleeping. To wake a thread that sleeps takes as long as a
            small model, or longer; one that looks is not asleep. It costs a core while it lasts, and the
            interpreter lock is free between two looks.
    """

    def __init__(self, fd: int, spin: float) -> None:
        """``fd``: becomes readable when something may have arrived."""
        self._spin = spin
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(fd, select.POLLIN)
        self._poller.register(self._wake_fd, select.POLLIN)

    def wake(self) -> None:
        """End the sleep of another thread."""
        os.eventfd_write(self._wake_fd, 1)

    def sleep(self, milliseconds: int) -> None:
        """Sleep at most this long, or less: look whether it was long enough."""
        milliseconds = min(milliseconds, int(longest_sleep() * 1e3))
        found = self._look(milliseconds) if self._spin else None
        for fd, _ in self._poller.poll(milliseconds) if found is None else found:
            if fd == self._wake_fd:
                os.eventfd_read(fd)

    def _look(self, milliseconds: int) -> list[tuple[int, int]] | None:
        """Look without sleeping; None: nothing came in all that time."""
        poll, clock = self._poller.poll, time.monotonic
        until = clock() + min(self._spin, milliseconds * 1e-3)
        while clock() < until:
            found = poll(0)
            if found:
                return found
        return None

    def close(self) -> None:
        """Nobody sleeps any more, nobody is to be woken."""
        os.close(self._wake_fd)
