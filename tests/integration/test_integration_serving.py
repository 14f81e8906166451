"""A whole server under way: priorities, routes, swaps, deadlines, overload, failures, shutting down."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gates
import models
import numpy as np
import pytest
from tensorwire.client import AsyncClient, Client
from tensorwire.rpc.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    NotFoundError,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
)
from tensorwire.server import Server

if TYPE_CHECKING:
    from conftest import Serve

#: What must come at once comes within this many seconds even on a busy machine.
SOON = 2.0
LONG = 20.0

#: One worker and one row a batch: what waits, waits.
SINGLE = "[workers]\ncount = 1\n[batching]\nmax_batch_size = 1\n"


def x(value: float, rows: int = 1, width: int = 2) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.full((rows, width), value, np.float32)}


def first(outputs: dict[str, np.ndarray[Any, Any]]) -> float:
    return float(outputs["y"][0, 0])


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what comes by itself."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.002)


def stats(client: Client, model: str, version: int = 1) -> dict[str, Any]:
    (found,) = [
        line
        for line in client.control("stats")["versions"]
        if (line["model"], line["version"]) == (model, version)
    ]
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    return root


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


class Gated:
    """A server with one model that waits at a gate."""

    def __init__(
        self, serve: Serve, repository: Path, kind: gates.WorkerKind, config: str, **serving: Any
    ) -> None:
        self.kind: gates.WorkerKind = kind
        self.repository = repository
        self.gate = gates.Gate(repository.parent)
        self.gate.write_model(repository / "m" / "1")
        self.configure(config)
        self.server: Server = serve(repository, **serving)
        self.gate.forget()
        self.client = Client(self.server.endpoint, timeout=LONG)
        self.client.health()

    def configure(self, config: str) -> None:
        """Write the model's ``model.toml``."""
        gates.configure(self.repository / "m", config, self.kind)

    def block(self, value: float = 2) -> Future[Any]:
        """Keep a worker busy."""
        self.gate.close()
        future = self.client.submit("m", x(value))
        assert self.gate.entered()
        return future

    def queued(self, count: int) -> None:
        """Wait until so many wait."""
        until(lambda: stats(self.client, "m")["queued_rows"] == count)

    def values(self) -> list[float]:
        """What was computed, in order."""
        return [value for batch in self.gate.seen for value in batch]


@pytest.fixture(params=gates.WORKER_KINDS)
def kind(request: pytest.FixtureRequest) -> gates.WorkerKind:
    return request.param


@pytest.fixture
def gated(serve: Serve, repository: Path, kind: gates.WorkerKind) -> Iterator[Callable[..., Gated]]:
    made: list[Gated] = []

    def make(config: str = SINGLE, **serving: Any) -> Gated:
        made.append(Gated(serve, repository, kind, config, **serving))
        return made[-1]

    yield make
    for each in made:
        each.gate.discard()
        each.client.close()


# ---------------------------------------------------------------- the queue


