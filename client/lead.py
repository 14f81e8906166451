"""Whose turn it is to deliver what arrives at a blocking client."""

from __future__ import annotations

import threading
import time
from typing import Final

from .background import Background
from .futures import Waiter
from .pending import Pending
from .sleeper import Sleeper, longest_sleep

_NEVER: Final = float("inf")
#: Seconds that ``depart()`` waits for a caller to leave the socket; it was woken, so it takes no time at all.
_DEPARTURE: Final = 5.0


class Lead:
    """Somebody waits at the socket's descriptor and delivers what arrives: a caller, or else the background
    thread.

    All of it is used under the client's lock, but for :meth:`depart` and what sleeps.

    Attributes:
        taken: somebody leads.
        caller: who, if it is a caller.
        sleeper: what a caller that leads sleeps at; None before the connection is made.
    """

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self.taken = False
        self.caller: Waiter | None = None
        self.sleeper: Sleeper | None = None
        #: Until when whoever leads may sleep.
        self._alarm = _NEVER
        self._closing = False
        self._departed = threading.Event()

    def take(self, waiter: Waiter) -> None:
        """Let a caller lead. It looks at the socket before it sleeps."""
        self.taken, self.caller = True, waiter

    def step_down(self, waiter: Waiter, background: Background | None) -> None:
        """Leave it to the background thread to deliver what others wait for."""
        if self.caller is not waiter:
            return
        self.caller = None
        if self._closing:
            self._departed.set()
        self.taken = bool(self._pending.envelopes) and background is not None
        if self.taken and background is not None:
            background.lead()

    def entrust(self, background: Background) -> None:
        """Calls were added that nobody waits for in person: have somebody lead, and in time."""
        if not self.taken:
            if self._pending.envelopes:
                self.taken = True
                background.lead()
            return
        deadline = self._pending.next_deadline()
        if deadline is not None and deadline < self._alarm:
            # Whoever leads sleeps until a later deadline than that of the new call.
            if self.caller is None:
                background.wake()
            self.wake()

    def rest(self, background: Background) -> None:
        """The background thread, which leads, has delivered what there was."""
        if not self._pending.envelopes:
            background.leading = False
            self.taken = False

    def nudge(self) -> None:
        """Wake the caller that leads if somebody else has finished its call."""
        if self.caller is not None and self.caller.finished:
            self.wake()

    def wake(self) -> None:
        """Wake the caller that leads, if one does."""
        if self.caller is not None and self.sleeper is not None:
            self.sleeper.wake()

    def sleep_ms(self) -> int:
        """How long whoever leads may sleep."""
        deadline = self._pending.next_deadline()
        self._alarm = _NEVER if deadline is None else deadline
        return int(min(longest_sleep(), max(0.0, self._alarm - time.monotonic())) * 1e3) + 1

    def seconds_to_deadline(self) -> float:
        """How long a caller that does not lead may sleep."""
        longest, deadline = longest_sleep(), self._pending.next_deadline()
        return longest if deadline is None else min(longest, max(0.001, deadline - time.monotonic()))

    def dismiss(self) -> bool:
        """Send away the caller that leads, whose call has been failed; whether there is one."""
        self._closing = True
        self.wake()
        return self.caller is not None

    def depart(self) -> None:
        """Wait until the caller that was dismissed sleeps no more. Without the lock."""
        self._departed.wait(_DEPARTURE)

    def close(self) -> None:
        """Nobody sleeps any more."""
        if self.sleeper is not None:
            self.sleeper.close()
            self.sleeper = None
