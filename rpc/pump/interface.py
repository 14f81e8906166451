"""What a pump does, however it is implemented: messages in, bundles out; batches in, replies out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy.typing as npt

from ..wire.header import Layout
from .bundle import Bundle, Slice

Array = npt.NDArray[Any]

#: A drain ends when it has read this much: large tensors are worked on while they are in the cache, and
#: nobody waits until all of them are in.
DRAIN_NBYTES: Final = 4 << 20


class ControlMessage(msgspec.Struct, frozen=True):
    """A message that is not a request: CANCEL, PING, CONTROL."""

    peer: bytes
    kind: int
    id: int
    count: int
    timeout_us: int
    body: bytes


class Counters(msgspec.Struct):
    """What a pump has seen since it was made."""

    messages: int = 0
    requests: int = 0
    bytes_received: int = 0
    #: Messages without an id to answer to, dropped.
    malformed_dropped: int = 0
    #: Malformed messages that were answered with an ERROR.
    malformed_answered: int = 0
    replies: int = 0
    errors: int = 0
    #: Replies to peers that are gone.
    peer_gone: int = 0
    #: Replies given up because the peer does not read what it asked for.
    peer_stuck: int = 0


class Drained(msgspec.Struct):
    """What one call of ``drain`` found."""

    bundles: list[Bundle]
    controls: list[ControlMessage]
    #: A limit was reached: there may be more to read at once.
    more: bool


class ReplyTemplate:
    """A reply header with its layout, made once per (model version, output dtypes and shapes).

    Attributes:
        tails: for a pump to keep, by number of requests, what it always writes into such a reply.
    """

    __slots__ = ("header", "layout", "tails")

    def __init__(self, header: bytes, layout: Layout) -> None:
        self.header = header
        self.layout = layout
        self.tails: dict[int, Any] = {}


class Pump(Protocol):
    """The only code that touches single messages. Used by one thread, the owner of the ROUTER."""

    counters: Counters

    def drain(self, limit: int = ...) -> Drained:
        """Read what has arrived, up to ``limit`` messages or :data:`DRAIN_NBYTES`; malformed ones are
        answered or counted."""
        ...

    def reply(
        self,
        part: Slice,
        template: ReplyTemplate,
        outputs: Sequence[Array],
        row: int,
        queue_us: int,
        compute_us: int,
    ) -> None:
        """Answer the requests of ``part`` with the rows of ``outputs`` from ``row`` on.

        Each of ``outputs`` is ``[rows, ...]`` or, for a layout without rows, the tensor itself.
        """
        ...

    def fail(self, part: Slice, code: int, message: str) -> None:
        """Answer the requests of ``part`` with an error."""
        ...

    def send(self, peer: bytes, frame: bytes) -> None:
        """Send one ready-made frame."""
        ...

    def allow(self, peer: bytes, max_nbytes: int | None) -> None:
        """Keep so many bytes of replies for a peer that does not read them; None: as for all."""
        ...

    def flush(self) -> bool:
        """Retry what could not be sent because peers were slow. Returns whether some is still waiting."""
        ...

    @property
    def holding(self) -> bool:
        """Whether anything is kept for slow peers, so that ``flush`` has to be called now and then."""
        ...
