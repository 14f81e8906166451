"""Client processes in Java: this project's client and grpc-java, both driven by ``client/java/bench``.

A process is asked :class:`JavaJob` and writes :class:`JavaFound`, a line each.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from .child import Ready
from .meters import CpuMeter
from .processes import Child, ChildError, NotBuiltError
from .recorder import CpuUse, Measurement
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


class JavaFound(msgspec.Struct, frozen=True, kw_only=True):
    """What a client writes. Times are in seconds.

    Attributes:
        calls: that were answered in the measured part.
        all_calls: that ended at all, warm-up and failures included.
        cpu_seconds: of the client in the measured part.
        all_cpu_seconds: of the client in the whole job.
        errors: failed calls by status and message, the warm-up's included.
    """

    calls: int
    all_calls: int
    seconds: float
    cpu_seconds: float
    all_cpu_seconds: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    errors: dict[str, int]

    def measurement(self, cpu: CpuUse, seconds: float) -> Measurement:
        """The same as of any other system.

        Args:
            cpu: what was used during the whole job; its client is whoever asked for this.
            seconds: of the whole job.
        """
        return Measurement(
            requests=self.calls,
            seconds=self.seconds,
            throughput=self.calls / self.seconds,
            p50=self.p50,
            p90=self.p90,
            p99=self.p99,
            p999=self.p999,
            max=self.max,
            errors=self.errors,
            # The server's part cannot be cut to the measured one from here, so the warm-up's calls count too.
            server_cpu_per_request=cpu.server / self.all_calls if self.all_calls else 0.0,
            client_cpu_per_request=self.cpu_seconds / self.calls if self.calls else 0.0,
            other_cores=max(0.0, cpu.others - self.all_cpu_seconds) / seconds,
        )


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
        found = self._child.receive(JavaFound, job.warmup + job.duration + 3 * CALL_TIMEOUT)
        cpu = self._meter.stop()
        if not found.calls:
            raise ChildError(f"no call of {self._name} was answered: {found.errors}")
        return found.measurement(cpu, time.monotonic() - begun)
