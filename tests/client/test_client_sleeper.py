"""What a blocking caller sleeps at: it wakes for the socket, for other threads, and when its time is over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tensorwire.client import Client
from tensorwire.client.sleeper import Sleeper, longest_sleep
from tensorwire.rpc.errors import InvalidArgumentError

FOREVER = 30_000


@pytest.fixture
def arrived() -> Iterator[int]:
    """A descriptor that becomes readable when it is written to."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture(params=[0.0, 10.0], ids=["sleeping", "spinning"])
def sleeper(request: pytest.FixtureRequest, arrived: int) -> Iterator[Sleeper]:
    made = Sleeper(arrived, request.param)
    yield made
    made.close()


def slept(sleeper: Sleeper, event: Callable[[], None]) -> float:
    """Seconds until a sleep ended that ``event``, in another thread, is to end."""
    timer = threading.Timer(0.01, event)
    timer.start()
    begun = time.monotonic()
    sleeper.sleep(FOREVER)
    timer.join()
    return time.monotonic() - begun


def test_what_arrives_ends_it_and_is_left_for_the_reader(sleeper: Sleeper, arrived: int) -> None:
    assert slept(sleeper, lambda: os.eventfd_write(arrived, 1)) < 9
    sleeper.sleep(FOREVER)
    assert os.eventfd_read(arrived) == 1


def test_another_thread_ends_it_once(sleeper: Sleeper) -> None:
    assert slept(sleeper, sleeper.wake) < 9
    begun = time.monotonic()
    sleeper.sleep(20)
    assert time.monotonic() - begun >= 0.019


def test_it_sleeps_when_it_has_looked_long_enough(arrived: int) -> None:
    sleeper = Sleeper(arrived, 0.001)
    try:
        assert slept(sleeper, lambda: os.eventfd_write(arrived, 1)) >= 0.005
    finally:
        sleeper.close()


def test_time_that_is_over_ends_it(sleeper: Sleeper) -> None:
    begun = time.monotonic()
    sleeper.sleep(5)
    assert 0.004 <= time.monotonic() - begun < 9


def test_a_signal_that_was_overlooked_is_not_for_long(arrived: int) -> None:
    """Nothing would wake the main thread, which runs the handlers."""
    sleeper = Sleeper(arrived, 0.0)
    begun = time.monotonic()
    sleeper.sleep(FOREVER)
    sleeper.close()
    assert time.monotonic() - begun < 9
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(longest_sleep).result() > FOREVER * 1e-3


@pytest.mark.parametrize("spin", [-0.1, 1.5, float("nan")])
def test_nobody_spins_for_so_long(spin: float) -> None:
    with pytest.raises(InvalidArgumentError, match="expected seconds from 0 to 1"):
        Client("tcp://127.0.0.1:1", spin=spin)
