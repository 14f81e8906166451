"""Runs the gRPC peers in C++: an echo of ``ModelInfer`` with no model behind it, driven by its own client."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ...child import Ready
from ...processes import Child, NotBuiltError
from ...recorder import Measurement
from ...servers import Server
from ..native import Load, NativeClients

#: Where ``make bench-peers`` leaves the binaries.
BUILD: Final = Path(__file__).parents[3] / "build" / "peers" / "grpc_cpp"
_NAME: Final = "gRPC C++"
_READY_SECONDS: Final = 30.0
#: As many as the client in Python has where it has several.
_CHANNELS: Final = 8


class Binaries(NamedTuple):
    """Paths of the programs: two servers, with the callback interface and with completion queues."""

    server: Path
    async_server: Path
    client: Path


class Peer:
    """A running server; :func:`start` makes one."""

    def __init__(self, client: Path, server: Server, logs: Path) -> None:
        self.address = server.address
        self.pid = server.pid
        self._clients = NativeClients(_NAME, client, server, 1, logs)

    def measure(self, load: Load) -> Measurement:
        """Run the client once.

        Raises:
            ChildError: it failed, or no call of it was answered.
        """
        return self._clients.run([load])


def binaries(build: Path = BUILD) -> Binaries:
    """The programs.

    Raises:
        NotBuiltError: one is missing.
    """
    programs = Binaries(*(build / name for name in Binaries._fields))
    if not all(program.is_file() for program in programs):
        raise NotBuiltError("the gRPC C++ peer is not built: run make bench-peers")
    return programs


def missing() -> str:
    """Why the peers cannot run; "" where they can."""
    try:
        binaries()
    except NotBuiltError as error:
        return str(error)
    return ""


@contextmanager
def start_server(program: str, log: Path, flags: Sequence[str] = ()) -> Generator[Server]:
    """Run one of the servers on loopback until the block ends; it listens on entry.

    Args:
        program: a field of :class:`Binaries`.
        log: takes what it writes to stderr.

    Raises:
        NotBuiltError: there are no binaries.
        ChildError: it did not become ready.
    """
    path = getattr(binaries(), program)
    with Child(f"the gRPC C++ {program}", list(flags), log, program=path) as server:
        yield Server(server.receive(Ready, _READY_SECONDS).address, server.pid)


def open_clients(server: Server, count: int, logs: Path) -> NativeClients:
    """Client processes; raises :class:`NotBuiltError` where they were not built."""
    return NativeClients(_NAME, binaries().client, server, count, logs)


def open_channels(server: Server, count: int, logs: Path) -> NativeClients:
    """The same with several channels in each process."""
    return NativeClients(f"{_NAME} channels", binaries().client, server, count, logs, channels=_CHANNELS)


@contextmanager
def start(logs: Path) -> Generator[Peer]:
    """The callback server and its client; raises as :func:`start_server`.

    Args:
        logs: folder for what the processes write to stderr.
    """
    with start_server("server", logs / "grpc-cpp-server.log") as server:
        yield Peer(binaries().client, server, logs)
