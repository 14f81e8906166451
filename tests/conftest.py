"""What all tests share: the helper modules of this folder (``import models``), a server to call, and the
check that a test leaves no threads, sockets or processes behind."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("answers")

if TYPE_CHECKING:
    from tensorwire.server import Server

#: Seconds that threads and processes which were told to end have for it.
_PATIENCE = 3.0
#: Classes of threads that libraries start once for the whole process.
_LASTING = frozenset({"GarbageCollectorThread"})  # pyzmq: frees the buffers of zero-copy sends


#: Workers start with their first batch: they may belong to a server that several tests share.
_WORKER = re.compile(r".+:\d+#\d+")
_SERVER = "tensorwire-front-end"


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if type(thread).__name__ not in _LASTING}


def _sockets() -> set[object]:
    """Open sockets of the process's own ZeroMQ context, if there is one."""
    zmq: Any = sys.modules.get("zmq")
    context = None if zmq is None else zmq.Context._instance
    return set() if context is None else {socket for socket in context._sockets if not socket.closed}


def _children() -> set[str]:
    """Process ids of this process's children."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update((task / "children").read_text().split())
        except OSError:  # the thread has ended meanwhile, or this kernel does not tell
            continue
    return found


def _lasting_children() -> set[str]:
    """multiprocessing's resource tracker stays for the life of the process."""
    tracker: Any = sys.modules.get("multiprocessing.resource_tracker")
    return set() if tracker is None else {str(tracker._resource_tracker._pid)}


def _settled(look: Callable[[], set[Any]], until: float) -> set[Any]:
    while (found := look()) and time.monotonic() < until:
        time.sleep(0.005)
    return found


def _leaked_threads(before: set[threading.Thread]) -> set[str]:
    shared = any(thread.name == _SERVER for thread in before)
    names = {thread.name for thread in _threads() - before}
    return {name for name in names if not (shared and _WORKER.fullmatch(name))}


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves threads, sockets or child processes behind."""
    threads, sockets, children = _threads(), _sockets(), _children()
    yield
    until = time.monotonic() + _PATIENCE
    left = {
        "threads": _settled(lambda: _leaked_threads(threads), until),
        "sockets": _settled(lambda: _sockets() - sockets, until),
        "child processes": _settled(lambda: _children() - children - _lasting_children(), until),
    }
    leaked = "; ".join(f"{kind}: {sorted(map(str, found))}" for kind, found in left.items() if found)
    if leaked:
        pytest.fail(f"the test left behind {leaked}", pytrace=False)


class Serve(Protocol):
    """The :func:`serve` fixture."""

    def __call__(
        self,
        repository: Path | None = None,
        *,
        ready: bool = True,
        manager: dict[str, Any] | None = None,
        **serving: Any,
    ) -> Server:
        """A started server.

        Args:
            repository: default: ``repository`` in the test's ``tmp_path``, made if need be.
            ready: wait until everything in it serves.
            manager, serving: settings of the two halves.
        """
        ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on a free port of the loopback; they are closed after the test."""
    from tensorwire.manager import ManagerConfig
    from tensorwire.server import Server, ServingConfig

    servers: list[Server] = []

    def start(
        repository: Path | None = None,
        *,
        ready: bool = True,
        manager: dict[str, Any] | None = None,
        **serving: Any,
    ) -> Server:
        where = repository or tmp_path / "repository"
        where.mkdir(exist_ok=True)
        quick = {"settle_time": 0.0, "poll_interval": 0.02, "drain_timeout": 5.0}
        config = ManagerConfig(repository=where, **{**quick, **(manager or {})})
        server = Server(config, ServingConfig(**{"bind": "tcp://127.0.0.1:0", "grace": 5.0, **serving}))
        server.start()
        servers.append(server)
        if ready:
            assert server.wait_ready(30), server.manager.status()
        return server

    yield start
    for server in reversed(servers):
        server.close()
