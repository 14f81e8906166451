"""The server processes of a benchmark: how each is started and how it is known to be ready."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from .child import Ready
from .processes import Child

_READY_SECONDS: Final = 60.0


class Server:
    """A running server."""

    def __init__(self, address: str, pid: int) -> None:
        self.address = address
        self.pid = pid


#: Model repository, log file and further arguments -> context manager.
_Start = Callable[[Path, Path, Sequence[str]], AbstractContextManager[Server]]


@contextmanager
def start_server(key: str, repository: Path, logs: Path, flags: Sequence[str] = ()) -> Generator[Server]:
    """Run the server ``key`` of :data:`SERVERS` on loopback until the block ends; it is ready on entry.

    ``flags``: more arguments for it, such as ``--executor N`` for the gRPC and Thrift servers in Python.

    Raises:
        ChildError: it did not become ready.
        NotBuiltError: its program is not there.
    """
    with SERVERS[key](repository, logs / f"{key.replace(' ', '-')}-server.log", flags) as server:
        yield server


def _module(name: str, *arguments: str, models: bool = True) -> _Start:
    """A child of ours, which says where it listens."""

    @contextmanager
    def start(repository: Path, log: Path, flags: Sequence[str]) -> Generator[Server]:
        command = ["-m", f"{__package__}.{name}", *([str(repository)] if models else []), *arguments, *flags]
        with Child(f"the server {name}", command, log) as child:
            yield Server(child.receive(Ready, _READY_SECONDS).address, child.pid)

    return start


@contextmanager
def tensorwire(
    repository: Path, log: Path, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Generator[Server]:
    """The released command; ready when every model serves.

    ``environment``: variables on top of those of this process.
    """
    with tempfile.TemporaryDirectory(prefix="tensorwire-ready-") as folder:
        ready = Path(folder, "address")
        arguments = ["-m", f"{__package__}.peers.tensorwire_server", "serve", str(repository)]
        arguments += ["--bind", "tcp://127.0.0.1:0", "--ready-file", str(ready), *flags]
        with Child(
            "tensorwire serve", arguments, log, ends_with_stdin=False, environment=environment
        ) as child:
            child.wait_until(ready.exists, _READY_SECONDS)
            yield Server(ready.read_text().strip(), child.pid)


@contextmanager
def _processes(repository: Path, log: Path, flags: Sequence[str]) -> Generator[Server]:
    """The same with worker processes for every model: in a copy of the repository, whose files say so."""
    from .peers.repositories import copy_with_processes

    with tempfile.TemporaryDirectory(prefix="tensorwire-processes-") as folder:
        copy = copy_with_processes(repository, Path(folder, "models"))
        with tensorwire(copy, log, flags) as server:
            yield server


def _front_ends(repository: Path, log: Path, flags: Sequence[str]) -> AbstractContextManager[Server]:
    return tensorwire(repository, log, ("--front-ends", "2", *flags))


def _grpc_cpp(program: str) -> _Start:
    def start(_repository: Path, log: Path, flags: Sequence[str]) -> AbstractContextManager[Server]:
        from .peers.grpc_cpp.peer import start_server

        return start_server(program, log, flags)

    return start


def _thrift_cpp(_repository: Path, log: Path, flags: Sequence[str]) -> AbstractContextManager[Server]:
    from .peers.thrift_cpp.peer import start_server

    return start_server(log, flags)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


#: Start of each kind of server.
SERVERS: Final[dict[str, _Start]] = {
    "tensorwire": tensorwire,
    "tensorwire processes": _processes,
    "tensorwire front ends": _front_ends,
    "tensorwire echo": _module("peers.tensorwire_echo", models=False),
    "grpc": _module("peers.grpc_server"),
    "grpc processes": _module("peers.grpc_processes", "--processes", "2"),
    "grpc threads": _module("peers.grpc_threads"),
    "grpc echo": _module("peers.grpc_echo", models=False),
    "grpc c++ callback": _grpc_cpp("server"),
    "grpc c++ async": _grpc_cpp("async_server"),
    "triton": _module("peers.triton.server"),
    "thrift": _module("peers.thrift.server"),
    "thrift c++": _thrift_cpp,
    "echo": _module("echo", models=False),
}
