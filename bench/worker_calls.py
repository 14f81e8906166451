"""What it costs to run a model in a process of its own: ``python -m tensorwire.bench.worker_calls``.

Everything is measured interleaved in one run; the choices that follow are in ``docs/decisions/0009``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import zmq

from ..manager.config import ModelConfig
from ..manager.loader import Loader
from ..rpc.switch import PURE_PYTHON
from ..server.processes.framing import ChildSpec
from ..server.processes.parent import WorkerProcess
from ..server.processes.spawner import Spawner

_ROUNDS: Final = 7
_CALLS: Final = 200
_ECHO_NBYTES: Final = (64, 16_384)
_CALL_NBYTES: Final = (64, 4_096, 16_384, 65_536, 602_112)
_COPY_MIB: Final = (1, 16, 64)

_MODEL: Final = """
class Model:
    inputs = [("x", "float32", (None, None))]
    outputs = [("y", "float32", (None, None))]
    batched = True

    def predict(self, x):
        return {"y": x}
"""


def _microseconds(function: Callable[[], object], calls: int = _CALLS) -> float:
    """The median of some calls."""
    taken: list[float] = []
    for _ in range(calls):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


def _compare(title: str, ways: Mapping[str, Callable[[], object]], calls: int = _CALLS) -> None:
    """Let ways take turns; print median and range of the rounds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, function in ways.items():
            found[name].append(_microseconds(function, calls))
    print(title)
    for name, rounds in found.items():
        low, high = min(rounds), max(rounds)
        print(f"  {name:42} {statistics.median(rounds):10.1f} us  ({low:.1f}-{high:.1f})")


def _echo_socket(end: socket.socket) -> None:
    buffer = bytearray(1 << 17)
    while count := end.recv_into(buffer):
        end.send(memoryview(buffer)[:count])


def _echo_zmq(address: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(address)
    while len(frames := router.recv_multipart()) > 1 and frames[-1]:
        router.send_multipart(frames)
    context.destroy()


def compare_sockets(folder: Path) -> None:
    """A bare echo by another process, over each kind of socket."""
    spawn = get_context("spawn")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    address = f"ipc://{folder}/echo"
    echoes = [
        spawn.Process(target=_echo_socket, args=(theirs,)),
        spawn.Process(target=_echo_zmq, args=(address,)),
    ]
    for echo in echoes:
        echo.start()
    theirs.close()
    zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = zmq_context.socket(zmq.DEALER)
    dealer.connect(address)
    for nbytes in _ECHO_NBYTES:
        message = bytes(nbytes)

        def over_socket(message: bytes = message) -> None:
            ours.send(message)
            ours.recv(1 << 17)

        def over_zmq(message: bytes = message) -> None:
            dealer.send(message)
            dealer.recv()

        over_socket()
        over_zmq()
        ways = {"SOCK_SEQPACKET socketpair": over_socket, "ZeroMQ ipc, DEALER and ROUTER": over_zmq}
        _compare(f"echo of {nbytes:,} bytes", ways)
    ours.close()
    dealer.send(b"")
    dealer.close()
    zmq_context.term()
    for echo in echoes:
        echo.join()


class _ThreadWorker:
    """Hands calls to a thread and back as the server does: queues and an eventfd."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run
        self._calls: SimpleQueue[Any] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._event = os.eventfd(0)
        self._poll = select.poll()
        self._poll.register(self._event, select.POLLIN)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            self._answers.put(self._run(call))
            os.eventfd_write(self._event, 1)

    def call(self, inputs: Any) -> Any:
        self._calls.put(inputs)
        self._poll.poll()
        os.eventfd_read(self._event)
        return self._answers.get()

    def close(self) -> None:
        self._calls.put(None)
        self._thread.join()
        os.close(self._event)


@contextlib.contextmanager
def _pure_python() -> Generator[None]:
    """What is started meanwhile does without compiled modules."""
    before = os.environ.get(PURE_PYTHON, "0")
    os.environ[PURE_PYTHON] = "1"
    try:
        yield
    finally:
        os.environ[PURE_PYTHON] = before


def compare_calls(folder: Path) -> None:
    """One call at a time of a model that gives back what it gets: here, in a thread, in a process."""
    (folder / "model.py").write_text(_MODEL)
    local = Loader("m", 1, folder, ModelConfig()).load()
    thread = _ThreadWorker(lambda inputs: local.run(inputs, ("y",)))
    with Spawner() as spawner:
        spec = ChildSpec("m", 1, str(folder))
        worker = WorkerProcess.start(spec, spawner=spawner)
        with _pure_python():
            plain = WorkerProcess.start(spec, spawner=spawner)
        for nbytes in _CALL_NBYTES:
            inputs = {"x": np.ones((1, nbytes // 4), np.float32)}
            ways: dict[str, Callable[[], object]] = {
                "called here": partial(local.run, inputs, ("y",)),
                "handed to a thread": partial(thread.call, inputs),
                "worker process": partial(worker.run, inputs, ("y",)),
                "worker process, in Python": partial(plain.run, inputs, ("y",)),
            }
            _compare(f"call of {nbytes:,} bytes in and out", ways)
        for process in (worker, plain):
            process.stop()
            process.join(10)
    thread.close()
    local.close()


def compare_memory() -> None:
    """Writing into shared memory that has been used before, and into such that has not."""
    for mebibytes in _COPY_MIB:
        nbytes = mebibytes << 20
        source = np.ones(nbytes, np.uint8)
        used = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
        used[:] = source

        def fresh(
            reserve: bool, nbytes: int = nbytes, source: np.ndarray[Any, np.dtype[np.uint8]] = source
        ) -> None:
            fd = os.memfd_create("bench")
            (os.posix_fallocate if reserve else _resize)(fd, 0, nbytes)
            np.frombuffer(mmap.mmap(fd, nbytes), np.uint8)[:] = source
            os.close(fd)

        ways: dict[str, Callable[[], object]] = {
            "used before": partial(np.copyto, used, source),
            "new, reserved": partial(fresh, True),
            "new, page by page": partial(fresh, False),
        }
        _compare(f"copy of {mebibytes} MiB into shared memory", ways, calls=3)


def _resize(fd: int, start: int, nbytes: int) -> None:
    os.ftruncate(fd, start + nbytes)


def main() -> None:
    """Measure and print everything."""
    with tempfile.TemporaryDirectory() as folder:
        compare_sockets(Path(folder))
        compare_calls(Path(folder))
    compare_memory()


if __name__ == "__main__":
    main()
