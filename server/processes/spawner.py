"""Starting processes, from a thread that lives as long as they may."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from types import MappingProxyType, TracebackType
from typing import Any, Final, NamedTuple, Self, cast

from ...manager.config import WorkersConfig
from .priority import on_cpus

_CHILD: Final = "tensorwire.server.processes.child"


class Order(NamedTuple):
    """A process to start: arguments of its module, descriptors that it inherits, its stderr; whose cores it
    may use; the module, a worker's if nothing is said; what its environment has besides the server's."""

    arguments: Sequence[str]
    keep: Sequence[int]
    stderr: int
    workers: WorkersConfig = WorkersConfig()
    module: str = _CHILD
    environment: Mapping[str, str] = MappingProxyType({})


class Spawner:
    """Starts child processes, all from one thread of its own.

    The kernel kills a worker process when the thread that started it ends (``PR_SET_PDEATHSIG``), not when
    the process does: a load thread would take its workers along. So :meth:`close` comes after the last worker
    has ended; those that have not are killed by it.
    """

    def __init__(self) -> None:
        self._orders: SimpleQueue[tuple[Order, Future[subprocess.Popen[bytes]]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        #: Nothing is put behind the order to end.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tensorwire-spawner", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, and with it every worker process that is still there."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return
            self._orders.put(None)
        thread.join()

    def spawn(self, order: Order) -> subprocess.Popen[bytes]:
        """Start a process; called from any thread.

        Raises:
            InvalidArgumentError: there are no such cores.
            OSError: the operating system refuses.
            RuntimeError: the spawner is not running.
        """
        future: Future[subprocess.Popen[bytes]] = Future()
        with self._lock:
            if self._thread is None:
                raise RuntimeError("the spawner is not running; start() it first")
            self._orders.put((order, future))
        return future.result()

    def _run(self) -> None:
        while (given := self._orders.get()) is not None:
            order, future = given
            try:
                with on_cpus(order.workers):
                    process = _start(order)
                future.set_result(process)
            except Exception as error:  # noqa: BLE001 - it belongs to the thread that has asked
                future.set_exception(error)


def _start(order: Order) -> subprocess.Popen[bytes]:
    flags: list[str] = cast("Any", subprocess)._args_from_interpreter_flags()
    return subprocess.Popen(
        # -P: a file in the working directory must not stand in for a module of the same name.
        [sys.executable, *flags, "-P", "-m", order.module, *order.arguments],
        stdin=subprocess.DEVNULL,
        stderr=order.stderr,
        pass_fds=order.keep,
        # Ctrl-C in the terminal reaches the parent only.
        start_new_session=True,
        env={**os.environ, **order.environment},
    )
