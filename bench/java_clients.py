"""Client processes in Java: this project's client and grpc-java, both driven by ``client/java/bench``.

A process is asked :class:`JavaJob` and writes :class:`.peers.grpc_cpp.peer.Found`, a line each.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from .child import Ready
from .load import CpuMeter
from .peers.grpc_cpp.peer import Found
from .processes import Child, ChildError, NotBuiltError
from .recorder import Measurement
from .servers import Server
from .systems import CALL_TIMEOUT

#: Where ``make bench-java`` leaves the programs.
BUILD: Final = Path(__file__).parents[1] / "client" / "java" / "bench" / "target"
_MAIN: Final = "io.tensorwire.bench.LoadMain"
_READY_SECONDS: Final = 60.0


class JavaJob(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement to make: blocking callers, each a thread with one call in flight. Times in seconds."""

    callers: int
    warmup: float
    duration: float


def classpath(build: Path = BUILD) -> str:
    """What Java loads the programs from.

    Raises:
        NotBuiltError: they are not there.
    """
    jar = build / "tensorwire-bench.jar"
    if not jar.is_file():
        raise NotBuiltError("the Java clients are not built: run make bench-java")
    return f"{jar}:{build / 'lib'}/*"


class JavaClient:
    """A connected client process; a context manager that never leaves it running.

    Args:
        system: ``tensorwire`` or ``grpc``.
        logs: folder for what it writes to stderr.
    """

    def __init__(self, system: str, server: Server, logs: Path) -> None:
        self._name = f"the Java client of {system}"
        # The same for both: the collector for small heaps on few cores is not what a service runs with.
        arguments = ["-XX:+UseG1GC", "-Xmx1g", "-cp", classpath(), _MAIN]
        arguments += [system, server.address, str(CALL_TIMEOUT)]
        self._child = Child(self._name, arguments, logs / f"java-{system}.log", program="java")
        self._meter = CpuMeter(server.pid)

    def __enter__(self) -> JavaClient:
        self._child.__enter__()
        try:
            self._child.receive(Ready, _READY_SECONDS)
        except BaseException:
            self._child.__exit__()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.__exit__(kind, error, trace)

    def measure(self, job: JavaJob) -> Measurement:
        """Do one job.

        Raises:
            ChildError: the process died, or no call of it was answered.
        """
        begun = time.monotonic()
        self._meter.start()
        self._child.send(job)
        found = self._child.receive(Found, job.warmup + job.duration + 3 * CALL_TIMEOUT)
        cpu = self._meter.stop()
        if not found.calls:
            raise ChildError(f"no call of {self._name} was answered: {found.errors}")
        return found.measurement(cpu, time.monotonic() - begun)
