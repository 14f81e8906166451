"""Part ``connections``: a thousand connections with a request in flight each, beside sixteen with as many.

The same client processes do both, in turn, and pay the same for a request either way; see :mod:`.many`. No
request shares a message with another one. What a connection of its own costs is what the kernel and libzmq
take to read and write one message at a time where they otherwise find several together.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import psutil

from ..child import Ready
from ..models import build_repository
from ..processes import Child
from ..proofs import Figures, Proof, serving, workplace
from ..recorder import Comparison, Spread
from ..servers import Server
from .many import CASE, Answered, Crowd, Spell, allow_descriptors

NAME: Final = "connections"
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


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: the server or a client died, or left a request without an answer.
    """
    settings = ConnectionsSettings(rounds=30, seconds=1.0) if full else ConnectionsSettings()
    report(proof, measure(settings), settings)


def measure(settings: ConnectionsSettings) -> dict[str, list[Slice]]:
    """All slices by group."""
    allow_descriptors(settings.many + settings.few + _OTHER_FDS)
    found: dict[str, list[Slice]] = {MANY: [], FEW: []}
    with workplace() as (repository, logs):
        build_repository(repository)
        with serving(repository, logs) as server, _clients(server, settings, logs) as clients:
            for number in range(settings.rounds + 1):
                for group in (MANY, FEW) if number % 2 else (FEW, MANY):
                    found[group].append(_slice(server, clients, group, settings))
    # The first ones find everything cold.
    return {group: slices[1:] for group, slices in found.items()}


@contextmanager
def _clients(server: Server, settings: ConnectionsSettings, logs: Path) -> Generator[list[Child]]:
    """Processes that share the connections, and what is in flight, of both groups."""
    with ExitStack() as stack:
        clients: list[Child] = []
        for number in range(settings.processes):
            many, few = (_share(total, number, settings) for total in (settings.many, settings.few))
            crowd = Crowd(address=server.address, groups={MANY: (many, many), FEW: (few, many)})
            arguments = ["-m", f"{__package__}.many", msgspec.json.encode(crowd).decode()]
            log = logs / f"client-{number}.log"
            clients.append(stack.enter_context(Child(f"client {number}", arguments, log)))
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


def report(proof: Proof, found: dict[str, list[Slice]], settings: ConnectionsSettings) -> None:
    """Table and verdict."""
    names = {MANY: f"{settings.many:,} connections", FEW: f"{settings.few} connections"}
    rows = [_row(names[group], slices) for group, slices in found.items()]
    title = f"{NAME}: {CASE}, {settings.many:,} requests in flight, {settings.processes} client processes, "
    title += f"{settings.rounds} rounds of {settings.seconds:g} s in turn; medians"
    columns = (
        "clients",
        "requests/s (rounds)",
        "server CPU us/request",
        "clients' CPU us/request",
        "answers",
    )
    proof.figures.append(Figures(title, columns, rows))
    wrong = {names[group]: sum(each.wrong for each in slices) for group, slices in found.items()}
    answers = sum(each.answered for slices in found.values() for each in slices)
    bad = {name: count for name, count in wrong.items() if count}
    proof.check(answers > 0 and not bad, f"{NAME}: {answers:,} answers, {bad or 'none'} wrong")
    rates = {group: [each.rate for each in slices] for group, slices in found.items()}
    ratios = [many / few for many, few in zip(rates[MANY], rates[FEW], strict=True)]
    ratio = Spread.of(ratios)
    text = f"{NAME}: throughput of {names[MANY]} {ratio.median:.0%} ({ratio.low:.0%}-{ratio.high:.0%}) "
    proof.check(ratio.median >= LIMIT, f"{text}of {names[FEW]}; expected >= {LIMIT:.0%}")
    proof.raw[NAME] = {
        "slices": {group: [each._asdict() for each in slices] for group, slices in found.items()},
        "ratio": ratio,
        "comparison": Comparison.of(rates[MANY], rates[FEW]),
    }


def _row(name: str, slices: list[Slice]) -> tuple[str, ...]:
    rate = Spread.of([each.rate for each in slices])
    cpu = (Spread.of([getattr(each, side) * 1e6 for each in slices]) for side in ("server", "clients"))
    return (
        name,
        f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})",
        *(f"{each.median:.1f} ({each.low:.1f}-{each.high:.1f})" for each in cpu),
        f"{sum(each.answered for each in slices):,}",
    )
