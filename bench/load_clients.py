"""Client processes of any system, Python or not, that make load together: :func:`open_clients`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from .clients import Clients
from .servers import Server
from .systems import SYSTEMS, LoadClients


def open_clients(
    system: str, server: Server, count: int, logs: Path, label: str = ""
) -> AbstractContextManager[LoadClients]:
    """Client processes of a system for as long as the block lasts; ``measure(job, processes)`` has them work.

    Args:
        system: of :data:`.systems.SYSTEMS`.
        server: what they connect to.
        count: of processes; a job may use fewer.
        logs: folder for what they write to stderr.
        label: tells their logs from those of other clients of the same system.

    Raises:
        ChildError: one did not become ready.
        NotBuiltError: their program is not there.
    """
    wanted = SYSTEMS[system]
    if wanted.native:
        return wanted.open_native(server, count, logs)
    return Clients(system, server, count, logs, label)
