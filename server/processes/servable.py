"""Models in processes of their own, behind the seams of engines and servables."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy.typing as npt

from ...manager.config import ModelConfig, WorkerKind, parse_devices
from ...manager.engines.base import Engine
from ...manager.loader import EngineFinder, find_engine
from ...rpc.errors import AbortedError, InternalError, RpcError
from .devices import Devices
from .framing import ChildSpec
from .parent import WorkerProcess
from .spawner import Spawner

_log = logging.getLogger("tensorwire.server")

Array = npt.NDArray[Any]
#: Called in a thread of its own when a process is ready, or with why there is none.
Started = Callable[["RpcError | None"], None]

#: Seconds that processes have to end by themselves.
_STOP_SECONDS: Final = 5.0
#: Seconds for the front end to let go of its workers.
_RELEASE_SECONDS: Final = 5.0


def process_finder(spawner: Spawner, finder: EngineFinder = find_engine) -> EngineFinder:
    """Finds engines whose models run in processes, where that is wanted or best."""

    def find(directory: Path, config: ModelConfig) -> tuple[Engine, Path]:
        engine, path = finder(directory, config)
        if (config.workers.kind or engine.worker_kind) == "process":
            return ProcessEngine(engine, spawner), path
        return engine, path

    return find


class ProcessEngine:
    """Has another engine load in processes."""

    def __init__(self, engine: Engine, spawner: Spawner) -> None:
        self.worker_kind: WorkerKind = "process"
        self.name = engine.name
        self.file = engine.file
        self._engine = engine
        self._spawner = spawner

    def find(self, directory: Path) -> Path | None:
        """See :class:`~....manager.engines.base.Engine`."""
        return self._engine.find(directory)

    def estimate_ram(self, path: Path, config: ModelConfig) -> int:
        """Of all processes together."""
        return self._engine.estimate_ram(path, config) * (config.workers.count or 1)

    def load(self, path: Path, config: ModelConfig, *, name: str, version: int) -> ProcessServable:
        """Load in a first process.

        Raises:
            RpcError: as the engine's own ``load``; or the process ended.
        """
        spec = ChildSpec(
            model=name,
            version=version,
            directory=str(path.parent),
            config=config,
            log_level=_log.getEffectiveLevel(),
        )
        wanted = config.workers.device
        devices = Devices(() if wanted is None else parse_devices(wanted))
        first = msgspec.structs.replace(spec, device=devices.take())
        return ProcessServable(
            spec, self._spawner, WorkerProcess.start(first, spawner=self._spawner), devices
        )


class ProcessServable:
    """One version in any number of processes. The front end takes them, and brings batches there itself.

    Attributes:
        metadata: as the process describes the model.
        releases_gil: False, so that the front-end thread never runs it itself.
        concurrent: True: several processes may run it at once.
    """

    def __init__(self, spec: ChildSpec, spawner: Spawner, first: WorkerProcess, devices: Devices) -> None:
        """``devices``: what the processes have; the first one has its own already."""
        self.worker_kind: WorkerKind = "process"
        self.releases_gil = False
        self.concurrent = True
        self.metadata = first.metadata
        self._spec = spec
        self._spawner = spawner
        self._devices = devices
        self._first: WorkerProcess | None = first
        self._lock = threading.Lock()
        self._ready: deque[WorkerProcess] = deque((first,))
        #: With the front end.
        self._taken: set[WorkerProcess] = set()
        self._all_released = threading.Condition(self._lock)
        self._starters: set[threading.Thread] = set()
        self._closing = threading.Event()

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute one batch in the first process: what the warm-up does."""
        if self._first is None:
            raise InternalError("the warm-up is over; the workers run the batches")
        return self._first.run(inputs, outputs)

    def prepare(self, config: ModelConfig, batch_sizes: Sequence[int]) -> None:
        """Start the other processes, and wait for them.

        Raises:
            RpcError: one could not be started.
        """
        self._first = None
        self._spec = msgspec.structs.replace(self._spec, batch_sizes=tuple(batch_sizes))
        missing = (config.workers.count or 1) - 1
        if missing > 0:
            with ThreadPoolExecutor(missing, "tensorwire-start") as executor:
                started = [executor.submit(self._start) for _ in range(missing)]
            with self._lock:
                self._ready.extend(future.result() for future in started if future.exception() is None)
            for future in started:
                future.result()

    def take(self) -> WorkerProcess | None:
        """A process that is ready; it is the front end's until :meth:`release`."""
        with self._lock:
            if not self._ready:
                return None
            process = self._ready.popleft()
            self._taken.add(process)
            return process

    def release(self, process: WorkerProcess) -> None:
        """The front end does not touch a process any more: it ends, or has ended."""
        with self._lock:
            self._taken.discard(process)
            # At once, so that the process which takes its place gets its GPU, too.
            self._devices.give_back(process.device)
            self._in_background(lambda: _reap(process))
            self._all_released.notify_all()

    def start_another(self, delay: float, started: Started) -> None:
        """Start a process after so many seconds; it can be taken when it is ready."""

        def run() -> None:
            try:
                if self._closing.wait(delay):
                    raise AbortedError("the model is being unloaded")
                process = self._start()
            except RpcError as error:
                started(error)
                return
            with self._lock:
                self._ready.append(process)
            started(None)

        with self._lock:
            self._in_background(run)

    def close(self) -> None:
        """End all processes. Called once, when nobody runs a batch any more."""
        self._closing.set()
        with self._lock:
            if not self._all_released.wait_for(lambda: not self._taken, _RELEASE_SECONDS):
                _log.warning("%s:%d: workers are still in use", self._spec.model, self._spec.version)
            starters = list(self._starters)
        # What is being started gives up, or is ready.
        for thread in starters:
            thread.join()
        processes = [*self._ready, *self._taken]
        for process in processes:
            process.stop()
        for process in processes:
            _reap(process)

    def _start(self) -> WorkerProcess:
        spec = msgspec.structs.replace(self._spec, device=self._devices.take())
        try:
            return WorkerProcess.start(spec, stop=self._closing.is_set, spawner=self._spawner)
        except BaseException:
            self._devices.give_back(spec.device)
            raise

    def _in_background(self, work: Callable[[], None]) -> None:
        """With the lock: :meth:`close` finds every thread, and none that has not started."""

        def run() -> None:
            try:
                work()
            finally:
                self._starters.discard(threading.current_thread())

        name = f"tensorwire-worker-{self._spec.model}-{self._spec.version}"
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._starters.add(thread)
        thread.start()


def _reap(process: WorkerProcess) -> None:
    """See a process off: it was asked to end, or is gone."""
    if not process.join(_STOP_SECONDS):
        process.kill("did not end when it was asked to")
        process.join(_STOP_SECONDS)
