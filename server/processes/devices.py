"""Which GPU each worker process of a version computes on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence


class Devices:
    """GPUs that the processes of a version share: each has one of them, a new one that which the fewest have.

    Used by any thread.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """``names``: in this order they are taken first; none: the processes see what the server sees."""
        self._names = tuple(names)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self) -> str | None:
        """That of a process which is about to start; None: all."""
        if not self._names:
            return None
        with self._lock:
            name = min(self._names, key=self._taken.__getitem__)
            self._taken[name] += 1
            return name

    def give_back(self, name: str | None) -> None:
        """Its process has ended, or was never there."""
        if name is not None:
            with self._lock:
                self._taken[name] -= 1


def environment_of(device: str | None) -> dict[str, str]:
    """What a process has in its environment, so that it sees this GPU only, as its first one."""
    if device is None:
        return {}
    # By the numbers that nvidia-smi shows; CUDA's own would begin with the fastest.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": device}
