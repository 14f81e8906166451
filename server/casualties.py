"""What becomes of the requests that a worker had in hand when it died. Pure decisions.

What it was at work on may have killed it: such requests run once more, each alone, so that one that kills a
second worker is known. What only waited in its hand runs elsewhere as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

from ..rpc.pump import Slice
from .batch import Batch


class Fate(Enum):
    """What is done with requests."""

    #: Queued as before.
    REQUEUE = auto()
    #: Queued once more, each alone.
    AGAIN = auto()
    #: Refused: two workers died while they ran it.
    POISONOUS = auto()
    #: Nobody waits for the answer, or nobody is left to run it.
    DROP = auto()


class Casualty(NamedTuple):
    """Some requests and what is done with them."""

    batch: Batch
    part: Slice
    fate: Fate


def casualties(batches: Sequence[Batch], at_work: Batch | None, hopeless: bool) -> Iterator[Casualty]:
    """The fates of all that a worker had in hand.

    Args:
        batches: in the order in which it got them.
        at_work: the one of them that was running.
        hopeless: the version was given up.
    """
    for batch in batches:
        struck = batch is at_work
        for part in batch.parts:
            if part.bundle.mirrored or hopeless:
                fate = Fate.DROP
            elif struck and batch.again:
                fate = Fate.POISONOUS
            else:
                fate = Fate.AGAIN if struck or batch.again else Fate.REQUEUE
            yield Casualty(batch, part, fate)
