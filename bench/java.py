"""The Java client beside grpc-java: 64 blocking threads, 64 bytes, each against its own server.

Both servers have the same manager, engine and model behind them, and batch continuously. The client
processes are alike but for the client; they take turns in short rounds, after the JIT compiler has seen each.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

import msgspec

from .environment import Environment
from .front.ratios import COLUMNS, Limit, Rounds, check_errors, rows
from .java_clients import JavaClient, JavaJob
from .models import build_repository
from .proofs import Figures, Proof, workplace
from .quick import rotated
from .recorder import Measurement
from .results import p99, throughput
from .servers import start_server

NAME: Final = "java"
TENSORWIRE: Final = "tensorwire, Java"
GRPC_JAVA: Final = "grpc-java"
#: Key of the client and of its server, by system.
_SYSTEMS: Final = {GRPC_JAVA: ("grpc", "grpc"), TENSORWIRE: ("tensorwire", "tensorwire")}
CALLERS: Final = 64
LIMITS: Final = (
    Limit(figure="throughput", of=throughput, ours=TENSORWIRE, theirs=GRPC_JAVA, limit=5.0, at_least=True),
    Limit(
        figure="p99", of=p99, ours=TENSORWIRE, theirs=GRPC_JAVA, limit=1 / 3, at_least=False, fraction="1/3"
    ),
)


class JavaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds. ``compiling``: before the first round, for the JIT compiler."""

    rounds: int = 6
    compiling: float = 3.0
    warmup: float = 0.3
    duration: float = 1.0


def run(settings: JavaSettings) -> Proof:
    """Measure, and give the verdict.

    Raises:
        ChildError: a process died.
        NotBuiltError: the Java programs are not there.
    """
    begun = time.monotonic()
    proof = Proof(name=NAME, environment=Environment.read())
    found = measure(settings)
    situation = f"64 B, {CALLERS} threads"
    title = f"{NAME}: {situation}, {settings.rounds} rounds of {settings.duration:g} s in turn; medians"
    proof.figures.append(Figures(title, COLUMNS, rows(situation, found)))
    proof.raw[NAME] = {situation: found}
    for limit in LIMITS:
        limit.check(proof, situation, found)
    check_errors(proof, NAME, {situation: found})
    proof.seconds = time.monotonic() - begun
    return proof


def measure(settings: JavaSettings) -> Rounds:
    """Rounds by system."""
    with ExitStack() as stack:
        repository, logs = stack.enter_context(workplace())
        build_repository(repository)
        clients: dict[str, JavaClient] = {}
        for name, (client, server) in _SYSTEMS.items():
            running = stack.enter_context(start_server(server, repository, logs))
            clients[name] = stack.enter_context(JavaClient(client, running, logs))
        for client in clients.values():
            client.measure(JavaJob(callers=CALLERS, warmup=settings.compiling, duration=settings.duration))
        found: dict[str, list[Measurement]] = {name: [] for name in clients}
        job = JavaJob(callers=CALLERS, warmup=settings.warmup, duration=settings.duration)
        for number in range(settings.rounds):
            for name in rotated(tuple(clients), number):
                found[name].append(clients[name].measure(job))
        return found
