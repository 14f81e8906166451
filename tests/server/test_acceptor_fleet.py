"""Ports that are shared, waits between two starts, and counters that another process reads."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest
from tensorwire.rpc.errors import FailedPreconditionError, InvalidArgumentError
from tensorwire.rpc.pump import Counters
from tensorwire.server.acceptor.fleet import Backoff
from tensorwire.server.acceptor.port import claim, reserve
from tensorwire.server.acceptor.tally import Tally, new_memory


def test_waits_grow_and_end() -> None:
    backoff = Backoff()
    assert [backoff.after(0.0) for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert backoff.after(60.0) == 0.1
    assert backoff.after(0.0) == 0.2
    assert max(backoff.after(0.0) for _ in range(5000)) == 10.0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "*", "lo"])
def test_a_port_is_claimed_once_and_shared_then(host: str) -> None:
    endpoint = claim(f"tcp://{host}:0")
    port = int(endpoint.rsplit(":", 1)[1])
    assert port
    with ExitStack() as stack:
        listeners = [stack.enter_context(reserve(endpoint)) for _ in range(3)]
        assert {each.getsockname()[1] for each in listeners} == {port}
        listeners[0].listen()
        with pytest.raises(FailedPreconditionError, match=f"{port} is in use by another process"):
            claim(f"tcp://{host}:{port}")
    assert claim(endpoint) == endpoint


def test_what_is_used_by_others_is_reported() -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        endpoint = f"tcp://127.0.0.1:{occupied.getsockname()[1]}"
        for take in (claim, reserve):
            with pytest.raises(FailedPreconditionError, match=f"{endpoint} is in use by another process"):
                take(endpoint)


def test_what_cannot_be_shared() -> None:
    with pytest.raises(FailedPreconditionError, match="has room for one front end"):
        claim("ipc:///tmp/nobody")
    with pytest.raises(InvalidArgumentError, match="cannot bind"):
        claim("tcp://nowhere:1")
    with pytest.raises(InvalidArgumentError, match="not an address with a port"):
        reserve("tcp://127.0.0.1")


def test_a_tally() -> None:
    fd = new_memory()
    here, there = Tally(fd), Tally(fd)
    os.close(fd)
    assert there.read() == Counters()
    here.write(Counters(messages=3, peer_stuck=1 << 40))
    assert there.read() == Counters(messages=3, peer_stuck=1 << 40)
