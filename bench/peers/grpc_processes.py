"""Several ``grpc.aio`` servers on one port (SO_REUSEPORT), as gRPC's own multiprocessing example has it.

``python -m tensorwire.bench.peers.grpc_processes REPOSITORY --processes N [flags of grpc_server]``. The
kernel deals connections out among the processes; each has the models for itself.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ..child import Ready, say, stop_event
from ..processes import Child, watch

_HOST: Final = "127.0.0.1"
_READY_SECONDS: Final = 60.0


@contextmanager
def _reserved_port() -> Generator[int]:
    """A port of which this process holds one end, without listening, until all others have theirs."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((_HOST, 0))
        port: int = reserved.getsockname()[1]
        yield port


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stdin closes.

    Raises:
        ChildError: one of the servers did not become ready, or has ended.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository")
    parser.add_argument("--processes", type=int, default=2)
    options, flags = parser.parse_known_args(arguments)
    stopped = stop_event()
    with _reserved_port() as port, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tensorwire-grpc-")))
        command = ["-m", f"{__package__}.grpc_server", options.repository, "--bind", f"{_HOST}:{port}"]
        children = [
            stack.enter_context(
                Child(f"gRPC server {number}", [*command, "--share-port", *flags], folder / f"{number}.log")
            )
            for number in range(options.processes)
        ]
        for child in children:
            child.receive(Ready, _READY_SECONDS)
        say(Ready(f"{_HOST}:{port}"))
        watch(children, stopped)


if __name__ == "__main__":
    main()
