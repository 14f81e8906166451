from __future__ import annotations

import ctypes
import sys

import pytest
from tensorwire.manager.heap import HeapKeeper, Reading, read_memory
from tensorwire.manager.memory import trim_heap

MIB = 1 << 20


class Memory:
    """Resident memory: ``used`` and ``free`` bytes of the heap, which trimming gives back, and ``code``."""

    def __init__(self, used: int) -> None:
        self.used = used
        self.free = 0
        self.code = 50 * MIB
        self.trims = 0

    def read(self) -> Reading:
        return Reading(self.code + self.used + self.free, self.used)

    def trim(self) -> None:
        self.trims += 1
        self.free = 0


def keeper_of(memory: Memory) -> HeapKeeper:
    """One that has trimmed what there was at the start."""
    keeper = HeapKeeper(memory.read, memory.trim)
    seconds(keeper, 0, 5)
    memory.trims = 0
    return keeper


def seconds(keeper: HeapKeeper, begin: int, end: int, seen: int = 0) -> list[int]:
    """Look once a second while no message comes; when it trimmed."""
    return [now for now in range(begin, end) if keeper.look(float(now), seen)]


def test_what_a_burst_left_is_given_back_after_two_quiet_seconds() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    memory.free = 60 * MIB
    assert seconds(keeper, 10, 30, seen=1) == [12]
    assert memory.free == 0


def test_while_messages_come_the_heap_is_left_alone() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    memory.free = 600 * MIB
    assert not any(keeper.look(float(now), now) for now in range(10, 1000))
    assert seconds(keeper, 1000, 1010, seen=999) == [1001]


def test_little_is_not_worth_it() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    memory.free = 31 * MIB
    assert seconds(keeper, 10, 1000) == []


def test_little_by_little_is_not_overlooked() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    for now in range(10, 50):
        memory.free += MIB
        keeper.look(float(now), 0)
    assert memory.free < 10 * MIB
    assert memory.trims == 1


def test_what_is_in_use_is_left_alone() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    memory.used = 900 * MIB
    assert seconds(keeper, 10, 1000) == []


def test_what_is_not_of_the_heap_is_tried_once() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    memory.code += 900 * MIB
    assert len(seconds(keeper, 10, 1000)) == 1


def test_what_was_in_use_at_a_trim_is_given_back_later() -> None:
    memory = Memory(100 * MIB)
    keeper = keeper_of(memory)
    memory.used, memory.free = 180 * MIB, 40 * MIB
    assert seconds(keeper, 10, 20, seen=1) == [12]
    memory.used, memory.free = 100 * MIB, 80 * MIB
    assert seconds(keeper, 100, 110, seen=2) == [102]
    assert memory.free == 0


def test_where_the_system_does_not_tell_nothing_happens() -> None:
    memory = Memory(0)
    keeper = HeapKeeper(lambda: None, memory.trim)
    assert seconds(keeper, 0, 100) == []
    assert memory.trims == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and counts on glibc")
def test_the_real_heap() -> None:
    libc = ctypes.CDLL(None)
    if read_memory() is None:
        pytest.skip("not glibc 2.33 or later: the allocator returns memory by itself or not at all")
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    keeper = HeapKeeper()
    seconds(keeper, 0, 5)
    before = resident()
    # Small blocks, of which every hundredth stays: the holes between those are what a heap keeps.
    blocks = [libc.malloc(4096) for _ in range(20_000)]
    for block in blocks:
        ctypes.memset(block, 1, 4096)
    assert seconds(keeper, 5, 10) == []
    for number, block in enumerate(blocks):
        if number % 100:
            libc.free(block)
    assert resident() > before + 40 * MIB
    assert seconds(keeper, 11, 15, seen=1) == [13]
    assert resident() < before + 24 * MIB
    for block in blocks[::100]:
        libc.free(block)
    trim_heap()


def resident() -> int:
    reading = read_memory()
    assert reading is not None
    return reading.resident
