"""How a process that a server has started ends with it, and only with it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent: int, link: int) -> None:
    """See that this process does not outlive its parent, whatever it is doing then.

    Args:
        link: a socket whose other end the parent has, and nobody else.
    """
    libc = ctypes.CDLL(None)
    # For code that never lets go of the interpreter's lock. It comes when the thread ends that made this
    # process: Spawner's lives as long as the parent.
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(link,), name="parent-watch", daemon=True).start()


def leave_signals_to_parent() -> None:
    """Ctrl-C is the parent's business, which then stops this process in its own time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _watch(link: int) -> None:
    poll = select.poll()
    poll.register(link, 0)  # what is always reported: that the other end is closed
    poll.poll()
    os._exit(0)
