"""Calls that were sent and wait for their answers."""

from __future__ import annotations

import heapq
from typing import Any, Final, Protocol

from ..rpc.errors import RpcError

#: Ids of one message are consecutive; the message's number stands above these bits.
ID_BITS: Final = 16
_ID_MASK: Final = (1 << ID_BITS) - 1
_NEVER: Final = float("inf")


class Call(Protocol):
    """What waits for an answer: an asyncio or a concurrent future, or a waiter of the sync client."""

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: Any, /) -> None: ...

    def done(self) -> bool: ...


class Envelope:
    """The calls of one message.

    Attributes:
        number: upper part of their ids; 0 until it is sent.
        calls: in the order of their ids; None for those that are answered.
        open: how many are not answered.
        deadline: on the client's clock.
    """

    __slots__ = ("arrays", "calls", "deadline", "number", "open", "template", "timeout")

    def __init__(self, template: Any, timeout: float | None) -> None:
        self.template = template
        self.timeout = timeout
        self.calls: list[Call | None] = []
        #: Per call its inputs; dropped when they are sent. The frame of a control call.
        self.arrays: list[Any] = []
        self.number = 0
        self.open = 0
        self.deadline = 0.0


class Pending:
    """All envelopes that wait, by number, and by deadline."""

    def __init__(self) -> None:
        self.envelopes: dict[int, Envelope] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._next = 1

    def reserve(self) -> int:
        """A number for an envelope, which may be registered with :meth:`adopt` later, or never."""
        number = self._next
        self._next = number + 1
        return number

    def add(self, envelope: Envelope, now: float) -> int:
        """Register an envelope that is being sent; returns its first id."""
        number = self.reserve()
        self.adopt(envelope, number, _NEVER if envelope.timeout is None else now + envelope.timeout)
        return number << ID_BITS

    def adopt(self, envelope: Envelope, number: int, deadline: float) -> None:
        """Register an envelope under a number that was reserved."""
        envelope.number = number
        envelope.open = len(envelope.calls)
        self.envelopes[number] = envelope
        if deadline != _NEVER:
            envelope.deadline = deadline
            heapq.heappush(self._deadlines, (envelope.deadline, number))
            if len(self._deadlines) > 1024 and len(self._deadlines) > 4 * len(self.envelopes):
                # Answered envelopes leave their deadlines behind.
                self._deadlines = [entry for entry in self._deadlines if entry[1] in self.envelopes]
                heapq.heapify(self._deadlines)

    def find(self, request_id: int, count: int) -> tuple[Envelope, int] | None:
        """The envelope that ``count`` ids from ``request_id`` on belong to, and the index of the first."""
        envelope = self.envelopes.get(request_id >> ID_BITS)
        start = request_id & _ID_MASK
        if envelope is None or start + count > len(envelope.calls):
            return None
        return envelope, start

    def take(self, envelope: Envelope, start: int, count: int) -> list[Call | None]:
        """Calls that are answered now; those answered before are None."""
        calls = envelope.calls
        if count == len(calls) == envelope.open:
            envelope.open = 0
            envelope.calls = []
            del self.envelopes[envelope.number]
            return calls
        taken = calls[start : start + count]
        calls[start : start + count] = [None] * count
        envelope.open -= count - taken.count(None)
        if not envelope.open:
            self.envelopes.pop(envelope.number, None)
        return taken

    def next_deadline(self) -> float | None:
        """When ``expire`` has something to do; None: never."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self.envelopes:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expired(self, now: float) -> list[Envelope]:
        """Take out the envelopes whose deadline has passed."""
        found: list[Envelope] = []
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            envelope = self.envelopes.pop(heapq.heappop(deadlines)[1], None)
            if envelope is not None:
                found.append(envelope)
        return found

    def clear(self) -> list[Envelope]:
        """Take out everything."""
        found = list(self.envelopes.values())
        self.envelopes.clear()
        self._deadlines.clear()
        return found


def fail(calls: list[Call | None], make: Any) -> None:
    """Fail those calls that wait, each with an exception of its own from ``make()``."""
    for call in calls:
        if call is not None and not call.done():
            error: RpcError = make()
            call.set_exception(error)
