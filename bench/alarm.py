"""A timer of the kernel for an event loop: loops themselves count in milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

#: The times of :meth:`Alarm.at` are those of :func:`time.monotonic`.
_ABSOLUTE: Final = 1
_BILLION: Final = 1_000_000_000
_PR_SET_TIMERSLACK: Final = 29


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Alarm:
    """Calls back from the running event loop; a context manager. Linux.

    Raises:
        OSError: there is no such timer.
    """

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Alarm:
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "no timerfd")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ring)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def at(self, when: float) -> None:
        """Once, at a time of :func:`time.monotonic`; at once if that is over."""
        nanoseconds = max(1, int(when * _BILLION))
        self._set(_ABSOLUTE, _Itimerspec(0, 0, *divmod(nanoseconds, _BILLION)))

    def every(self, seconds: float) -> None:
        """Again and again."""
        interval = divmod(max(1, int(seconds * _BILLION)), _BILLION)
        self._set(0, _Itimerspec(*interval, *interval))

    def _set(self, flags: int, setting: _Itimerspec) -> None:
        self._libc.timerfd_settime(self._fd, flags, ctypes.byref(setting), None)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        self._callback()


def sharpen_sleep() -> None:
    """Have this thread's sleeps end when they should: Linux adds 50 us otherwise."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
