"""What an acceptor has passed on and waits for: under which ids of its own, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...rpc.pump import Bundle, ControlMessage, Slice

#: Ids of one message are consecutive; the message's number stands above these bits (MAX_COUNT fits).
ID_BITS: Final = 16
_ID_MASK: Final = (1 << ID_BITS) - 1


class _Sent:
    """One envelope that waits, and the ranges of its bundle that are not answered yet, in order."""

    __slots__ = ("bundle", "lo", "waiting")

    def __init__(self, part: Slice) -> None:
        self.bundle: Bundle = part.bundle
        self.lo = part.lo
        self.waiting = [(part.lo, part.hi)]

    def take(self, lo: int, hi: int) -> bool:
        """Requests that are answered now; whether all of them waited."""
        if self.waiting[0] == (lo, hi):  # the commonest by far: all that is left
            del self.waiting[0]
            return True
        for index, (begin, end) in enumerate(self.waiting):
            if begin <= lo and hi <= end:
                rest = [(a, b) for a, b in ((begin, lo), (hi, end)) if a < b]
                self.waiting[index : index + 1] = rest
                return True
        return False


class Pending:
    """Envelopes and control calls that the server has not answered."""

    def __init__(self) -> None:
        self._next = 1
        self._sent: dict[int, _Sent] = {}
        self._calls: dict[int, ControlMessage] = {}

    def __len__(self) -> int:
        return len(self._sent) + len(self._calls)

    def _number(self) -> int:
        number = self._next
        self._next = number + 1
        return number

    def add(self, part: Slice) -> int:
        """Enter an envelope; returns its first id."""
        number = self._number()
        self._sent[number] = _Sent(part)
        return number << ID_BITS

    def add_call(self, message: ControlMessage) -> int:
        """Enter a control call; returns its id."""
        number = self._number()
        self._calls[number] = message
        return number << ID_BITS

    def take(self, first_id: int, count: int) -> Slice | None:
        """The requests of these ids, which are answered now; None: not all of them waited."""
        number = first_id >> ID_BITS
        sent = self._sent.get(number)
        if sent is None:
            return None
        lo = sent.lo + (first_id & _ID_MASK)
        if not sent.take(lo, lo + count):
            return None
        if not sent.waiting:
            del self._sent[number]
        return Slice(sent.bundle, lo, lo + count)

    def take_call(self, call_id: int) -> ControlMessage | None:
        """The control call of this id, which is answered now."""
        return self._calls.pop(call_id >> ID_BITS, None)

    def find(self, peer: bytes, first_id: int, count: int) -> Iterator[tuple[int, int]]:
        """Under which ids the requests of a peer wait: first id and number of each range."""
        for number, sent in self._sent.items():
            for begin, end in sent.waiting:
                for lo, hi in sent.bundle.overlaps(begin, end, peer, first_id, count):
                    yield (number << ID_BITS) + lo - sent.lo, hi - lo

    def clear(self) -> tuple[list[Slice], list[ControlMessage]]:
        """Take out everything."""
        parts = [Slice(sent.bundle, lo, hi) for sent in self._sent.values() for lo, hi in sent.waiting]
        calls = list(self._calls.values())
        self._sent.clear()
        self._calls.clear()
        return parts, calls
