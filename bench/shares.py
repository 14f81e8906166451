"""How several processes share a load."""

from __future__ import annotations

import numpy as np


def shares(callers: int, processes: int) -> list[int]:
    """How many of at least as many callers each process has; no two differ by more than one."""
    each, over = divmod(callers, processes)
    return [each + (number < over) for number in range(processes)]


def seed_of(seed: int, number: int) -> int:
    """Of one of the processes; the streams of all of them are independent."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
