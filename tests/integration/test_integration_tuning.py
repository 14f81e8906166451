"""Settings that change on a server under load: each is in force when it is said to be, nothing fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gates
import numpy as np
import pytest
from tensorwire.client import AsyncClient, Client
from tensorwire.rpc.errors import RpcError

if TYPE_CHECKING:
    from conftest import Serve

LONG = 20.0
STREAMS = 24


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what comes by itself."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


class Load:
    """Asyncio streams and two blocking clients, each with one request after the other, until it ends."""

    def __init__(self, endpoint: str) -> None:
        self.problems: list[Any] = []
        self.answers = 0
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._blocking) for _ in range(2)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._streams())))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LONG)

    def _check(self, sent: float, y: np.ndarray[Any, Any]) -> None:
        self.answers += 1
        if y.tolist() != [[2 * sent, 2 * sent]]:
            self.problems.append(f"{y.tolist()} for {sent}")

    def _blocking(self) -> None:
        with Client(self._endpoint, timeout=LONG) as client:
            while not self._stop.is_set():
                try:
                    self._check(5, client.predict("m", {"x": np.full((1, 2), 5, np.float32)})["y"])
                except RpcError as error:
                    self.problems.append(error)

    async def _streams(self) -> None:
        async with AsyncClient(self._endpoint, timeout=LONG) as client:
            await asyncio.gather(*[self._stream(client, 20.0 + number) for number in range(STREAMS)])

    async def _stream(self, client: AsyncClient, value: float) -> None:
        while not self._stop.is_set():
            try:
                self._check(
                    value, (await client.predict("m", {"x": np.full((1, 2), value, np.float32)}))["y"]
                )
            except RpcError as error:
                self.problems.append(error)


class Rig:
    """A server under load, and the operator's connection to it."""

    def __init__(self, client: Client, load: Load, gate: gates.Gate) -> None:
        self.client = client
        self.load = load
        self.gate = gate

    def sizes(self) -> list[int]:
        """Rows of the batches that the model has seen, in order."""
        return [len(batch) for batch in self.gate.seen]

    def set(self, **values: Any) -> None:
        """``workers_count=2`` is ``workers.count``. Returns when it is in force."""
        params = {"model": "m", "values": {key.replace("_", ".", 1): value for key, value in values.items()}}
        self.client.control("models.set", params)
        until(lambda: not self.settings()["pending"])
        assert not self.settings()["failed"], self.settings()["reason"]

    def settings(self) -> dict[str, Any]:
        (version,) = self.client.control("models.settings", {"model": "m"})["versions"]
        return version

    def workers(self) -> int:
        (version,) = self.client.control("stats")["versions"]
        return version["workers"]

    def go_on(self) -> None:
        """Requests are answered still."""
        answers = self.load.answers
        until(lambda: self.load.answers > answers + 100 or bool(self.load.problems))


@pytest.fixture(params=gates.WORKER_KINDS)
def rig(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Iterator[Rig]:
    repository = tmp_path / "repository"
    gate = gates.Gate(tmp_path)
    gate.write_model(repository / "m" / "1")
    config = "[workers]\ncount = 1\n[batching]\nmax_batch_size = 4\n"
    gates.configure(repository / "m", config, request.param)
    server = serve(repository)
    with Client(server.endpoint, timeout=LONG) as client, Load(server.endpoint) as load:
        made = Rig(client, load, gate)
        made.go_on()
        yield made
        gate.discard()
    assert load.problems == []


def test_workers_come_and_go(rig: Rig) -> None:
    assert rig.workers() == 1
    for count in (4, 2, 1):
        rig.set(workers_count=count)
        # Those that are too many finish what they have in hand.
        until(lambda count=count: rig.workers() == count)
        rig.gate.close()
        # All of them are at work, at the same time.
        until(lambda count=count: rig.gate.waiting == count)
        rig.gate.open()
        rig.go_on()
    assert rig.load.problems == []


def test_batches_shrink_and_grow(rig: Rig) -> None:
    for size in (2, 4, 1, 16, 8, 16):
        rig.set(batching_max_batch_size=size)
        assert rig.client.metadata("m").max_batch_size == size
        rig.gate.forget()
        until(lambda size=size: len(rig.sizes()) > 20 and size in rig.sizes())
        # The worker may have had two in hand from before.
        assert max(rig.sizes()[2:]) <= size
    assert rig.settings()["warm_rows"] == 16
    assert rig.load.problems == []


def test_what_is_loaded_again_takes_over_unnoticed(rig: Rig) -> None:
    for threads in (2, 3):
        rig.set(engine_intra_op_threads=threads, limits_max_in_flight=1000 + threads)
        assert rig.settings()["values"]["engine.intra_op_threads"] == threads
        rig.go_on()
    rig.client.control("models.set", {"model": "m", "reset": ["engine", "limits"]})
    until(lambda: not rig.settings()["pending"])
    assert rig.settings()["values"]["limits.max_in_flight"] == 16384
    rig.go_on()
