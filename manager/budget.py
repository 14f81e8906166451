"""MemoryBudget: one number of bytes that all versions share, by their estimates."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class MemoryBudget:
    """Reservations against a total. Thread safe; ``total=None`` means no limit."""

    def __init__(self, total: int | None = None) -> None:
        self._lock = threading.Lock()
        self._total = total
        self._held: dict[Hashable, int] = {}

    @property
    def total(self) -> int | None:
        """Bytes in all, or ``None`` for no limit."""
        return self._total

    @property
    def used(self) -> int:
        """Bytes reserved at this moment."""
        with self._lock:
            return sum(self._held.values())

    def resize(self, total: int | None) -> None:
        """Change the total. Reservations stay even if they now exceed it; new ones wait."""
        with self._lock:
            self._total = total

    def can_ever_fit(self, size: int) -> bool:
        """Whether ``size`` bytes fit when nothing else is loaded."""
        return self._total is None or size <= self._total

    def fits(self, size: int) -> bool:
        """Whether ``size`` bytes fit at this moment."""
        with self._lock:
            return self._fits(size)

    def reserve(self, owner: Hashable, size: int) -> bool:
        """Reserve ``size`` bytes for ``owner``; ``False`` when they do not fit at present."""
        with self._lock:
            if not self._fits(size):
                return False
            self._held[owner] = self._held.get(owner, 0) + size
            return True

    def change(self, owner: Hashable, size: int) -> bool:
        """Have ``owner`` hold ``size`` bytes in place of what it holds; ``False`` when they do not fit."""
        with self._lock:
            held = self._held.get(owner, 0)
            if size > held and not self._fits(size - held):
                return False
            self._held[owner] = size
            return True

    def release(self, owner: Hashable) -> None:
        """Give back everything that ``owner`` holds; nothing if it holds nothing."""
        with self._lock:
            self._held.pop(owner, None)

    def _fits(self, size: int) -> bool:
        return self._total is None or sum(self._held.values()) + size <= self._total


def format_bytes(size: int) -> str:
    """``1536`` -> ``"1.5 KiB"``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