class TestQueue:
    def test_high_before_normal(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        futures = [rig.block()]
        futures += [rig.client.submit("m", x(value)) for value in (3, 4)]
        rig.queued(2)
        futures += [rig.client.submit("m", x(value), priority=1) for value in (5, 6)]
        rig.queued(4)
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6, 8, 10, 12]
        order = rig.values()
        assert sorted(order) == [2, 3, 4, 5, 6]
        # Normal ones that have waited for long compete with them: on a busy machine it may be so far.
        assert order.index(5) < order.index(6)
        assert order.index(3) < order.index(4)

    def test_what_queues_up_runs_together(self, gated: Callable[..., Gated]) -> None:
        rig = gated("[workers]\ncount = 1\n[batching]\nmax_batch_size = 8\n")
        futures = [rig.block()]
        futures += [rig.client.submit("m", x(value)) for value in range(3, 13)]
        rig.queued(10)
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [2.0 * v for v in range(2, 13)]
        assert [len(batch) for batch in rig.gate.seen] == [1, 8, 2]

    def test_a_request_larger_than_a_batch(self, gated: Callable[..., Gated]) -> None:
        rig = gated("[workers]\ncount = 1\n[batching]\nmax_batch_size = 4\n")
        y = rig.client.predict("m", {"x": np.arange(20, dtype=np.float32).reshape(10, 2) + 20})["y"]
        assert y.tolist() == (np.arange(20).reshape(10, 2) * 2 + 40).tolist()
        assert [len(batch) for batch in rig.gate.seen] == [4, 4, 2]

    def test_padding(self, gated: Callable[..., Gated]) -> None:
        rig = gated("[workers]\ncount = 1\n[batching]\nallowed_batch_sizes = [2, 4]\n")
        y = rig.client.predict("m", {"x": np.array([[5, 5], [6, 6], [7, 7]], np.float32)})["y"]
        assert y[:, 0].tolist() == [10, 12, 14]
        assert rig.gate.seen == [[5, 6, 7, 7]]

    def test_expired_requests_are_never_computed(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        blocked = rig.block()
        begin = time.monotonic()
        late = [rig.client.submit("m", x(value), timeout=0.1) for value in (7, 8)]
        in_time = rig.client.submit("m", x(9))
        for future in late:
            assert isinstance(future.exception(LONG), DeadlineExceededError)
        assert time.monotonic() - begin < SOON
        rig.gate.open()
        assert first(in_time.result(LONG)) == 18
        assert first(blocked.result(LONG)) == 4
        assert rig.values() == [2, 9]
        assert stats(rig.client, "m")["expired"] == 2
        assert stats(rig.client, "m")["in_flight"] == 0

    def test_overload_is_refused_at_once(self, gated: Callable[..., Gated]) -> None:
        rig = gated(SINGLE + "[limits]\nmax_queued_rows = 3\n")
        futures = [rig.block()]
        futures += [rig.client.submit("m", x(value)) for value in (3, 4, 5)]
        rig.queued(3)
        begin = time.monotonic()
        for _ in range(5):
            with pytest.raises(ResourceExhaustedError, match="limit of 3 queued rows; retry later"):
                rig.client.predict("m", x(6))
        assert time.monotonic() - begin < SOON
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6, 8, 10]
        assert stats(rig.client, "m")["rejected"] == 5
        assert first(rig.client.predict("m", x(6))) == 12

    def test_limits_of_requests_in_flight(self, gated: Callable[..., Gated]) -> None:
        rig = gated(SINGLE + "[limits]\nmax_in_flight = 2\n")
        futures = [rig.block(), rig.client.submit("m", x(3))]
        rig.queued(1)
        with pytest.raises(ResourceExhaustedError, match="limit of 2 requests in flight"):
            rig.client.predict("m", x(4))
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6]

    def test_limits_of_the_server(self, gated: Callable[..., Gated]) -> None:
        rig = gated(max_queued_rows=1)
        futures = [rig.block(), rig.client.submit("m", x(3))]
        rig.queued(1)
        with pytest.raises(ResourceExhaustedError, match="the server's limit of 1 queued rows"):
            rig.client.predict("m", x(4))
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6]


