"""Part ``lone``: one call at a time by the blocking client, beside a bare echo in C.

The floor is what one message there and back takes when nobody does anything with it: a ROUTER of libzmq that
sends back what comes, called by the same process, in turns of some dozen calls. Of the ways to call it, the
one that was faster is the floor. What remains is the price of a protocol, a batch and a model.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from ..child import Ready
from ..models import build_repository
from ..processes import Child
from ..proofs import Figures, Proof, serving, workplace
from ..recorder import Spread
from ..servers import Server, start_server
from . import c_echo
from .lone_caller import CASE, CLIENT, Cast, Round

NAME: Final = "lone"
#: p50 of the client over that of the floor.
P50_LIMIT: Final = 1.15
C_ECHO: Final = "echo in C"
PYZMQ_ECHO: Final = "echo in Python"
_WAIT: Final = 60.0


class LoneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure: every system has ``turns`` turns of ``calls`` calls in each round."""

    rounds: int = 9
    turns: int = 40
    calls: int = 60


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a server, or the caller, died.
    """
    settings = LoneSettings(rounds=30, turns=80) if full else LoneSettings()
    with workplace() as (repository, logs), ExitStack() as stack:
        build_repository(repository)
        server = stack.enter_context(serving(repository, logs))
        echoes = {name: echo.address for name, echo in _echoes(proof, stack, logs).items()}
        cast = Cast(address=server.address, echoes=echoes, calls=settings.calls)
        rounds = measure(cast, settings, logs)
    report(proof, rounds, floor_of(rounds, C_ECHO if C_ECHO in echoes else PYZMQ_ECHO), settings)


def _echoes(proof: Proof, stack: ExitStack, logs: Path) -> dict[str, Server]:
    """The echo in C, and the one in Python: beside the first for comparison, or else in its place."""
    echoes: dict[str, Server] = {}
    try:
        echoes[C_ECHO] = stack.enter_context(c_echo.start(c_echo.build(), logs / "echo-c.log"))
    except c_echo.NotBuiltError as error:
        proof.notes.append(f"{NAME}: not built: {error}; the floor is the echo in Python")
    echoes[PYZMQ_ECHO] = stack.enter_context(start_server("echo", Path(), logs))
    return echoes


def measure(cast: Cast, settings: LoneSettings, logs: Path) -> list[Round]:
    """All rounds, after one that does not count."""
    arguments = ["-m", f"{__package__}.lone_caller", msgspec.json.encode(cast).decode()]
    with Child("the caller", arguments, logs / "caller.log") as child:
        child.receive(Ready, _WAIT)
        rounds: list[Round] = []
        for _ in range(settings.rounds + 1):
            child.send(settings.turns)
            rounds.append(child.receive(Round, _WAIT))
    return rounds[1:]


def floor_of(rounds: list[Round], echo: str) -> str:
    """The faster way to call an echo."""
    ways = [name for name in rounds[0].seconds if name.startswith(f"{echo}, ")]
    return min(ways, key=lambda name: Spread.of([found.p50(name) for found in rounds]).median)


def report(proof: Proof, rounds: list[Round], floor: str, settings: LoneSettings) -> None:
    """Table and verdict."""
    ratios = {
        name: Spread.of([found.p50(name) / found.p50(floor) for found in rounds])
        for name in rounds[0].seconds
    }
    rows: list[tuple[str, ...]] = []
    for name, ratio in ratios.items():
        p50 = Spread.of([found.p50(name) * 1e6 for found in rounds])
        shown = f"{p50.median:.1f} ({p50.low:.1f}-{p50.high:.1f})"
        rows.append((name, shown, "the floor" if name == floor else _shown(ratio)))
    title = f"{NAME}: {CASE}, one call at a time, {settings.rounds} rounds of {settings.turns} turns of "
    title += f"{settings.calls} calls"
    columns = ("system", "p50 us (rounds)", "p50 over the floor's, round by round")
    proof.figures.append(Figures(title, columns, rows))
    each = " ".join(f"{found.p50(CLIENT) / found.p50(floor):.2f}" for found in rounds)
    proof.notes.append(f"{NAME}: p50 over the floor's in each round: {each}")
    ratio = ratios[CLIENT]
    text = f"{NAME}: p50 of {CLIENT} {_shown(ratio)} of {floor}'s; expected <= {P50_LIMIT:g}x"
    proof.check(0 < ratio.median <= P50_LIMIT, text)
    p50s = {name: [found.p50(name) for found in rounds] for name in rounds[0].seconds}
    proof.raw[NAME] = {"floor": floor, "p50": p50s, "ratio": ratios}


def _shown(ratio: Spread) -> str:
    return f"{ratio.median:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"
