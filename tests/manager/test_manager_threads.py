"""The manager with its threads, on a real directory."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine, add_version
from tensorwire.manager import Manager, ManagerConfig, ServableHandle, Snapshot
from tensorwire.manager.config import RouteConfig
from tensorwire.manager.manifest import MANIFEST_NAME
from tensorwire.rpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    RpcError,
    UnavailableError,
)

WAIT = 20.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for other threads to bring something about."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.002)


def make(repository: Path, engine: FakeEngine, **settings: Any) -> Manager:
    settings = {"poll_interval": 5.0, "settle_time": 0.0, "drain_timeout": 5.0, **settings}
    return Manager(ManagerConfig(repository=repository, **settings), finder=engine.finder)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    ours = lambda: [t.name for t in threading.enumerate() if t.name.startswith("tensorwire")]  # noqa: E731
    eventually(lambda: not ours(), "the end of every thread")


class Reader(threading.Thread):
    """What the server does, without pause: resolve, acquire, run, release."""

    def __init__(self, manager: Manager) -> None:
        super().__init__()
        self.manager = manager
        self.stop = threading.Event()
        self.calls = 0
        self.unavailable = 0
        self.versions: set[int] = set()
        self.faults: list[BaseException] = []
        self.start()

    def run(self) -> None:
        inputs = {"x": np.zeros((1, 2), np.float32)}
        while not self.stop.is_set():
            try:
                handle = self.manager.snapshot.resolve("m", None, None, None, 0.0)
            except RpcError:
                self.unavailable += 1
                time.sleep(0.0005)
                continue
            if not handle.acquire():
                # A newer snapshot is there already: it was published before the handle closed.
                continue
            try:
                handle.servable.run(inputs, ["y"])
                self.versions.add(handle.version)
                self.calls += 1
            except BaseException as error:  # noqa: BLE001 - reported by the test
                self.faults.append(error)
            finally:
                handle.release()
            time.sleep(0.0002)

    def finish(self) -> None:
        self.stop.set()
        self.join(WAIT)


@pytest.mark.parametrize("transition", ["availability", "resource"])
def test_fifty_swaps_under_load(tmp_path: Path, engine: FakeEngine, transition: str) -> None:
    add_version(tmp_path, "m", 1)
    (tmp_path / "m" / "model.toml").write_text(f"[versions]\ntransition = '{transition}'\n")
    with make(tmp_path, engine) as manager:
        assert manager.wait_ready(WAIT)
        readers = [Reader(manager) for _ in range(3)]
        for version in range(2, 52):
            add_version(tmp_path, "m", version)
            manager.rescan()
            assert manager.wait_ready(WAIT)
            assert manager.snapshot.resolve("m", None, None, None, 0.0).version == version
        for reader in readers:
            reader.finish()
        eventually(lambda: engine.alive() == [("m", 51)], "the unload of every older version")
    assert [fault for reader in readers for fault in reader.faults] == []
    assert all(reader.calls > 50 for reader in readers)
    if transition == "availability":
        assert sum(reader.unavailable for reader in readers) == 0
    assert engine.alive() == []
    assert all(servable.closed == 1 for servable in engine.servables)
    assert manager.memory() == (0, None)


def test_a_slow_load_holds_up_nobody(tmp_path: Path, engine: FakeEngine) -> None:
    gate = engine.gates["slow", 1] = threading.Event()
    add_version(tmp_path, "slow", 1)
    add_version(tmp_path, "m", 1)
    with make(tmp_path, engine) as manager:
        eventually(
            lambda: bool(manager.status("m")) and manager.status("m")[0].state == "AVAILABLE", "m serves"
        )
        assert manager.status("slow")[0].state == "LOADING"
        assert not manager.wait_ready(0.01)
        gate.set()
        assert manager.wait_ready(WAIT)


def test_the_server_is_told_in_order(tmp_path: Path, engine: FakeEngine) -> None:
    add_version(tmp_path, "m", 1)
    manager = make(tmp_path, engine)
    published: list[Snapshot] = []
    retired: list[tuple[ServableHandle, int]] = []
    manager.on_publish = published.append
    manager.on_retire = lambda handle: retired.append((handle, published[-1].serial))
    with manager:
        assert manager.wait_ready(WAIT)
        old = manager.snapshot.resolve("m", 1, None, None, 0.0)
        assert old.acquire()
        add_version(tmp_path, "m", 2)
        manager.rescan()
        assert manager.wait_ready(WAIT)
        eventually(lambda: bool(retired), "on_retire")
        ((handle, serial),) = retired
        assert handle is old
        without = next(snapshot for snapshot in published if snapshot.serial == serial)
        assert 1 not in without.models["m"].versions
        assert not old.acquire()
        assert ("m", 1) in engine.alive()
        old.release()
        eventually(lambda: ("m", 1) not in engine.alive(), "the unload")
    serials = [snapshot.serial for snapshot in published]
    assert serials == sorted(set(serials))


def test_callbacks_that_fail_stop_nothing(
    tmp_path: Path, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    add_version(tmp_path, "m", 1)
    manager = make(tmp_path, engine)

    def fail(argument: object) -> None:
        raise ValueError("the server's mistake")

    manager.on_publish = fail
    manager.on_retire = fail
    with caplog.at_level(logging.CRITICAL), manager:
        assert manager.wait_ready(WAIT)
        assert manager.snapshot.resolve("m", None, None, None, 0.0).version == 1
    assert engine.alive() == []


def test_polling_finds_new_versions_by_itself(tmp_path: Path, engine: FakeEngine) -> None:
    add_version(tmp_path, "m", 1)
    with make(tmp_path, engine, poll_interval=0.02) as manager:
        assert manager.wait_ready(WAIT)
        add_version(tmp_path, "m", 2)
        eventually(lambda: manager.snapshot.models["m"].default == 2, "version 2")


def test_a_manifest_is_verified_in_the_background(tmp_path: Path, engine: FakeEngine) -> None:
    directory = add_version(tmp_path, "m", 1)
    (directory / MANIFEST_NAME).write_text(f"{hashlib.sha256(b'model').hexdigest()}  model.fake\n")
    with make(tmp_path, engine, settle_time=3600.0) as manager:
        assert manager.wait_ready(WAIT)
        assert manager.status()[0].state == "AVAILABLE"
        bad = add_version(tmp_path, "m", 2, "mod")
        (bad / MANIFEST_NAME).write_text(f"{hashlib.sha256(b'model').hexdigest()}  model.fake\n")
        manager.rescan()
        eventually(
            lambda: "copy the version again" in manager.status()[-1].reason, "the mismatch in the status"
        )
        assert manager.snapshot.models["m"].default == 1


def test_commands(tmp_path: Path, engine: FakeEngine) -> None:
    for version in (1, 2, 3):
        add_version(tmp_path, "m", version)
    with make(tmp_path, engine) as manager:
        assert manager.wait_ready(WAIT)

        def resolve(**names: Any) -> int:
            assert manager.wait_ready(WAIT)
            names = {"version": None, "label": None, **names}
            return manager.snapshot.resolve("m", names["version"], names["label"], None, 0.0).version

        manager.load("m", 1)
        assert resolve(version=1) == 1
        manager.set_label("m", "canary", 2)
        assert resolve(label="canary") == 2
        manager.set_route("m", RouteConfig(targets={"canary": 1.0}))
        assert resolve() == 2
        manager.set_route("m", None)
        assert resolve() == 3
        manager.unload("m", 3)
        assert resolve() == 2
        manager.unload("m")
        with pytest.raises(NotFoundError):
            resolve()
        manager.load("m")
        assert resolve() == 3
        for wrong in ("x", "", "..", "a/b", "a\0b"):
            with pytest.raises(NotFoundError):
                manager.load(wrong)
        with pytest.raises(NotFoundError):
            manager.load("m", 9)
        with pytest.raises(InvalidArgumentError):
            manager.set_label("m", "7", 1)
        with pytest.raises(FailedPreconditionError):
            manager.reconfigure(ManagerConfig(repository=tmp_path / "other"))
        manager.reconfigure(ManagerConfig(repository=tmp_path, ram_budget=10_000, settle_time=0.0))
        assert manager.memory()[1] == 10_000
    with pytest.raises(UnavailableError):
        manager.load("m")
    assert not manager.wait_ready(0.0)


def test_commands_from_a_callback_do_not_deadlock(tmp_path: Path, engine: FakeEngine) -> None:
    add_version(tmp_path, "m", 1)
    manager = make(tmp_path, engine)

    def label(snapshot: Snapshot) -> None:
        serving = snapshot.models.get("m")
        if serving is not None and serving.versions and not serving.declared:
            manager.set_label("m", "stable", 1)

    manager.on_publish = label
    with manager:
        eventually(lambda: "stable" in manager.snapshot.models.get("m", _Nothing).labels, "the label")


class _Nothing:
    labels: tuple[str, ...] = ()


def test_closing_waits_for_running_requests(tmp_path: Path, engine: FakeEngine) -> None:
    add_version(tmp_path, "m", 1)
    manager = make(tmp_path, engine)
    manager.start()
    assert manager.wait_ready(WAIT)
    handle = manager.snapshot.resolve("m", None, None, None, 0.0)
    assert handle.acquire()
    closing = threading.Thread(target=manager.close)
    closing.start()
    eventually(lambda: handle.closing, "the close")
    assert engine.alive() == [("m", 1)]
    handle.release()
    closing.join(WAIT)
    assert engine.alive() == []
    manager.close()


def test_closing_gives_up_on_requests_that_never_end(
    tmp_path: Path, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    add_version(tmp_path, "m", 1)
    manager = make(tmp_path, engine, drain_timeout=0.05)
    with caplog.at_level(logging.WARNING, "tensorwire.manager"), manager:
        assert manager.wait_ready(WAIT)
        assert manager.snapshot.resolve("m", None, None, None, 0.0).acquire()
    assert "left as they are: m:1" in caplog.text
    assert engine.alive() == [("m", 1)]


def test_closing_does_not_wait_for_a_load_that_hangs(tmp_path: Path, engine: FakeEngine) -> None:
    gate = engine.gates["m", 1] = threading.Event()
    add_version(tmp_path, "m", 1)
    with make(tmp_path, engine, drain_timeout=0.05) as manager:
        eventually(lambda: engine.loads == [("m", 1)], "the load")
        # The load can begin before the control thread has published that it does.
        eventually(lambda: [line.state for line in manager.status()] == ["LOADING"], "its state")
    gate.set()


def test_a_retry_is_interrupted_by_the_close(tmp_path: Path, engine: FakeEngine) -> None:
    engine.failures["m", 1] = [UnavailableError("later")] * 5
    add_version(tmp_path, "m", 1)
    begun = time.monotonic()
    with make(tmp_path, engine, retry_backoff=60.0) as manager:
        eventually(
            lambda: "next one follows in 60 s" in "".join(s.reason for s in manager.status()), "a retry"
        )
    assert time.monotonic() - begun < 10


def test_retries_happen_by_themselves(tmp_path: Path, engine: FakeEngine) -> None:
    engine.failures["m", 1] = [UnavailableError("later")] * 2
    add_version(tmp_path, "m", 1)
    with make(tmp_path, engine, retry_backoff=0.01) as manager:
        assert manager.wait_ready(WAIT)
        assert manager.status()[0].state == "AVAILABLE"


def test_a_repository_that_is_not_there_is_refused(tmp_path: Path, engine: FakeEngine) -> None:
    manager = make(tmp_path / "misspelt", engine)
    with pytest.raises(NotFoundError, match="misspelt: no such directory"):
        manager.start()
    manager.close()


def test_a_repository_that_vanishes_is_waited_for(tmp_path: Path, engine: FakeEngine) -> None:
    repository = tmp_path / "repository"
    add_version(repository, "m", 1)
    with make(repository, engine) as manager:
        assert manager.wait_ready(WAIT)
        repository.rename(tmp_path / "away")
        manager.rescan()
        assert manager.wait_ready(WAIT)
        assert manager.snapshot.resolve("m").version == 1
        (tmp_path / "away").rename(repository)
        add_version(repository, "m", 2)
        manager.rescan()
        assert manager.wait_ready(WAIT)
        assert manager.snapshot.resolve("m").version == 2


def test_health_stays_good_while_versions_come_and_go(tmp_path: Path, engine: FakeEngine) -> None:
    add_version(tmp_path, "m", 1)
    gate = engine.gates["m", 2] = threading.Event()
    with make(tmp_path, engine) as manager:
        assert manager.wait_ready(WAIT)
        assert manager.ready
        add_version(tmp_path, "m", 2)
        manager.rescan()
        eventually(lambda: ("m", 2) in engine.loads, "the load")
        assert not manager.wait_ready(0)
        assert manager.ready
        gate.set()
    assert not manager.ready


def test_a_manager_is_started_once_and_may_never_be(tmp_path: Path, engine: FakeEngine) -> None:
    make(tmp_path, engine).close()
    manager = make(tmp_path, engine)
    manager.rescan()
    with manager, pytest.raises(RuntimeError, match="started before"):
        manager.start()
    assert manager.config.repository == tmp_path


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = "import sys, tensorwire.manager; print({'onnxruntime', 'zmq', 'onnx'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
        cwd=tmp_path,
    )
    assert run.stdout.strip() == "set()"
