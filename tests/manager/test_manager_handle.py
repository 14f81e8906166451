from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from fake_engine import FakeServable
from tensorwire.manager.config import ModelConfig
from tensorwire.manager.handle import ServableHandle
from tensorwire.rpc.errors import UnavailableError


def make() -> ServableHandle:
    return ServableHandle("m", 1, FakeServable("m", 1), ModelConfig())


def test_closing_waits_for_the_last_reference() -> None:
    handle, idle = make(), list[int]()
    assert handle.acquire()
    assert handle.acquire()
    handle.begin_close(lambda: idle.append(1))
    assert not handle.acquire()
    handle.release()
    assert idle == []
    handle.release()
    assert idle == [1]


def test_closing_an_idle_handle_notifies_at_once_and_once() -> None:
    handle, idle = make(), list[int]()
    handle.begin_close(lambda: idle.append(1))
    handle.begin_close(lambda: idle.append(2))
    assert idle == [1]
    assert handle.closing


def test_too_many_releases_are_a_fault() -> None:
    handle = make()
    with pytest.raises(RuntimeError, match="without acquire"):
        handle.release()


def test_a_stale_handle_holds_no_model() -> None:
    handle = make()
    model = weakref.ref(handle.servable)
    handle.close_servable()
    gc.collect()
    assert model() is None
    with pytest.raises(UnavailableError, match="version 1 of model 'm' was unloaded"):
        handle.servable.run({"x": np.zeros(1)}, ["y"])
    handle.servable.close()


def test_threads_that_acquire_and_release_are_all_counted() -> None:
    handle, idle = make(), threading.Event()
    refused = threading.Barrier(4)

    def work() -> None:
        while handle.acquire():
            handle.release()
        refused.wait(10)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    handle.begin_close(idle.set)
    for thread in threads:
        thread.join(10)
    assert idle.is_set()
    assert handle.references == 0
    assert "m:1" in repr(handle)
