"""The short way of a blocking caller that has the client to itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import numpy.typing as npt

from ..rpc.ends import Exchange, Message
from .channel import Channel
from .futures import Waiter
from .gate import Gate
from .lead import Lead
from .link import Link
from .pending import Envelope
from .requests import Template

Outputs = dict[str, npt.NDArray[Any]]

#: Calls that go the general way after another thread has come into the way of one that was alone.
REST: Final = 64


class Lone:
    """Calls that keep the client's mutex from the request to the answer, so that nothing has to be noted of
    them: where the pump is compiled, that is one call into C.

    Whatever is unusual ends that. The call is then entered in ``Pending``, its caller takes the lead, and
    goes on like any other; so unexpected answers, timeouts and losses are treated in one place. After
    another thread has come the next calls do not try it, or each would be disturbed.

    Args:
        exchange: sends, waits and reads.
        outbox: calls that are to be sent; while there are some, nobody is alone.
        give_up: gives up a call that was entered. Called without the mutex.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: Link,
        channel: Channel,
        gate: Gate,
        lead: Lead,
        outbox: Collection[object],
        give_up: Callable[[Waiter], None],
    ) -> None:
        self._exchange = exchange
        self._link = link
        self._channel = channel
        self._pending = channel.pending
        self._gate = gate
        self._lead = lead
        self._outbox = outbox
        self._give_up = give_up
        #: So many calls still go the general way.
        self._rest = 0
        self._closed = False
        #: The call in hand.
        self._number = 0
        self._template: Template | None = None
        self._timeout: float | None = None
        #: The last call during which a signal handler was given the mutex, and who waits for it since then.
        self._freed = -1
        self._waiter: Waiter | None = None

    def call(self, template: Template, arrays: list[Any], timeout: float | None) -> Outputs | Waiter | None:
        """Try the short way.

        Returns:
            The outputs; or who waits for them, and leads from now on; or None: nothing was sent.
        """
        # Made by the first call of its kind, with a timeout that was found right; empty for what needs more
        # than the short way has.
        tail = template.tails.get(timeout)
        if not tail:
            return None
        if self._rest:
            self._rest -= 1
            return None
        if not self._gate.lock.acquire(blocking=False):
            return None
        gate, number, waiter = self._gate, 0, None
        try:
            try:
                gate.holder = self
                if gate.waiting or self._lead.taken or self._outbox or self._closed:
                    return None
                if self._channel.down is not None:
                    return None
                number = self._number = self._pending.reserve()
                self._template, self._timeout = template, timeout
                found = self._exchange.call(number, tail, arrays[0], timeout)
                if isinstance(found, dict):
                    return found
                waiter = self._enter(found)
            except BaseException:
                waiter = self._enter(None)
                raise
            finally:
                if self._freed != number:
                    gate.holder = None
                    gate.lock.release()
        except BaseException:
            if waiter is not None:
                self._give_up(waiter)
            raise
        return waiter

    def disturb(self) -> None:
        """See :class:`~.gate.Holder`."""
        if not self._exchange.handles_signal():
            self._rest = REST
            self._exchange.disturb()
            return
        # It is a signal handler, on top of the very call that keeps the mutex.
        self._waiter = self._enter(None)
        self._freed = self._number
        self._gate.holder = None
        self._gate.lock.release()

    def close(self) -> None:
        """No more calls. Called under the mutex."""
        self._closed = True

    def _enter(self, message: Message | None) -> Waiter | None:
        """Make the call in hand one like any other, if it waits for its answer; who waits for it now.
        ``message`` has come."""
        if not self._exchange.leave():
            # It is over, or a signal handler was faster.
            waiter, self._waiter = self._waiter, None
            return waiter
        waiter = Waiter()
        envelope = Envelope(self._template, self._timeout)
        envelope.calls.append(waiter)
        self._pending.adopt(envelope, self._number, self._exchange.deadline)
        self._lead.take(waiter)
        self._link.lent()
        if message is not None:
            self._channel.receive(*message)
        return waiter
