"""The server processes of a benchmark: how each is started and how it is known to be ready."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from .child import Ready
from .models import CASES, INPUT
from .processes import Child

_READY_SECONDS: Final = 60.0


class Server:
    """A running server."""

    def __init__(self, address: str, pid: int) -> None:
        self.address = address
        self.pid = pid


@contextmanager
def start_server(key: str, repository: Path, logs: Path) -> Generator[Server]:
    """Run the server ``key`` of :data:`SERVERS` on loopback until the block ends; it is ready on entry.

    Raises:
        ChildError: it did not become ready.
    """
    with SERVERS[key](repository, logs / f"{key}-server.log") as server:
        yield server


@contextmanager
def _announcing(name: str, arguments: list[str], log: Path) -> Generator[Server]:
    """A child of ours, which says where it listens."""
    with Child(name, arguments, log) as child:
        yield Server(child.receive(Ready, _READY_SECONDS).address, child.pid)


def _grpc(repository: Path, log: Path) -> AbstractContextManager[Server]:
    return _announcing("the gRPC server", ["-m", f"{__package__}.peers.grpc_server", str(repository)], log)


def _echo(_repository: Path, log: Path) -> AbstractContextManager[Server]:
    return _announcing("the echo server", ["-m", f"{__package__}.echo"], log)


@contextmanager
def tensorwire(
    repository: Path, log: Path, flags: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Generator[Server]:
    """The released command; ready when it answers for every model.

    ``environment``: variables on top of those of this process.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    arguments = ["-m", f"{__package__}.peers.tensorwire_server", "serve", str(repository), "--bind", address]
    arguments += flags
    with Child("tensorwire serve", arguments, log, ends_with_stdin=False, environment=environment) as child:
        child.wait_until(lambda: _answers(address), _READY_SECONDS)
        yield Server(address, child.pid)


def _answers(address: str) -> bool:
    from ..client import Client
    from ..rpc.errors import RpcError

    try:
        with Client(address, timeout=1.0) as client:
            for case in CASES:
                client.predict(case.model, {INPUT: np.zeros(case.shape, np.float32)})
    except RpcError:  # not listening yet, or a model is still loading
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


#: Start of each kind of server: model repository, log file -> context manager.
SERVERS: Final[dict[str, Callable[[Path, Path], AbstractContextManager[Server]]]] = {
    "tensorwire": tensorwire,
    "grpc": _grpc,
    "echo": _echo,
}
