"""The systems under test: what a client of each looks like to the load generator, and which server it needs.

A new system is one entry in :data:`SYSTEMS` and one module in ``bench/peers``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol

from .models import Array, Case

#: Every call gets the same deadline in every system: far above any latency that a sane run shows.
CALL_TIMEOUT: Final = 10.0

Answer = Mapping[str, Any]
AsyncCall = Callable[[], Awaitable[Answer]]
SyncCall = Callable[[], Answer]


class AsyncSystem(Protocol):
    """A connected client in an event loop."""

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> AsyncCall:
        """A call that sends ``inputs`` and gives the outputs by name; what can be prepared once, is.

        ``timeout``: seconds after which the call fails, as its own client counts them.
        """
        ...

    def code_of(self, error: Exception) -> str:
        """Name of the status code of a failed call."""
        ...


class SyncSystem(Protocol):
    """A connected blocking client."""

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> SyncCall:
        """As :meth:`AsyncSystem.caller`."""
        ...

    def code_of(self, error: Exception) -> str:
        """Name of the status code of a failed call."""
        ...


@dataclass(frozen=True)
class System:
    """One system under test.

    Attributes:
        name: as it is printed.
        server: key of the server process that it talks to; several systems may share one.
        client: ``module:function`` of the factory: address -> context manager that gives the client. Imported
            in the client process only, so no process carries the libraries of another system.
        asynchronous: whether the factory gives an :class:`AsyncSystem`.
        verified: whether answers are compared with the model's reference (an echo has no model).
    """

    name: str
    server: str
    client: str
    asynchronous: bool = True
    verified: bool = True

    def _factory(self) -> Any:
        module, _, function = self.client.partition(":")
        return getattr(import_module(module, __package__), function)

    def open_async(self, address: str) -> AbstractAsyncContextManager[AsyncSystem]:
        """Connect; for asynchronous systems."""
        return self._factory()(address)

    def open_sync(self, address: str) -> AbstractContextManager[SyncSystem]:
        """Connect; for the others."""
        return self._factory()(address)


FUSED: Final = "tensorwire fused"
UNFUSED: Final = "tensorwire unfused"
GRPC: Final = "grpc.aio"
SYNC: Final = "tensorwire sync"
SPINNING: Final = "tensorwire sync, spinning"
ECHO: Final = "bare pyzmq echo"
#: Not systems but ceilings: what the load generator reaches where nothing else has to be done.
NULL: Final = "null"
NULL_THREADS: Final = "null threads"
NULL_LOOP: Final = "null in-process"

SYSTEMS: Final[dict[str, System]] = {
    system.name: system
    for system in (
        System(FUSED, "tensorwire", ".peers.tensorwire_client:open_fused"),
        System(UNFUSED, "tensorwire", ".peers.tensorwire_client:open_unfused"),
        System(GRPC, "grpc", ".peers.grpc_client:open_client"),
        System(SYNC, "tensorwire", ".peers.tensorwire_client:open_sync", asynchronous=False),
        System(SPINNING, "tensorwire", ".peers.tensorwire_client:open_spinning", asynchronous=False),
        System(ECHO, "echo", ".echo:open_client", asynchronous=False, verified=False),
        System(NULL, "echo", ".null:open_async", verified=False),
        System(NULL_THREADS, "echo", ".null:open_threads", asynchronous=False, verified=False),
        System(NULL_LOOP, "echo", ".null:open_loop", verified=False),
    )
}


def ceiling_of(system: str) -> str:
    """The null system that tells whether the load generator, not this system, was the bottleneck."""
    return NULL if SYSTEMS[system].asynchronous else NULL_THREADS
