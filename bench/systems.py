"""The systems under test: what a client of each looks like to the load generator, and which server it needs.

A new system is one entry in :data:`SYSTEMS` and one module in ``bench/peers``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from .models import Array, Case

if TYPE_CHECKING:
    from .load import Job
    from .recorder import Measurement
    from .servers import Server

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


class LoadClients(Protocol):
    """Connected client processes of one system that make load together."""

    def measure(self, job: Job, processes: int) -> Measurement:
        """Have the first so many processes share the callers of a job.

        Raises:
            ChildError: a process died or could not measure.
        """
        ...


@dataclass(frozen=True)
class System:
    """One system under test.

    Attributes:
        name: as it is printed.
        server: key of the server process that it talks to; several systems may share one.
        client: ``module:function`` of the factory: address -> context manager that gives the client. Imported
            in the client process only, so no process carries the libraries of another system. Of a native
            system: (server, count, folder of logs) -> context manager that gives :class:`LoadClients`.
        asynchronous: whether the factory gives an :class:`AsyncSystem`.
        verified: whether answers are compared with the model's reference (an echo has no model).
        native: its client is a program of its own, not Python.
        options: settings of its server and client that matter, for people.
        modules: of Python, that have to be installed for it.
        probe: ``module:function`` that says what else is missing; "" where nothing is.
    """

    name: str
    server: str
    client: str
    asynchronous: bool = True
    verified: bool = True
    native: bool = False
    options: str = ""
    modules: tuple[str, ...] = ()
    probe: str = ""

    def open_async(self, address: str) -> AbstractAsyncContextManager[AsyncSystem]:
        """Connect; for asynchronous systems."""
        return _found(self.client)(address)

    def open_sync(self, address: str) -> AbstractContextManager[SyncSystem]:
        """Connect; for the blocking ones."""
        return _found(self.client)(address)

    def open_native(self, server: Server, count: int, logs: Path) -> AbstractContextManager[LoadClients]:
        """Make ready to start so many client processes; for native systems."""
        return _found(self.client)(server, count, logs)


def _found(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(module, __package__), function)


def unavailable(system: str) -> str:
    """Why a system cannot run here, in one line; "" where it can. Looks anew each time."""
    wanted = SYSTEMS[system]
    missing = [module for module in wanted.modules if not _installed(module)]
    if missing:
        return f"not installed: {', '.join(missing)} (pip install 'tensorwire[bench]')"
    return _found(wanted.probe)() if wanted.probe else ""


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def options_of(system: str) -> str:
    """The settings of a system's server and client that matter, for people."""
    return SYSTEMS[system].options


FUSED: Final = "tensorwire fused"
UNFUSED: Final = "tensorwire unfused"
THREADS: Final = "tensorwire threads"
PROCESSES: Final = "tensorwire processes"
FRONT_ENDS: Final = "tensorwire front ends"
GRPC: Final = "grpc.aio"
GRPC_CHANNELS: Final = "grpc.aio channels"
GRPC_THREADS: Final = "grpcio threads"
CPP_CALLBACK: Final = "gRPC C++ callback"
CPP_ASYNC: Final = "gRPC C++ async"
CPP_CHANNELS: Final = "gRPC C++ channels"
TRITON: Final = "Triton"
THRIFT: Final = "Thrift Python"
THRIFT_CPP: Final = "Thrift C++"
SYNC: Final = "tensorwire sync"
SPINNING: Final = "tensorwire sync, spinning"
ECHO: Final = "bare pyzmq echo"
RPC_ECHO: Final = "tensorwire echo fused"
GRPC_ECHO: Final = "grpc.aio echo"

_TENSORWIRE: Final = ".peers.tensorwire_client:"
_GRPC: Final = ".peers.grpc_client:"
_GRPC_MODULES: Final = ("grpc", "google.protobuf")
_SERVE: Final = "tensorwire serve, defaults"
_CPP_ECHO: Final = "no model behind it, no message limits"
_CPP: Final = f"{_CPP_ECHO}; one channel for each client process"
_AIO: Final = "uvloop where installed, batches run in the event loop, no message limits"
#: Not systems but ceilings: what the load generator reaches where nothing else has to be done.
NULL: Final = "null"
NULL_THREADS: Final = "null threads"
NULL_LOOP: Final = "null in-process"