class TestCancel:
    def test_a_cancelled_request_is_never_computed(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        blocked = rig.block()
        futures = [rig.client.submit("m", x(value)) for value in (3, 4, 5)]
        rig.queued(3)
        assert futures[1].cancel()
        rig.queued(2)
        rig.gate.open()
        assert [first(future.result(LONG)) for future in (blocked, futures[0], futures[2])] == [4, 6, 10]
        assert rig.values() == [2, 3, 5]
        assert stats(rig.client, "m")["cancelled"] == 1
        assert stats(rig.client, "m")["in_flight"] == 0

    def test_out_of_a_fused_message(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        blocked = rig.block()

        async def main() -> None:
            async with AsyncClient(rig.server.endpoint, timeout=LONG) as client:
                tasks = [asyncio.ensure_future(client.predict("m", x(value))) for value in range(3, 9)]
                while (await client.control("stats"))["versions"][0]["queued_rows"] < 6:
                    await asyncio.sleep(0.002)
                for task in tasks[1:4]:
                    task.cancel()
                while (await client.control("stats"))["versions"][0]["queued_rows"] > 3:
                    await asyncio.sleep(0.002)
                rig.gate.open()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [first(r) if isinstance(r, dict) else None for r in results] == [
                    6,
                    None,
                    None,
                    None,
                    14,
                    16,
                ]

        asyncio.run(main())
        assert first(blocked.result(LONG)) == 4
        assert rig.values() == [2, 3, 7, 8]

    def test_one_that_runs_already_is_computed_for_nobody(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        future = rig.block()
        assert future.cancel()
        rig.client.health()
        rig.gate.open()
        until(lambda: stats(rig.client, "m")["in_flight"] == 0)
        assert stats(rig.client, "m")["cancelled"] == 0

    def test_the_last_request_of_a_version_that_leaves(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        blocked = rig.block()
        waiting = [rig.client.submit("m", x(value)) for value in (3, 4)]
        rig.queued(2)
        rig.client.control("models.unload", {"model": "m"})
        for future in waiting:
            assert future.cancel()
        rig.gate.open()
        assert first(blocked.result(LONG)) == 4
        until(lambda: not rig.client.status())
        with pytest.raises(RpcError):
            rig.client.predict("m", x(5))
        assert rig.client.health().in_flight == 0


# ---------------------------------------------------------------- failures


class TestFailures:
    def test_a_poisonous_request_fails_alone(self, gated: Callable[..., Gated]) -> None:
        rig = gated("[workers]\ncount = 1\n")
        futures = [rig.block()]
        futures += [rig.client.submit("m", x(value)) for value in (12, 13, 14)]
        rig.queued(3)
        rig.gate.open()
        assert [first(futures[index].result(LONG)) for index in (0, 1, 3)] == [4, 24, 28]
        with pytest.raises(InternalError, match="ValueError: thirteen"):
            futures[2].result(LONG)
        assert rig.gate.seen == [[2], [12, 13, 14], [12], [13], [14]]
        assert stats(rig.client, "m")["failed"] == 1

    def test_health_is_answered_while_every_worker_is_busy(self, gated: Callable[..., Gated]) -> None:
        rig = gated("[workers]\ncount = 2\n[batching]\nmax_batch_size = 1\n")
        futures = [rig.block(), rig.client.submit("m", x(3))]
        assert rig.gate.entered()
        futures.append(rig.client.submit("m", x(4)))
        rig.queued(1)
        with Client(rig.server.endpoint, timeout=SOON) as other:
            health = other.health()
            assert (health.ready, health.in_flight) == (True, 3)
            assert other.metadata("m").name == "m"
            assert other.status()[0].state == "AVAILABLE"
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6, 8]

    def test_another_model_is_served_while_one_is_stuck(
        self, gated: Callable[..., Gated], repository: Path
    ) -> None:
        models.scale(repository / "quick" / "1", 3.0)
        rig = gated()
        blocked = rig.block()
        assert first(rig.client.predict("quick", x(2, width=4), timeout=SOON)) == 6
        rig.gate.open()
        blocked.result(LONG)

    def test_control_calls_that_make_no_sense(self, serve: Serve) -> None:
        server = serve()
        with Client(server.endpoint, timeout=LONG) as client:
            with pytest.raises(RpcError, match="no control method 'nope'; methods: health"):
                client.control("nope")
            with pytest.raises(RpcError, match="parameters are not valid"):
                client.control("models.load", {"version": "x"})
            with pytest.raises(NotFoundError):
                client.control("models.unload", {"model": "nope"})
            assert client.health().ready


# ---------------------------------------------------------------- versions


@pytest.fixture
def versions(repository: Path) -> Path:
    """Versions 1 and 2 of ``scale``: they multiply by 10 and by 20."""
    for version in (1, 2):
        models.scale(repository / "scale" / str(version), 10.0 * version)
    return repository


class TestRoutes:
    def configure(self, repository: Path, text: str) -> None:
        (repository / "scale" / "model.toml").write_text("[versions]\npolicy = 'all'\n" + text)

    def test_versions_and_labels(self, serve: Serve, versions: Path) -> None:
        self.configure(versions, "[labels]\nstable = 1\ncanary = 2\n")
        one = x(1, width=4)
        with Client(serve(versions).endpoint, timeout=LONG) as client:
            assert first(client.predict("scale", one)) == 20
            assert first(client.predict("scale", one, version=1)) == 10
            assert first(client.predict("scale", one, label="stable")) == 10
            assert first(client.predict("scale", one, label="canary")) == 20
            client.control("models.label", {"model": "scale", "label": "stable", "version": 2})
            assert first(client.predict("scale", one, label="stable")) == 20
            client.control("models.label", {"model": "scale", "label": "stable", "version": None})
            with pytest.raises(NotFoundError):
                client.predict("scale", one, label="stable")

    @pytest.mark.parametrize("fuse", [True, False])
    def test_weights(self, serve: Serve, versions: Path, fuse: bool) -> None:
        self.configure(versions, "[route.targets]\n1 = 3\n2 = 1\n")
        server = serve(versions)

        async def main() -> Counter[float]:
            async with AsyncClient(server.endpoint, timeout=LONG, fuse=fuse) as client:
                results = await asyncio.gather(
                    *[client.predict("scale", x(value, width=4)) for value in range(1, 401)]
                )
                return Counter(first(result) / value for value, result in enumerate(results, 1))

        split = asyncio.run(main())
        assert set(split) == {10.0, 20.0}
        assert 40 <= split[20.0] <= 180

    def test_sticky(self, serve: Serve, versions: Path) -> None:
        self.configure(versions, "[route]\nsticky = true\n[route.targets]\n1 = 1\n2 = 1\n")
        with Client(serve(versions).endpoint, timeout=LONG) as client:
            homes = set()
            for user in range(30):
                found = {
                    first(client.predict("scale", x(1, width=4), routing_key=f"user-{user}"))
                    for _ in range(4)
                }
                assert len(found) == 1
                homes |= found
            assert homes == {10.0, 20.0}

    def test_a_shadow_is_computed_and_never_seen(self, serve: Serve, versions: Path) -> None:
        self.configure(versions, "[route]\nshadow = '2'\n[route.targets]\n1 = 1\n")
        with Client(serve(versions).endpoint, timeout=LONG) as client:
            for _ in range(20):
                assert first(client.predict("scale", x(1, width=4))) == 10
            until(lambda: stats(client, "scale", 2)["rows"] == 20)
            assert client._channel.stray == 0
            # Only what takes the route is mirrored.
            assert first(client.predict("scale", x(1, width=4), version=1)) == 10
            assert stats(client, "scale", 2)["requests"] == 20

    def test_a_shadow_that_is_stuck_or_fails_harms_nobody(
        self, serve: Serve, repository: Path, kind: gates.WorkerKind
    ) -> None:
        real, gate = (gates.Gate(repository.parent, name) for name in ("real", "shadow"))
        real.write_model(repository / "m" / "1")
        gate.write_model(repository / "m" / "2")
        gates.configure(
            repository / "m",
            "[versions]\npolicy = 'all'\n[route]\nshadow = '2'\n[route.targets]\n1 = 1\n"
            "[limits]\nmax_queued_rows = 4\n",
            kind,
        )
        server = serve(repository)
        gate.close()
        with Client(server.endpoint, timeout=LONG) as client:
            futures = [client.submit("m", x(value)) for value in (12, 12)]
            cancelled = client.submit("m", x(12))
            cancelled.cancel()
            for future in futures:
                assert first(future.result(SOON)) == 24
            for _ in range(10):
                assert first(client.predict("m", x(12), timeout=SOON)) == 24
            gate.open()
            with pytest.raises(InternalError):
                client.predict("m", x(13))
            until(lambda: client.health().in_flight == 0)
            assert client._channel.stray <= 1  # of the one that was cancelled
        real.discard()
        gate.discard()


class TestSwaps:
    def test_under_load_nothing_fails(self, serve: Serve, repository: Path, tmp_path: Path) -> None:
        def publish(version: int) -> None:
            # As a copy that was completed under another name.
            models.scale(tmp_path / "new" / str(version), float(version))
            target = repository / "scale" / str(version)
            target.parent.mkdir(exist_ok=True)
            shutil.move(tmp_path / "new" / str(version), target)

        publish(1)
        server = serve(repository)
        stop = threading.Event()
        problems: list[Any] = []
        seen: Counter[float] = Counter()

        def blocking(client: Client) -> None:
            newest = 1.0
            while not stop.is_set():
                try:
                    version = first(client.predict("scale", x(1, width=4), timeout=LONG))
                except BaseException as error:  # noqa: BLE001 - for the test to see
                    problems.append(error)
                    return
                seen[version] += 1
                if version < newest:
                    problems.append(f"{version} after {newest}")
                newest = version

        async def fused() -> None:
            async with AsyncClient(server.endpoint, timeout=LONG) as many:
                while not stop.is_set():
                    results = await asyncio.gather(
                        *[many.predict("scale", x(1, width=4)) for _ in range(20)], return_exceptions=True
                    )
                    for result in results:
                        if isinstance(result, BaseException):
                            problems.append(result)
                        else:
                            seen[first(result)] += 1

        with Client(server.endpoint, timeout=LONG) as client:
            threads = [threading.Thread(target=blocking, args=(client,)) for _ in range(2)]
            threads.append(threading.Thread(target=lambda: asyncio.run(fused())))
            for thread in threads:
                thread.start()
            try:
                for version in range(2, 7):
                    until(lambda wanted=version - 1: seen[float(wanted)] > 20 or bool(problems))
                    publish(version)
                    client.control("models.rescan")
                until(lambda: seen[6.0] > 20 or bool(problems))
            finally:
                stop.set()
                for thread in threads:
                    thread.join(LONG)
            assert problems == []
            assert set(seen) == {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}
            until(lambda: [line.version for line in client.status()] == [6])

    def test_what_waits_for_a_version_that_leaves_is_answered_by_it(
        self, gated: Callable[..., Gated]
    ) -> None:
        rig = gated()
        futures = [rig.block()]
        futures += [rig.client.submit("m", x(value)) for value in (3, 4)]
        rig.queued(2)
        rig.client.control("models.unload", {"model": "m"})
        until(lambda: "m" not in rig.client.health().models)
        with pytest.raises(RpcError, match="'m'"):
            rig.client.predict("m", x(5))
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6, 8]
        until(lambda: not rig.client.status())

    def test_the_number_of_workers_changes_while_it_serves(self, gated: Callable[..., Gated]) -> None:
        rig = gated()
        futures = [rig.block(), rig.client.submit("m", x(3))]
        rig.queued(1)
        rig.configure(SINGLE.replace("count = 1", "count = 2"))
        rig.client.control("models.rescan")
        assert rig.gate.entered()  # a thread runs the second request, a process its warm-up
        rig.gate.open()
        until(lambda: stats(rig.client, "m")["workers"] == 2)
        rig.configure(SINGLE)
        rig.client.control("models.rescan")
        assert [first(future.result(LONG)) for future in futures] == [4, 6]
        until(lambda: stats(rig.client, "m")["workers"] == 1)
        assert first(rig.client.predict("m", x(4))) == 8


# ---------------------------------------------------------------- start and stop


class TestStop:
    def test_in_flight_finish_and_new_ones_are_refused(
        self, gated: Callable[..., Gated], pool: ThreadPoolExecutor
    ) -> None:
        rig = gated()
        futures = [rig.block()]
        futures += [rig.client.submit("m", x(value)) for value in (3, 4)]
        rig.queued(2)
        closing = pool.submit(rig.server.close)
        until(lambda: rig.client.health().draining)
        assert not rig.client.health().ready
        with pytest.raises(UnavailableError, match="shutting down"):
            rig.client.predict("m", x(5))
        assert not closing.done()
        rig.gate.open()
        assert [first(future.result(LONG)) for future in futures] == [4, 6, 8]
        assert closing.result(LONG) is True

    def test_after_the_grace_time_what_is_left_is_told(
        self, gated: Callable[..., Gated], pool: ThreadPoolExecutor
    ) -> None:
        rig = gated(grace=0.05, manager={"drain_timeout": 0.1})
        running = rig.block()
        waiting = rig.client.submit("m", x(3))
        rig.queued(1)
        begin = time.monotonic()
        closing = pool.submit(rig.server.close)
        for future in (running, waiting):
            assert isinstance(future.exception(LONG), UnavailableError)
        assert time.monotonic() - begin < SOON
        assert closing.result(LONG) is False
        # The worker comes to its end after all this, and nobody is surprised.
        rig.gate.open()
        until(lambda: not any(thread.name.startswith("m:1#") for thread in threading.enumerate()))
        assert rig.values() == [2]

    def test_with_nothing_in_flight_it_takes_no_time(self, serve: Serve, repository: Path) -> None:
        models.scale(repository / "scale" / "1")
        server = serve(repository)
        begin = time.monotonic()
        assert server.close()
        assert server.close()
        assert time.monotonic() - begin < SOON

    def test_clients_find_a_server_that_comes_back(
        self, serve: Serve, repository: Path, pool: ThreadPoolExecutor
    ) -> None:
        models.scale(repository / "scale" / "1")
        server = serve(repository)
        address = server.endpoint
        with Client(address, timeout=LONG) as client:
            for _ in range(2):
                assert first(client.predict("scale", x(1, width=4))) == 2
                server.close()
                early = pool.submit(client.predict, "scale", x(2, width=4))
                server = serve(repository, bind=address, ready=False)
                assert server.wait_ready(LONG)
                error = early.exception(LONG)
                assert error is None or isinstance(error, RpcError)

                def served() -> bool:
                    try:
                        return first(client.predict("scale", x(1, width=4))) == 2
                    except UnavailableError:
                        return False

                until(served, LONG)

    def test_an_address_in_use(self, serve: Serve) -> None:
        server = serve()
        with pytest.raises(FailedPreconditionError, match="is in use by another process"):
            serve(bind=server.endpoint)

    def test_a_repository_that_is_not_there(self, tmp_path: Path) -> None:
        from tensorwire.manager import ManagerConfig
        from tensorwire.server import ServingConfig

        server = Server(ManagerConfig(repository=tmp_path / "nope"), ServingConfig(bind="tcp://127.0.0.1:0"))
        with pytest.raises(NotFoundError, match="no such directory"):
            server.start()
        server.close()

    def test_nothing_is_served_yet(self, serve: Serve) -> None:
        with Client(serve().endpoint, timeout=LONG) as client:
            assert client.health().ready
            assert client.status() == []
            with pytest.raises(NotFoundError, match="no model 'm'"):
                client.predict("m", x(1))
