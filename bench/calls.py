"""The calls that a load is made of, of the ordinary and of the slow kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from .arrivals import slow_flags

Call = TypeVar("Call")


class Calls(Generic[Call]):
    """Calls that are ready to make, in turn. Threads may share them.

    Args:
        ordinary: at least one.
        code_of: name of the status code of a failed call.
        slow: at least one where ``slow_share`` is more than 0.
        slow_share: share of the calls that are slow ones, drawn from a generator that starts with ``seed``.

    Raises:
        ValueError: slow calls are wanted and there are none.
    """

    def __init__(
        self,
        ordinary: Sequence[Call],
        code_of: Callable[[Exception], str],
        *,
        slow: Sequence[Call] = (),
        slow_share: float = 0.0,
        seed: int = 0,
    ) -> None:
        if slow_share and not slow:
            raise ValueError(f"{slow_share:.1%} of the calls are to be slow ones, but no slow case is named")
        self.code_of = code_of
        #: The next ordinary call.
        self.ordinary = itertools.cycle(ordinary).__next__
        #: The next slow call; the next ordinary one where there are none.
        self.slow = itertools.cycle(slow or ordinary).__next__
        #: Whether the next call is a slow one.
        self.is_slow = slow_flags(slow_share, seed).__next__
