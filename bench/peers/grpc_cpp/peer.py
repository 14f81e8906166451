"""Runs the gRPC peer in C++: an echo of ``ModelInfer`` with no model behind it, driven by its own client.

What is asked of the client is :class:`Load`, what it writes is :class:`Found`; both ends are processes of
their own.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ...child import Ready
from ...meters import CpuMeter
from ...processes import Child, ChildError, NotBuiltError
from ...recorder import CpuUse, Measurement
from ...systems import CALL_TIMEOUT

#: Where ``make peers`` leaves the binaries.
BUILD: Final = Path(__file__).parents[3] / "build" / "peers" / "grpc_cpp"
_READY_SECONDS: Final = 30.0


class Binaries(NamedTuple):
    """Paths of the two programs."""

    server: Path
    client: Path


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement to make. Times are in seconds.

    Attributes:
        in_flight: calls in flight all the time, spread over the channels.
        channels: connections, each of one channel.
        nbytes: of the tensor in each request, a float32 row.
    """

    in_flight: int
    warmup: float
    duration: float
    channels: int = 1
    nbytes: int = 64

    def arguments(self, address: str) -> list[str]:
        """The command line of the client."""
        values = {
            "address": address,
            "in-flight": self.in_flight,
            "channels": self.channels,
            "bytes": self.nbytes,
            "warmup": self.warmup,
            "duration": self.duration,
            "timeout": CALL_TIMEOUT,
        }
        return [part for name, value in values.items() for part in (f"--{name}", str(value))]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the client writes. Times are in seconds.

    Attributes:
        calls: that were answered in the measured part.
        all_calls: that ended at all, warm-up and failures included.
        cpu_seconds: of the client in the measured part.
        all_cpu_seconds: of the client from its start on.
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
            cpu: what was used, from the start of the client to its end; its client is whoever asked for this.
            seconds: from the start of the client to its end.
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


class Peer:
    """A running server; :func:`start` makes one."""

    def __init__(self, binaries: Binaries, address: str, pid: int, logs: Path) -> None:
        self.address = address
        self.pid = pid
        self._binaries = binaries
        self._log = logs / "grpc-cpp-client.log"
        self._meter = CpuMeter(pid)

    def measure(self, load: Load) -> Measurement:
        """Run the client once.

        Raises:
            ChildError: it failed, or no call of it was answered.
        """
        arguments = load.arguments(self.address)
        limit = load.warmup + load.duration + 3 * CALL_TIMEOUT
        begun = time.monotonic()
        self._meter.start()
        with Child("the gRPC C++ client", arguments, self._log, program=self._binaries.client) as client:
            found = client.receive(Found, limit)
            cpu = self._meter.stop()
        if not found.calls:
            raise ChildError(f"no call of the gRPC C++ client was answered: {found.errors}")
        return found.measurement(cpu, time.monotonic() - begun)


def binaries(build: Path = BUILD) -> Binaries:
    """The programs.

    Raises:
        NotBuiltError: one is missing.
    """
    programs = Binaries(build / "server", build / "client")
    if not all(program.is_file() for program in programs):
        raise NotBuiltError("the gRPC C++ peer is not built: run make peers")
    return programs


@contextmanager
def start(logs: Path) -> Generator[Peer]:
    """Run the server on loopback until the block ends; it listens on entry.

    Args:
        logs: folder for what the processes write to stderr.

    Raises:
        NotBuiltError: there are no binaries.
        ChildError: it did not become ready.
    """
    programs = binaries()
    log = logs / "grpc-cpp-server.log"
    with Child("the gRPC C++ server", [], log, program=programs.server) as server:
        yield Peer(programs, server.receive(Ready, _READY_SECONDS).address, server.pid, logs)
