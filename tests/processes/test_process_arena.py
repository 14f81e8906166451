"""Shared memory: who has which block, and when it is given back."""

from __future__ import annotations

import fcntl
import gc
import os
import threading
from collections import deque

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.rpc.errors import ProtocolError, ResourceExhaustedError
from tensorwire.server.processes import arena
from tensorwire.server.processes.arena import ALIGNMENT, Allocator, Mapping, new_memory

SIZE = 64 * 64


def mapping(nbytes: int = SIZE, *, writable: bool = True) -> Mapping:
    fd = new_memory(nbytes, reserve=False)
    try:
        return Mapping(fd, writable=writable)
    finally:
        os.close(fd)


class TestAllocator:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=120))
    def test_like_a_table_of_cells(self, steps: list[tuple[bool, int]]) -> None:
        """Against a model that paints cells: the lowest gap that is large enough, or none."""
        allocator = Allocator(SIZE)
        cells: list[int | None] = [None] * (SIZE // ALIGNMENT)
        taken: list[int] = []
        for take, number in steps:
            if not take and taken:
                offset = taken.pop(number % len(taken))
                allocator.give_back(offset)
                cells = [None if cell == offset else cell for cell in cells]
                continue
            need = max(1, -(-number // ALIGNMENT))
            free = (at for at in range(len(cells) - need + 1) if cells[at : at + need] == [None] * need)
            expected = next(free, None)
            offset = allocator.take(number)
            assert offset == (None if expected is None else expected * ALIGNMENT)
            if offset is not None and expected is not None:
                cells[expected : expected + need] = [offset] * need
                taken.append(offset)
        assert allocator.blocks == len(taken)
        assert allocator.used == sum(cell is not None for cell in cells) * ALIGNMENT
        for offset in taken:
            allocator.give_back(offset)
        assert allocator.take(SIZE) == 0

    @pytest.mark.parametrize("offset", [0, 64, 128, -64, SIZE, 1])
    def test_what_is_not_in_use_cannot_be_given_back(self, offset: int) -> None:
        allocator = Allocator(SIZE)
        first, second = allocator.take(64), allocator.take(64)
        assert (first, second) == (0, 64)
        allocator.give_back(0)
        allocator.give_back(64)
        with pytest.raises(ProtocolError, match="no block"):
            allocator.give_back(offset)


class TestMapping:
    def test_both_see_the_same_and_only_one_may_write(self) -> None:
        fd = new_memory(SIZE, reserve=True)
        ours, theirs = Mapping(fd, writable=True), Mapping(fd, writable=False)
        os.close(fd)
        ours.bytes[128:132] = [1, 2, 3, 4]
        assert theirs.lend(128, 4).tolist() == [1, 2, 3, 4]
        assert not theirs.bytes.flags.writeable
        assert not ours.lend(0, 64).flags.writeable

    @pytest.mark.parametrize(
        ("offset", "nbytes"),
        [
            (-64, 64),
            (0, 0),
            (0, -1),
            (1, 4),
            (32, 4),
            (0, SIZE + 1),
            (SIZE, 1),
            (SIZE - 64, 65),
            (1 << 62, 1),
        ],
    )
    def test_nothing_outside_is_lent(self, offset: int, nbytes: int) -> None:
        with pytest.raises(ProtocolError, match="does not lie"):
            mapping().lend(offset, nbytes)

    def test_what_could_be_shrunk_is_refused(self) -> None:
        fd = os.memfd_create("shrinkable", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, SIZE)
        with pytest.raises(ProtocolError, match="not sealed"):
            Mapping(fd, writable=False)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        assert Mapping(fd, writable=False).nbytes == SIZE
        os.close(fd)

    def test_what_is_no_memory_is_refused(self) -> None:
        ends = os.pipe()
        with pytest.raises(ProtocolError, match="not a piece of shared memory"):
            Mapping(ends[0], writable=False)
        for fd in ends:
            os.close(fd)

    def test_nobody_can_shrink_it(self) -> None:
        fd = new_memory(SIZE, reserve=False)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        os.close(fd)

    def test_too_much_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Not tried with a real lack of it: the kernel would kill processes of others as well.
        monkeypatch.setattr(arena, "_available_bytes", lambda: SIZE)
        os.close(new_memory(SIZE, reserve=True))
        with pytest.raises(ResourceExhaustedError, match="do not fit"):
            new_memory(SIZE + 1, reserve=True)

    def test_what_is_available_is_known(self) -> None:
        assert 1 << 20 < arena._available_bytes() < 1 << 60


class TestLeases:
    def test_the_last_view_gives_it_back(self) -> None:
        returned: deque[int] = deque()
        lent = mapping().lend(64, 256, returned)
        view = np.frombuffer(lent, ml_dtypes.bfloat16).reshape(8, 16)[2:4, ::2].T
        buffer = memoryview(lent)
        other = view[:1].view(np.uint16)
        del lent
        gc.collect()
        assert not returned
        del view
        del buffer
        assert not returned
        del other
        assert list(returned) == [64]

    def test_the_memory_stays_while_something_uses_it(self) -> None:
        memory = mapping()
        memory.bytes[64:68] = 7
        lent = memory.lend(64, 4)
        del memory
        gc.collect()
        assert lent.tolist() == [7] * 4

    def test_in_any_thread(self) -> None:
        returned: deque[int] = deque()
        memory = mapping()
        lent = [[memory.lend(64 * at, 64, returned)] for at in range(64)]

        def drop(some: list[list[np.ndarray]]) -> None:
            for one in some:
                one.clear()

        threads = [threading.Thread(target=drop, args=(lent[at::4],)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(returned) == [64 * at for at in range(64)]
