"""Where a server runs, seen from the machine of the command."""

from __future__ import annotations

import psutil


def server_pid(address: str) -> int | None:
    """The process that listens there, if it is on this machine and may be looked at."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        if address.startswith("ipc://"):
            path = address.removeprefix("ipc://")
            found = [c for c in psutil.net_connections("unix") if c.laddr == path]
        elif host in _own_addresses():
            listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
            found = [c for c in listening if c.laddr and str(c.laddr[1]) == port]
        else:
            return None
    except (psutil.Error, OSError):
        return None
    pids = {connection.pid for connection in found} - {None}
    return pids.pop() if len(pids) == 1 else None


def _own_addresses() -> set[str]:
    found = {address.address for card in psutil.net_if_addrs().values() for address in card}
    return {*found, "localhost", "127.0.0.1", "[::1]"}


def server_cores(pid: int | None) -> int:
    """Cores that a server may use; of this machine where it is elsewhere."""
    try:
        return len(psutil.Process(pid).cpu_affinity() or ()) or 1
    except psutil.Error:
        return psutil.cpu_count() or 1
