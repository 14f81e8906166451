"""The clients' connection: nothing that has come in is lost with it, and a bad call harms no other."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import zmq
from router import Router
from tensorwire.client.channel import Channel
from tensorwire.client.link import Link
from tensorwire.client.requests import Templates
from tensorwire.rpc.errors import InvalidArgumentError, UnavailableError

LONG = 10.0
X = np.ones((1, 2), np.float32)


class Rig:
    """A link, whose socket nobody reads, with two calls in flight."""

    def __init__(self) -> None:
        self.router = Router()
        self.channel = Channel(self.router.endpoint, fuse=False)
        self.link = Link(zmq.Context.instance(), self.router.endpoint, self.channel)
        self.observe_until(lambda: self.channel.down is None)
        template, arrays = Templates().get("m", {"x": X}, None, None, None, b"")
        self.calls: list[Future[Any]] = [Future(), Future()]
        for call in self.calls:
            self.link.single(call, template, arrays, None, 0.0)

    def observe_the_loss(self) -> None:
        self.observe_until(lambda: not self.channel.pending.envelopes)

    def observe_until(self, reached: Callable[[], bool]) -> None:
        poller = select.poll()
        poller.register(self.link.monitor_fd, select.POLLIN)
        until = time.monotonic() + LONG
        while not reached():
            assert time.monotonic() < until
            self.link.observe()
            poller.poll(20)


@pytest.fixture
def rig() -> Any:
    rig = Rig()
    yield rig
    rig.link.close()
    rig.router.close()


def test_what_was_answered_before_the_connection_was_lost_is_delivered(rig: Rig) -> None:
    answered, lost = rig.calls
    rig.router.answer(rig.router.receive())
    rig.router.close(linger_ms=1000)
    rig.observe_the_loss()
    assert answered.result(0)["y"].tolist() == [[1, 1]]
    assert isinstance(lost.exception(0), UnavailableError)


@pytest.mark.parametrize(
    ("value", "message"),
    [(["a", 1], "is a int"), (["a", None], "is a NoneType"), (["\ud800"], "has no UTF-8 form")],
)
def test_one_bad_element_fails_its_own_call_only(rig: Rig, value: list[Any], message: str) -> None:
    def text(elements: list[Any]) -> Any:
        return Templates().get("m", {"x": np.array(elements, object)}, None, None, None, b"")

    for _ in rig.calls:
        rig.router.receive()
    bad, good, alone = Future[Any](), Future[Any](), Future[Any]()
    rig.channel.enqueue(bad, *text(value), 1.0)
    rig.channel.enqueue(good, *text(["fine"]), 1.0)
    rig.link.flush(0.0)
    assert rig.router.receive().inputs["x"].tolist() == ["fine"]
    with pytest.raises(InvalidArgumentError, match=message):
        bad.result(0)
    assert not good.done()
    with pytest.raises(InvalidArgumentError, match=message):
        rig.link.single(alone, *text(value), 1.0, 0.0)
    assert len(rig.channel.pending.envelopes) == len(rig.calls) + 1
    assert rig.router.silent()
