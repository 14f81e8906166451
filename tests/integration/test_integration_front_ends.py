"""A server with two front ends: where connections land, cancels, deadlines, control, limits, deaths."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import front_ends
import gates
import models
import numpy as np
import pumps
import pytest
from front_ends import LONG, connect, until
from tensorwire.bench.malformed import check_frames, check_refusal, load_refusals
from tensorwire.bench.raw import RawPeer
from tensorwire.client import Client
from tensorwire.rpc.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    NotFoundError,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
)
from tensorwire.server import Server

if TYPE_CHECKING:
    from conftest import Serve

VECTORS = Path(__file__).parent.parent / "vectors"
X = {"x": np.ones((1, 16), np.float32)}


def x(value: float) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.full((1, 2), value, np.float32)}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    models.matmul(tmp_path / "repository" / "m" / "1")
    return tmp_path / "repository"


class Gated:
    """A server whose model waits at a gate, with a client at each front end."""

    def __init__(self, serve: Serve, repository: Path, stack: ExitStack, **serving: Any) -> None:
        self.gate = gates.Gate(repository.parent)
        self.gate.write_model(repository / "gated" / "1")
        config = "[workers]\ncount = 1\n[batching]\nmax_batch_size = 1\n"
        gates.configure(repository / "gated", config, "thread")
        self.server: Server = serve(repository, front_ends=2, **serving)
        self.gate.forget()
        self.here = stack.enter_context(connect(self.server.endpoint, at_server=True))
        self.there = stack.enter_context(connect(self.server.endpoint, at_server=False))
        stack.callback(self.gate.open)

    def block(self, value: float = 1) -> Any:
        self.gate.close()
        future = self.there.submit("gated", x(value))
        assert self.gate.entered()
        return future

    def counter(self, name: str) -> int:
        versions = self.here.control("stats")["versions"]
        return sum(version[name] for version in versions if version["model"] == "gated")

    def values(self) -> list[float]:
        return [value for batch in self.gate.seen for value in batch]


@pytest.fixture
def gated(serve: Serve, repository: Path) -> Iterator[Callable[..., Gated]]:
    with ExitStack() as stack:
        yield lambda **serving: Gated(serve, repository, stack, **serving)


# ---------------------------------------------------------------- connections


def test_connections_come_to_both(serve: Serve, repository: Path) -> None:
    server = serve(repository, front_ends=2)
    with (
        connect(server.endpoint, at_server=True) as here,
        connect(server.endpoint, at_server=False) as there,
    ):
        same = [client.predict("m", X)["y"].tolist() for client in (here, there)]
        assert same[0] == same[1]
        (other,) = front_ends.others(here)
        assert other["process"] != os.getpid()
        assert other["pump"]["requests"] == 1
        assert there.control("health")["ready"]


def test_one_front_end_is_as_it_was(serve: Serve, repository: Path) -> None:
    server = serve(repository)
    with Client(server.endpoint, timeout=LONG) as client:
        assert front_ends.others(client) == []
    names = {thread.name for thread in threading.enumerate()}
    assert "tensorwire-front-ends" not in names
    # Without SO_REUSEPORT nobody can share the port.
    with pytest.raises(FailedPreconditionError, match="in use by another process"):
        serve(repository, front_ends=2, bind=server.endpoint)


def test_a_port_with_several_front_ends_is_in_use_too(serve: Serve, repository: Path) -> None:
    server = serve(repository, front_ends=2)
    for count in (1, 2):
        with pytest.raises(FailedPreconditionError, match="in use by another process"):
            serve(repository, front_ends=count, bind=server.endpoint)
    with Client(server.endpoint, timeout=LONG) as client:
        client.predict("m", X)


def test_an_address_for_one_only(serve: Serve, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match=r"has room for one front end; use tcp://HOST:PORT"):
        serve(repository, front_ends=2, bind=f"ipc://{tmp_path}/socket")


@pytest.mark.skipif(os.geteuid() != 0 or platform.machine() != "x86_64", reason="takes on another user's id")
def test_other_users_do_not_get_in(serve: Serve, repository: Path) -> None:
    """Everybody can see the name of the server's own socket."""
    server = serve(repository, front_ends=2)
    address = "\0" + server.front_end.inner_endpoint.removeprefix("ipc://@")
    libc = ctypes.CDLL(None)
    set_resuid, nobody = 117, 65534

    def greeting(user: int) -> bytes:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(LONG)
            # The system call is about this thread alone.
            libc.syscall(set_resuid, -1, user, -1)
            try:
                peer.connect(address)
            finally:
                libc.syscall(set_resuid, -1, 0, -1)
            try:
                return peer.recv(1)
            except ConnectionResetError:
                return b""

    assert greeting(os.getuid()) == b"\xff"
    assert greeting(nobody) == b""


