"""Runs the Thrift peer in C++: an echo with no model behind it, driven by its own client."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ...child import Ready
from ...processes import Child, NotBuiltError
from ...servers import Server
from ..native import NativeClients

#: Where ``make bench-peers`` leaves the binaries.
BUILD: Final = Path(__file__).parents[3] / "build" / "peers" / "thrift_cpp"
_READY_SECONDS: Final = 30.0


class Binaries(NamedTuple):
    """Paths of the programs."""

    server: Path
    client: Path


def binaries(build: Path = BUILD) -> Binaries:
    """The programs.

    Raises:
        NotBuiltError: one is missing.
    """
    programs = Binaries(*(build / name for name in Binaries._fields))
    if not all(program.is_file() for program in programs):
        raise NotBuiltError("the Thrift C++ peer is not built: run make bench-peers")
    return programs


def missing() -> str:
    """Why the peer cannot run; "" where it can."""
    try:
        binaries()
    except NotBuiltError as error:
        return str(error)
    return ""


@contextmanager
def start_server(log: Path, flags: Sequence[str] = ()) -> Generator[Server]:
    """Run the server on loopback until the block ends; it listens on entry.

    Args:
        log: takes what it writes to stderr.

    Raises:
        NotBuiltError: there are no binaries.
        ChildError: it did not become ready.
    """
    with Child("the Thrift C++ server", list(flags), log, program=binaries().server) as server:
        yield Server(server.receive(Ready, _READY_SECONDS).address, server.pid)


def open_clients(server: Server, count: int, logs: Path) -> NativeClients:
    """Client processes; raises :class:`NotBuiltError` where they were not built."""
    return NativeClients("Thrift C++", binaries().client, server, count, logs)
