"""The blocking client's mutex: whoever waits for it disturbs the one that keeps it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from tensorwire.client.gate import Gate

LONG = 30.0


class Holder:
    """Keeps the mutex until it is disturbed."""

    def __init__(self) -> None:
        self.disturbed = threading.Event()

    def disturb(self) -> None:
        self.disturbed.set()


def enter(gate: Gate) -> bool:
    with gate:
        return gate.lock.locked()


def test_who_finds_it_free_disturbs_nobody() -> None:
    gate, holder = Gate(), Holder()
    gate.holder = holder
    assert enter(gate)
    assert not gate.lock.locked()
    assert not holder.disturbed.is_set()


def test_all_that_wait_get_in() -> None:
    gate, holder = Gate(), Holder()
    with ThreadPoolExecutor(4) as pool:
        with gate:
            gate.holder = holder
            waiting = [pool.submit(enter, gate) for _ in range(4)]
            assert holder.disturbed.wait(LONG)
            assert gate.waiting
            gate.holder = None
        assert all(entered.result(LONG) for entered in waiting)
    assert not gate.waiting
    assert not gate.lock.locked()


def test_who_waits_is_seen_or_sees_the_holder() -> None:
    """However the two meet: a holder that saw nobody wait is disturbed by whoever comes."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(500):
            holder = Holder()
            with gate:
                entered = pool.submit(enter, gate)
                gate.holder = holder
                assert gate.waiting or holder.disturbed.wait(LONG)
                gate.holder = None
            assert entered.result(LONG)
