"""How many batches a version may run at once, so that a flood on one model leaves cores to the others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from .runtime import VersionRuntime

#: A version counts as in use for so many seconds after its last request.
IN_USE: Final = 0.25
#: Seconds for which a count of versions in use holds: it is asked for with every batch.
_FRESH: Final = 0.01


class CoreShares:
    """Equal shares of the cores for the versions that are in use; at least one core each.

    A version that is alone has no limit, and neither has one with cores of its own (``[workers] cpus``).
    Limited is what runs at once, not for how long: whoever comes may have to wait for one batch.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._counted_at = -math.inf
        self._in_use = 0

    def limit(self, runtime: VersionRuntime, others: Iterable[VersionRuntime], now: float) -> float:
        """How many workers of ``runtime``, which is in use, may have batches at once.

        Args:
            others: all runtimes, this one among them.
        """
        workers = runtime.handle.config.workers
        if workers.cpus is not None or runtime.load.workers <= 1:
            return math.inf
        if now >= self._counted_at + _FRESH:
            self._counted_at = now
            self._in_use = sum(now < other.active_at + IN_USE for other in others)
        return math.inf if self._in_use <= 1 else max(1, self._cores // self._in_use)