# ---------------------------------------------------------------- what the server decides


def test_a_cancelled_request_is_never_computed(gated: Callable[..., Gated]) -> None:
    rig = gated()
    blocked = rig.block()
    doomed, kept = rig.there.submit("gated", x(8)), rig.there.submit("gated", x(9))
    until(lambda: rig.counter("queued_rows") == 2)
    assert doomed.cancel()
    until(lambda: rig.counter("cancelled") == 1)
    rig.gate.open()
    assert kept.result(LONG)["y"][0, 0] == 18
    blocked.result(LONG)
    assert rig.values() == [1, 9]


def test_a_deadline_passes_in_the_queue(gated: Callable[..., Gated]) -> None:
    rig = gated()
    blocked = rig.block()
    over = time.monotonic() + 0.3
    late = rig.there.submit("gated", x(7), timeout=0.05)
    until(lambda: rig.counter("queued_rows") == 1)
    assert isinstance(late.exception(LONG), DeadlineExceededError)
    # The server's own deadline is later than the client's by the way there.
    until(lambda: time.monotonic() > over)
    rig.gate.open()
    blocked.result(LONG)
    until(lambda: rig.counter("expired") == 1)
    assert rig.values() == [1]


def test_limits_and_priorities_are_those_of_the_server(gated: Callable[..., Gated]) -> None:
    rig = gated(max_in_flight=3)
    blocked = rig.block()
    normal = rig.here.submit("gated", x(2))
    until(lambda: rig.counter("queued_rows") == 1)
    high = rig.there.submit("gated", x(3), priority=1)
    until(lambda: rig.counter("queued_rows") == 2)
    with pytest.raises(ResourceExhaustedError, match="limit of 3 requests"):
        rig.there.predict("gated", x(4))
    rig.gate.open()
    for future in (blocked, normal, high):
        future.result(LONG)
    assert rig.values() == [1, 3, 2]


def test_control_calls(gated: Callable[..., Gated]) -> None:
    rig = gated()
    rig.block()  # they are answered all the same
    for client in (rig.here, rig.there):
        assert {line.model for line in client.status()} == {"m", "gated"}
        assert client.metadata("m").inputs[0].name == "x"
        with pytest.raises(NotFoundError, match="no model 'nope'"):
            client.metadata("nope")
        with pytest.raises(RpcError, match="no control method 'nope'"):
            client.control("nope")
    rig.there.control("models.unload", {"model": "m"})
    until(lambda: "m" not in rig.here.health().models)


