"""The blocking client's background thread."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from .link import Link


class Background:
    """Watches the connection, and delivers answers while nobody who waits does it himself.

    Args:
        link: whose descriptors it sleeps at; used under the client's lock only.
        work: looks at the monitor and, while ``leading``, at the socket. Takes the client's lock.
        sleep_ms: how long whoever leads may sleep. Takes the client's lock.

    Attributes:
        leading: it delivers answers; changed under the client's lock only.
    """

    def __init__(self, link: Link, work: Callable[[], None], sleep_ms: Callable[[], int]) -> None:
        self._link = link
        self._work = work
        self._sleep_ms = sleep_ms
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.leading = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tensorwire-client", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def lead(self) -> None:
        """Deliver answers until nothing is pending. Called under the client's lock."""
        self.leading = True
        self.wake()

    def wake(self) -> None:
        """Look again, at the latest deadline too."""
        os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """End the thread and wait for that."""
        self._stopping = True
        self.wake()
        self._thread.join()
        os.close(self._wake_fd)

    def _run(self) -> None:
        link = self._link
        poller = select.poll()
        for fd in (self._wake_fd, link.monitor_fd):
            poller.register(fd, select.POLLIN)
        registered = False
        # The monitor's descriptor says nothing before it has been found empty once.
        self._work()
        while not self._stopping:
            if self.leading != registered:
                registered = self.leading
                if registered:
                    poller.register(link.fd, select.POLLIN)
                else:
                    poller.unregister(link.fd)
            for fd, _ in poller.poll(self._sleep_ms() if registered else None):
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
            if not self._stopping:
                self._work()
