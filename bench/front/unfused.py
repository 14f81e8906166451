"""Part ``unfused``: 256 calls in flight, each a message of its own, from one client process and from three.

The compiled pump beside the one in Python: the same server, started with ``TENSORWIRE_PURE_PYTHON=1``. Only
that server is switched; the clients are the same. Beside both, ``grpc.aio`` with the same manager, engine
and model behind it, and, where it was built, gRPC's C++ callback API: a bare echo, driven by a client in C++
with as many connections as the others have client processes. All take turns in short slices.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from ...rpc.pump import pump_kind
from ...rpc.switch import PURE_PYTHON
from ..clients import Clients
from ..load import Job
from ..models import CASE_OF_NAME, build_repository
from ..peers.grpc_cpp.peer import Peer, start
from ..peers.native import Load
from ..processes import NotBuiltError
from ..proofs import Figures, Proof, workplace
from ..quick import rotated
from ..recorder import Measurement, Spread
from ..results import throughput
from ..servers import start_server, tensorwire
from ..systems import GRPC, UNFUSED
from .ratios import COLUMNS, Limit, Rounds, check_errors, rows, server_cpu

NAME: Final = "unfused"
CASE: Final = "64 B"
CALLERS: Final = 256
COMPILED: Final = "compiled pump"
PYTHON: Final = "Python pump"
CPP: Final = "gRPC C++ echo"
#: Client processes that make the load together.
PROCESSES: Final = (1, 3)
#: CPU seconds of the server with the compiled pump for each request.
SERVER_CPU_LIMIT: Final = 5e-6
LIMITS: Final = (
    Limit(figure="throughput", of=throughput, ours=COMPILED, theirs=PYTHON, limit=1.6, at_least=True),
    Limit(figure="throughput", of=throughput, ours=COMPILED, theirs=GRPC, limit=25.0, at_least=True),
)
CPP_LIMIT: Final = Limit(
    figure="throughput", of=throughput, ours=COMPILED, theirs=CPP, limit=3.0, at_least=True
)


class UnfusedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds."""

    rounds: int = 8
    warmup: float = 0.15
    duration: float = 0.5


class Contest:
    """The systems, running; :func:`contest` makes one."""

    def __init__(self, clients: dict[str, Clients], peer: Peer | None) -> None:
        self._clients = clients
        self._peer = peer
        self.systems = (*clients, *([CPP] if peer else []))

    def measure(self, system: str, processes: int, settings: UnfusedSettings) -> Measurement:
        """One slice of one system."""
        warmup, duration = settings.warmup, settings.duration
        if system == CPP and self._peer:
            load = Load(in_flight=CALLERS, channels=processes, warmup=warmup, duration=duration)
            return self._peer.measure(load)
        job = Job(case=CASE, concurrency=CALLERS, warmup=warmup, duration=duration)
        return self._clients[system].measure(job, processes)


@contextmanager
def contest(proof: Proof) -> Generator[Contest]:
    """Servers and connected clients until the block ends; what is not built is a note of the proof."""
    with ExitStack() as stack:
        repository, logs = stack.enter_context(workplace())
        build_repository(repository)
        pure = {PURE_PYTHON: "1"}
        servers = {
            COMPILED: stack.enter_context(tensorwire(repository, logs / "compiled.log")),
            PYTHON: stack.enter_context(tensorwire(repository, logs / "python.log", environment=pure)),
            GRPC: stack.enter_context(start_server("grpc", repository, logs)),
        }
        clients = {
            name: stack.enter_context(
                Clients(GRPC if name == GRPC else UNFUSED, server, max(PROCESSES), logs, name)
            )
            for name, server in servers.items()
        }
        peer = None
        try:
            peer = stack.enter_context(start(logs))
        except NotBuiltError as error:
            proof.notes.append(f"{NAME}: not run: {CPP} ({error})")
        yield Contest(clients, peer)


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a process died.
    """
    settings = UnfusedSettings(rounds=20, duration=1.0) if full else UnfusedSettings()
    situations = measure(proof, settings)
    title = f"{NAME}: {CASE_OF_NAME[CASE].input_bytes} B, {CALLERS} in flight, "
    title += f"{settings.rounds} rounds of {settings.duration:g} s in turn; medians"
    table = [row for situation, found in situations.items() for row in rows(situation, found)]
    proof.figures.append(Figures(title, COLUMNS, table))
    proof.notes.append(
        f"{NAME}: {COMPILED} and {PYTHON} are tensorwire through manager, batching and ONNX Runtime; only "
        f"the server is switched ({PURE_PYTHON}=1), the Python clients are the same"
    )
    if pump_kind() != "compiled":
        proof.notes.append(f"{NAME}: the pump was not compiled here, so {COMPILED} is the one in Python")
    proof.raw[NAME] = situations
    for situation, found in situations.items():
        verify(proof, f"{NAME}, {situation}", found)
    check_errors(proof, NAME, situations)


def measure(proof: Proof, settings: UnfusedSettings) -> dict[str, Rounds]:
    """Rounds by situation and system."""
    with contest(proof) as running:
        found: dict[int, dict[str, list[Measurement]]] = {
            processes: {system: [] for system in running.systems} for processes in PROCESSES
        }
        for number in range(settings.rounds):
            for processes, systems in found.items():
                for system in rotated(running.systems, number):
                    systems[system].append(running.measure(system, processes, settings))
    return {
        f"{processes} client process{'es' if processes > 1 else ''}": systems
        for processes, systems in found.items()
    }


def verify(proof: Proof, situation: str, found: Rounds) -> None:
    """The verdict over one situation."""
    for limit in LIMITS:
        limit.check(proof, situation, found)
    cpu = Spread.of([server_cpu(each) * 1e6 for each in found[COMPILED]])
    proof.check(
        0 < cpu.median <= SERVER_CPU_LIMIT * 1e6,
        f"{situation}, {COMPILED}: server CPU {cpu.median:.2f} us a request "
        f"(rounds {cpu.low:.2f} to {cpu.high:.2f}); expected <= {SERVER_CPU_LIMIT * 1e6:g} us",
    )
    if found.get(CPP):
        CPP_LIMIT.check(proof, situation, found)
        echo = Spread.of([server_cpu(each) * 1e6 for each in found[CPP]])
        proof.notes.append(
            f"{situation}: {COMPILED} with a model and a Python client, {CPP} with neither: "
            f"server CPU {cpu.median:.2f} and {echo.median:.2f} us a request"
        )