@pytest.mark.parametrize("pump", pumps.NAMES)
def test_malformed_messages(
    serve: Serve, repository: Path, pump: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are answered and counted where they arrive, and harm nobody."""
    pumps.pump_named(pump)
    monkeypatch.setenv("TENSORWIRE_PURE_PYTHON", "1" if pump == "python" else "0")
    models.identity(repository / "identity" / "1", "float32", ("n", 16))
    server = serve(repository, front_ends=2)

    def answered() -> int:
        return sum(each["pump"]["malformed_answered"] for each in front_ends.others(client))

    with connect(server.endpoint, at_server=False) as client, ExitStack() as stack:
        for _ in range(64):
            before = answered()
            peer = stack.enter_context(RawPeer(server.endpoint))
            refusals = load_refusals(VECTORS)
            assert [check_refusal(peer, client, vector) for vector in refusals] == [""] * len(refusals)
            if answered() > before:
                break
        assert answered() > 30
        for difference in (-1, 1, 300):
            assert check_frames(peer, (1 << 20) + ((difference + 1) << 8), 1, difference) == ""
        np.testing.assert_array_equal(client.predict("identity", X)["y"], X["x"])


# ---------------------------------------------------------------- ends


def test_a_stop_answers_what_is_in_flight(gated: Callable[..., Gated]) -> None:
    rig = gated()
    waiting = [rig.there.submit("gated", x(value)) for value in (1, 2, 3)]
    rig.gate.close()
    more = [client.submit("gated", x(value)) for value, client in ((4, rig.here), (5, rig.there))]
    # All of them have come in: what is on its way still would be refused.
    until(lambda: rig.counter("requests") == 5)
    pids = [each["process"] for each in front_ends.others(rig.here)]
    done: list[bool] = []
    closing = threading.Thread(target=lambda: done.append(rig.server.close()))
    closing.start()
    until(lambda: rig.there.health().draining)
    with pytest.raises(UnavailableError, match="shutting down"):
        rig.there.predict("m", X)
    rig.gate.open()
    assert [int(future.result(LONG)["y"][0, 0]) for future in (*waiting, *more)] == [2, 4, 6, 8, 10]
    closing.join(LONG)
    assert done == [True]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_after_the_grace_time_what_is_left_is_told(gated: Callable[..., Gated]) -> None:
    rig = gated(grace=0.05)
    blocked = rig.block()
    queued = rig.there.submit("gated", x(2))
    until(lambda: rig.counter("queued_rows") == 1)
    closing = threading.Thread(target=rig.server.close)
    closing.start()
    for future in (blocked, queued):
        assert isinstance(future.exception(LONG), UnavailableError)
    rig.gate.open()
    closing.join(LONG)


def test_one_that_is_killed_under_load_comes_back(serve: Serve, repository: Path) -> None:
    server = serve(repository, front_ends=2)
    stop = threading.Event()
    failures: dict[str, list[RpcError]] = {"here": [], "there": []}
    answered = dict.fromkeys(failures, 0)

    def call(name: str, client: Client) -> None:
        while not stop.is_set():
            try:
                client.predict("m", X, timeout=5.0)
                answered[name] += 1
            except RpcError as error:
                failures[name].append(error)

    with (
        connect(server.endpoint, at_server=True) as here,
        connect(server.endpoint, at_server=False) as there,
    ):
        threads = [threading.Thread(target=call, args=pair) for pair in (("here", here), ("there", there))]
        for thread in threads:
            thread.start()
        try:
            until(lambda: min(answered.values()) > 20)
            (before,) = front_ends.others(here)
            os.kill(before["process"], signal.SIGKILL)
            until(lambda: failures["there"])
            seen = answered["there"]
            until(lambda: answered["there"] > seen + 20)
            (after,) = until(lambda: [each for each in front_ends.others(here) if each["listening"]])
        finally:
            stop.set()
            for thread in threads:
                thread.join(LONG)
        assert failures["here"] == []
        assert {type(error) for error in failures["there"]} <= {UnavailableError}
        assert after["process"] != before["process"]
        assert after["lost"] == 1
    with connect(server.endpoint, at_server=False) as again:
        again.predict("m", X)


def test_one_that_stops_is_not_waited_for(serve: Serve, repository: Path) -> None:
    """The server ends in its time, whatever its front ends do."""
    server = serve(repository, front_ends=2, grace=0.05)
    with Client(server.endpoint, timeout=LONG) as client:
        (other,) = front_ends.others(client)
    os.kill(other["process"], signal.SIGSTOP)
    assert not server.close()
    assert not Path(f"/proc/{other['process']}").exists()


def test_cancelled_by_whom_it_belongs_to_only(gated: Callable[..., Gated]) -> None:
    """Two peers of one front end use the same ids."""
    rig = gated()
    with connect(rig.server.endpoint, at_server=False) as another:
        rig.block()
        mine, theirs = rig.there.submit("gated", x(2)), another.submit("gated", x(3))
        until(lambda: rig.counter("queued_rows") == 2)
        assert mine.cancel()
        until(lambda: rig.counter("cancelled") == 1)
        rig.gate.open()
        assert theirs.result(LONG)["y"][0, 0] == 6
        assert mine.cancelled()
