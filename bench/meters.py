"""What the processes of a measurement use: CPU time and memory."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import psutil

from .recorder import CpuUse

#: Linux: the clock of the CPU time of a process, all threads together (include/linux/posix-timers.h).
_CPU_CLOCK: Final = 2
_LINUX: Final = sys.platform == "linux"


class CpuMeter:
    """CPU seconds of the server, of this process and of everything else, between two readings.

    The processes of the server are listed before and after a measurement. Reading those that are known takes
    microseconds; listing them takes milliseconds, which would show in the latencies.
    """

    def __init__(self, server_pid: int | None) -> None:
        """``None``: the server is not to be seen from here; its share is 0."""
        self._root = None if server_pid is None else psutil.Process(server_pid)
        self._server: list[psutil.Process] = []
        self._client = psutil.Process(os.getpid())
        self._last = (0.0, 0.0, 0.0)
        self.prepare()
        self.start()

    def prepare(self) -> None:
        """List the processes of the server; before the load starts."""
        self._server = self._listed()

    def start(self) -> None:
        """First reading."""
        self._last = self._read()

    def stop(self) -> CpuUse:
        """Second reading; gives what was used since the first by the processes that were listed."""
        server, client, machine = (now - then for now, then in zip(self._read(), self._last, strict=True))
        return CpuUse(max(0.0, server), client, max(0.0, machine - server - client))

    def finish(self, used: CpuUse) -> CpuUse:
        """``used``, with what processes used that the server has started since :meth:`prepare`."""
        known = set(self._server)
        young = sum(_seconds(process) for process in self._listed() if process not in known)
        return CpuUse(used.server + young, used.client, max(0.0, used.others - young))

    def resident(self) -> tuple[int, int]:
        """Bytes in memory of all processes of the server, and of this one.

        Pages that several processes share count in each.
        """
        return sum(map(_resident, self._listed())), _resident(self._client)

    def _listed(self) -> list[psutil.Process]:
        if self._root is None:
            return []
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:  # it is gone: the calls that fail tell so
            return []

    def _read(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        machine = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return sum(map(_seconds, self._server)), _seconds(self._client), machine


def _seconds(process: psutil.Process) -> float:
    """CPU time of a process: in nanoseconds where it has a clock for that, else in ticks of the kernel's."""
    if _LINUX:
        try:
            return time.clock_gettime((~process.pid << 3) | _CPU_CLOCK)
        except OSError:  # a worker that has just ended
            return 0.0
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # a worker that has just ended
        return 0.0
    return times.user + times.system


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
