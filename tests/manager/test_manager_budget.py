from __future__ import annotations

import pytest
from tensorwire.manager.budget import MemoryBudget, format_bytes
from tensorwire.manager.memory import return_memory


def test_reservations_against_the_total() -> None:
    budget = MemoryBudget(100)
    assert budget.reserve("a", 60)
    assert not budget.fits(41)
    assert not budget.reserve("b", 41)
    assert budget.reserve("b", 40)
    assert budget.used == 100
    budget.release("a")
    budget.release("a")
    assert budget.used == 40
    assert budget.can_ever_fit(100)
    assert not budget.can_ever_fit(101)


def test_no_limit() -> None:
    budget = MemoryBudget()
    assert budget.total is None
    assert budget.can_ever_fit(1 << 60)
    assert budget.reserve("a", 1 << 60)


def test_a_smaller_total_takes_nothing_away() -> None:
    budget = MemoryBudget(100)
    assert budget.reserve("a", 80)
    budget.resize(50)
    assert budget.used == 80
    assert not budget.fits(1)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_memory_can_be_returned_at_any_time() -> None:
    return_memory()
