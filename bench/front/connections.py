"""Part ``connections``: a thousand connections with a request in flight each, beside sixteen with as many.

The same client processes do both, in turn, and pay the same for a request either way; see :mod:`.many`. No
request shares a message with another one. What a connection of its own costs is what the kernel and libzmq
take to read and write one message at a time where they otherwise find several together: for comparison,
the echo in C is called in the same way.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import psutil

from ..child import Ready
from ..models import build_repository
from ..processes import Child
from ..proofs import Figures, Proof, serving, workplace
from ..recorder import Spread
from ..servers import Server
from . import c_echo
from .many import CASE, Answered, Crowd, Spell, allow_descriptors

NAME: Final = "connections"
SERVER: Final = "tensorwire unfused"
C_ECHO: Final = "echo in C"
MANY: Final = "many"
FEW: Final = "few"
#: Throughput over many connections over that over few.
LIMIT: Final = 0.8
_WAIT: Final = 60.0
#: Descriptors of the server besides its connections.
_OTHER_FDS: Final = 256


class ConnectionsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds. Both groups have ``many`` requests in flight."""

    many: int = 1000
    few: int = 16
    processes: int = 2
    rounds: int = 9
    warmup: float = 0.1
    seconds: float = 0.5


class Slice(NamedTuple):
    """One group's turn: answers a second, CPU seconds of server and clients for each, answers in all."""

    rate: float
    server: float
    clients: float
    answered: int
    wrong: int


#: By system and group.
Slices = dict[tuple[str, str], list[Slice]]


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: the server or a client died, or left a request without an answer.
    """
    settings = ConnectionsSettings(rounds=30, seconds=1.0) if full else ConnectionsSettings()
    report(proof, measure(proof, settings), settings)


def measure(proof: Proof, settings: ConnectionsSettings) -> Slices:
    """All slices; those of the echo are left out where it was not built, with a note."""
    allow_descriptors(settings.many + settings.few + _OTHER_FDS)
    found: Slices = {}
    with workplace() as (repository, logs), ExitStack() as stack:
        build_repository(repository)
        servers = {SERVER: stack.enter_context(serving(repository, logs))}
        try:
            servers[C_ECHO] = stack.enter_context(c_echo.start(c_echo.build(), logs / "echo-c.log"))
        except c_echo.NotBuiltError as error:
            proof.notes.append(f"{NAME}: not built: {error}")
        clients = {
            name: stack.enter_context(_clients(name, server, settings, logs))
            for name, server in servers.items()
        }
        turns = [(name, group) for name in servers for group in (MANY, FEW)]
        for number in range(settings.rounds + 1):
            for name, group in _rotated(turns, number):
                each = _slice(servers[name], clients[name], group, settings)
                found.setdefault((name, group), []).append(each)
    # The first ones find everything cold.
    return {key: slices[1:] for key, slices in found.items()}


def _rotated(turns: Sequence[tuple[str, str]], number: int) -> list[tuple[str, str]]:
    """The order of one round: each is first, second, ... equally often."""
    start = number % len(turns)
    return [*turns[start:], *turns[:start]]


@contextmanager
def _clients(name: str, server: Server, settings: ConnectionsSettings, logs: Path) -> Generator[list[Child]]:
    """Processes that share the connections, and what is in flight, of both groups."""
    with ExitStack() as stack:
        clients: list[Child] = []
        for number in range(settings.processes):
            many, few = (_share(total, number, settings) for total in (settings.many, settings.few))
            groups = {MANY: (many, many), FEW: (few, many)}
            crowd = Crowd(address=server.address, groups=groups, echo=name == C_ECHO)
            arguments = ["-m", f"{__package__}.many", msgspec.json.encode(crowd).decode()]
            log = logs / f"{name.replace(' ', '-')}-client-{number}.log"
            clients.append(stack.enter_context(Child(f"client {number} of {name}", arguments, log)))
        for client in clients:
            client.receive(Ready, _WAIT)
        yield clients


def _share(total: int, number: int, settings: ConnectionsSettings) -> int:
    return total * (number + 1) // settings.processes - total * number // settings.processes


def _slice(server: Server, clients: list[Child], group: str, settings: ConnectionsSettings) -> Slice:
    spell = Spell(group=group, warmup=settings.warmup, seconds=settings.seconds)
    before = _cpu(server.pid)
    for client in clients:
        client.send(spell)
    found = [client.receive(Answered, settings.warmup + settings.seconds + _WAIT) for client in clients]
    used = _cpu(server.pid) - before
    answered = sum(each.answered for each in found)
    return Slice(
        rate=sum(each.rate for each in found),
        server=used / answered,
        clients=sum(each.cpu for each in found) / answered,
        answered=answered,
        wrong=sum(each.wrong for each in found),
    )


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def report(proof: Proof, found: Slices, settings: ConnectionsSettings) -> None:
    """Table and verdict."""
    names = {MANY: f"{settings.many:,} connections", FEW: f"{settings.few} connections"}
    ratios = {
        system: Spread.of(
            [a.rate / b.rate for a, b in zip(found[system, MANY], found[system, FEW], strict=True)]
        )
        for system in dict.fromkeys(system for system, _ in found)
    }
    rows = [
        (system, names[group], *_row(slices), _shown(ratios[system]) if group == MANY else "")
        for (system, group), slices in found.items()
    ]
    title = f"{NAME}: {CASE}, {settings.many:,} requests in flight, {settings.processes} client processes, "
    title += f"{settings.rounds} rounds of {settings.seconds:g} s in turn; medians"
    columns = (
        "system", "clients", "requests/s (rounds)", "server CPU us/request", "clients' CPU us/request",
        "answers", "many over few",
    )  # fmt: skip
    proof.figures.append(Figures(title, columns, rows))
    slices = [each for group in found.values() for each in group]
    answers, wrong = sum(each.answered for each in slices), sum(each.wrong for each in slices)
    proof.check(answers > 0 and not wrong, f"{NAME}: {answers:,} answers, {wrong or 'none'} wrong")
    ratio = ratios[SERVER]
    text = f"{NAME}: throughput of {names[MANY]} {_shown(ratio)} of that of {names[FEW]}; "
    proof.check(ratio.median >= LIMIT, f"{text}expected >= {LIMIT:.0%}")
    proof.raw[NAME] = {
        "slices": {
            f"{system}, {group}": [each._asdict() for each in v] for (system, group), v in found.items()
        },
        "ratios": ratios,
    }


def _shown(ratio: Spread) -> str:
    return f"{ratio.median:.0%} ({ratio.low:.0%}-{ratio.high:.0%})"


def _row(slices: list[Slice]) -> tuple[str, ...]:
    rate = Spread.of([each.rate for each in slices])
    cpu = (Spread.of([getattr(each, side) * 1e6 for each in slices]) for side in ("server", "clients"))
    return (
        f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})",
        *(f"{each.median:.1f} ({each.low:.1f}-{each.high:.1f})" for each in cpu),
        f"{sum(each.answered for each in slices):,}",
    )
