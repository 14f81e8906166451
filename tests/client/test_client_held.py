"""Without a connection calls wait in the client: a server that comes is asked for what is wanted still."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import zmq
from router import Router
from tensorwire.client import AsyncClient, Client
from tensorwire.client.channel import Channel
from tensorwire.client.link import Link
from tensorwire.client.requests import Templates
from tensorwire.rpc.errors import UnavailableError
from tensorwire.rpc.wire.prefix import Kind

LONG = 10.0
X = {"x": np.ones((1, 2), np.float32)}
LARGE = {"x": np.ones((1, 1 << 16), np.float32)}


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def address(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def model_of(router: Router) -> str:
    """What the next message asks for; it is answered."""
    message = router.receive(LONG)
    assert message.kind == Kind.REQUEST
    router.answer(message)
    return message.signature.header.model


def test_what_nobody_waits_for_any_more_is_not_sent(port: int) -> None:
    with Client(address(port), timeout=0.1) as client:
        for _ in range(3):
            with pytest.raises(UnavailableError):
                client.predict("stale", X)
        with pytest.raises(UnavailableError):
            client.submit("stale", LARGE).result(LONG)
        with pytest.raises(UnavailableError):
            client.control("models.unload", {"model": "m"})
        wanted = client.submit("wanted", X, timeout=LONG)
        with Router(port) as router:
            assert model_of(router) == "wanted"
            wanted.result(LONG)
            last = client.submit("last", X, timeout=LONG)
            assert model_of(router) == "last"
            last.result(LONG)


def test_nor_by_the_asynchronous_client(port: int) -> None:
    async def main() -> None:
        async with AsyncClient(address(port), timeout=0.1) as client:
            calls = [client.predict("stale", inputs) for inputs in (X, X, LARGE)]
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, UnavailableError)
            with pytest.raises(UnavailableError):
                await client.control("models.unload", {"model": "m"})
            wanted = [asyncio.ensure_future(client.predict("wanted", X, timeout=LONG)) for _ in range(3)]
            await asyncio.sleep(0)
            with Router(port) as router:
                seen = 0
                while seen < len(wanted):
                    message = await asyncio.to_thread(router.receive, LONG)
                    assert message.signature.header.model == "wanted"
                    router.answer(message)
                    seen += message.count
                await asyncio.gather(*wanted)

    asyncio.run(main())


def test_nor_after_a_server_has_gone() -> None:
    router = Router()
    with Client(router.endpoint, timeout=LONG) as client:
        first = client.submit("first", X)
        assert model_of(router) == "first"
        first.result(LONG)
        lost = client.submit("lost", X)
        router.receive()
        router.close()
        assert isinstance(lost.exception(LONG), UnavailableError)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                client.predict("stale", X, timeout=0.05)
        wanted = client.submit("wanted", X)
        with Router(router.port) as router:
            assert model_of(router) == "wanted"
            wanted.result(LONG)


def test_what_is_still_wanted_is_sent_with_the_time_that_is_left(port: int) -> None:
    with Client(address(port)) as client:
        limited, endless = client.submit("m", X, timeout=LONG), client.submit("m", X, timeout=None)
        with Router(port) as router:
            messages = [router.receive(LONG) for _ in range(2)]
            left = [message.prefix.timeout_us for message in messages]
            assert 0 < left[0] < LONG * 1e6
            assert left[1] == 0
            for message in messages:
                router.answer(message)
            limited.result(LONG)
            endless.result(LONG)


@pytest.mark.parametrize("inputs", [X, LARGE], ids=["small", "large"])
def test_values_are_those_of_the_call(port: int, inputs: dict[str, Any]) -> None:
    x = inputs["x"].copy()
    with Client(address(port), timeout=LONG) as client:
        future = client.submit("m", {"x": x})
        x[:] = 7
        with Router(port) as router:
            message = router.receive(LONG)
            assert (message.inputs["x"] == 1).all()
            router.answer(message)
            future.result(LONG)


def test_a_cancelled_call_is_not_sent(port: int) -> None:
    with Client(address(port), timeout=LONG) as client:
        assert client.submit("cancelled", X).cancel()
        wanted = client.submit("wanted", X)
        with Router(port) as router:
            assert model_of(router) == "wanted"
            wanted.result(LONG)


def test_what_waits_in_vain_takes_no_memory(port: int) -> None:
    channel = Channel(address(port), fuse=False)
    link = Link(zmq.Context.instance(), address(port), channel)
    template, arrays = Templates().get("m", X, None, None, None, b"")
    try:
        for now in range(10_000):
            link.single(Future[Any](), template, arrays, 1.0, float(now))
            channel.expire(float(now))
        assert len(link._held) <= 128  # pyright: ignore[reportPrivateUsage]
    finally:
        link.close()