SYSTEMS: Final[dict[str, System]] = {
    system.name: system
    for system in (
        System(
            FUSED,
            "tensorwire",
            _TENSORWIRE + "open_fused",
            options=f"{_SERVE}; AsyncClient(fuse=True), one connection",
        ),
        System(
            UNFUSED,
            "tensorwire",
            _TENSORWIRE + "open_unfused",
            options=f"{_SERVE}; AsyncClient(fuse=False), one connection",
        ),
        System(
            THREADS,
            "tensorwire",
            _TENSORWIRE + "open_sync",
            asynchronous=False,
            options=f"{_SERVE}; one blocking Client, shared by the threads",
        ),
        System(
            PROCESSES,
            "tensorwire processes",
            _TENSORWIRE + "open_fused",
            options='tensorwire serve with [workers] kind = "process" in every model.toml, else defaults; '
            "AsyncClient(fuse=True), one connection",
        ),
        System(
            FRONT_ENDS,
            "tensorwire front ends",
            _TENSORWIRE + "open_several",
            options="tensorwire serve --front-ends 2; eight AsyncClient(fuse=False) in each client process",
        ),
        System(
            GRPC,
            "grpc",
            _GRPC + "open_client",
            modules=_GRPC_MODULES,
            options=f"one server process, {_AIO}; one channel in each client process",
        ),
        System(
            GRPC_CHANNELS,
            "grpc processes",
            _GRPC + "open_channels",
            modules=_GRPC_MODULES,
            options=f"two server processes on one port with SO_REUSEPORT, {_AIO}; "
            "eight channels with a connection each in each client process",
        ),
        System(
            GRPC_THREADS,
            "grpc threads",
            _GRPC + "open_blocking",
            asynchronous=False,
            modules=_GRPC_MODULES,
            options="grpc.server with 32 threads, which batch among themselves, no message limits; one "
            "channel in each client process, shared by its threads",
        ),
        System(
            CPP_CALLBACK,
            "grpc c++ callback",
            ".peers.grpc_cpp.peer:open_clients",
            verified=False,
            native=True,
            options=f"callback server and client in C++, {_CPP}",
            probe=".peers.grpc_cpp.peer:missing",
        ),
        System(
            CPP_ASYNC,
            "grpc c++ async",
            ".peers.grpc_cpp.peer:open_clients",
            verified=False,
            native=True,
            options="server in C++ with a completion queue and a thread for each core, callback client in "
            f"C++, {_CPP}",
            probe=".peers.grpc_cpp.peer:missing",
        ),
        System(
            CPP_CHANNELS,
            "grpc c++ callback",
            ".peers.grpc_cpp.peer:open_channels",
            verified=False,
            native=True,
            options=f"callback server and client in C++, {_CPP_ECHO}; eight channels with a connection each "
            "in each client process",
            probe=".peers.grpc_cpp.peer:missing",
        ),
        System(
            TRITON,
            "triton",
            _GRPC + "open_client",
            modules=(*_GRPC_MODULES, "onnx"),
            options="tritonserver of nvidia-pytriton 0.7.0; its only backend is Python: ONNX Runtime in one "
            "process for each instance of a model, batches with tensorwire's limit, without a delay; client "
            "as grpc.aio, one channel",
            probe=".peers.triton.server:missing",
        ),
        System(
            THRIFT,
            "thrift",
            ".peers.thrift.client:open_client",
            asynchronous=False,
            modules=("thriftpy2",),
            options="thriftpy2 with its Cython binary protocol, framed; TThreadedServer, whose threads batch "
            "among themselves; a connection for each call in flight",
        ),
        System(
            THRIFT_CPP,
            "thrift c++",
            ".peers.thrift_cpp.peer:open_clients",
            verified=False,
            native=True,
            options="TNonblockingServer with an I/O thread for each core, binary protocol, framed, no model "
            "behind it; a connection and a thread for each call in flight",
            probe=".peers.thrift_cpp.peer:missing",
        ),
        System(SYNC, "tensorwire", _TENSORWIRE + "open_sync", asynchronous=False),
        System(SPINNING, "tensorwire", _TENSORWIRE + "open_spinning", asynchronous=False),
        System(ECHO, "echo", ".echo:open_client", asynchronous=False, verified=False),
        System(
            RPC_ECHO,
            "tensorwire echo",
            _TENSORWIRE + "open_fused",
            verified=False,
            options="the pump of tensorwire serve, answered at once with the first 16 bytes of the input; "
            "AsyncClient(fuse=True)",
        ),
        System(
            GRPC_ECHO,
            "grpc echo",
            _GRPC + "open_client",
            verified=False,
            modules=_GRPC_MODULES,
            options=f"grpc.aio, answered at once with the first 16 bytes of the input, {_AIO}; one channel",
        ),
        System(NULL, "echo", ".null:open_async", verified=False),
        System(NULL_THREADS, "echo", ".null:open_threads", asynchronous=False, verified=False),
        System(NULL_LOOP, "echo", ".null:open_loop", verified=False),
    )
}


def ceiling_of(system: str) -> str:
    """The null system that tells whether the load generator, not this system, was the bottleneck.

    "" for native systems, which bring a generator of their own.
    """
    if SYSTEMS[system].native:
        return ""
    return NULL if SYSTEMS[system].asynchronous else NULL_THREADS
