"""What a blocking caller sleeps at while it waits for its answer."""

from __future__ import annotations

import os
import select
import time


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
        """Sleep at most this long."""
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
