"""What the benchmark's own child processes share: how they say that they are ready, and when they stop.

A child writes one JSON line to stdout when it is ready and stops when its stdin closes or on SIGTERM, so no
child outlives its harness, however that ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

import msgspec

_PR_SET_PDEATHSIG: Final = 1
_Result = TypeVar("_Result")


class Ready(msgspec.Struct, frozen=True):
    """First line of a child. ``address`` is what its clients connect to; empty for clients."""

    address: str = ""


def say(message: object) -> None:
    """Write one JSON line to the harness."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def die_with_parent() -> None:
    """Ask the kernel (Linux) for SIGTERM when the parent dies; for children that do not read their stdin."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGTERM)


def when_stdin_closes(callback: Callable[[], object]) -> None:
    """Call ``callback``, on another thread, when the harness closes this process's stdin or is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        callback()

    threading.Thread(target=wait, name="bench-stdin", daemon=True).start()


def stop_event() -> threading.Event:
    """Set when the harness closes this process's stdin or is gone, and on SIGTERM; for the main thread."""
    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    when_stdin_closes(stopped.set)
    return stopped


def run_loop(main: Coroutine[Any, Any, _Result]) -> _Result:
    """``asyncio.run`` on uvloop where it is installed: the same loop for every system."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
