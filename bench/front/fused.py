"""Part ``fused``: 256 callers in one asyncio client, whose calls travel together, beside ``grpc.aio``.

Both servers run the same manager, engine and model, and batch continuously: what differs is the RPC layer.
They take turns in short rounds.
"""

from __future__ import annotations

from typing import Final

from ..proofs import Figures, Proof
from ..quick import Group
from ..results import Settings, p99, throughput
from ..systems import FUSED, GRPC
from .ratios import COLUMNS, Limit, check_errors, rows
from .turns import measure

NAME: Final = "fused"
CASE: Final = "64 B"
CALLERS: Final = 256
LIMITS: Final = (
    Limit(figure="throughput", of=throughput, ours=FUSED, theirs=GRPC, limit=60.0, at_least=True),
    Limit(figure="p99", of=p99, ours=FUSED, theirs=GRPC, limit=1 / 8, at_least=False, fraction="1/8"),
)


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a process died.
    """
    settings = Settings(rounds=20, warmup=0.2, duration=1.0)
    if not full:
        settings = Settings(rounds=8, warmup=0.15, duration=0.5)
    situations = measure(proof, NAME, [Group((GRPC, FUSED), GRPC, CASE, CALLERS)], settings)
    title = (
        f"{NAME}: one client process, {settings.rounds} rounds of {settings.duration:g} s in turn; medians"
    )
    table = [row for situation, found in situations.items() for row in rows(situation, found)]
    proof.figures.append(Figures(title, COLUMNS, table))
    proof.raw[NAME] = situations
    for situation, found in situations.items():
        for limit in LIMITS:
            limit.check(proof, situation, found)
    check_errors(proof, NAME, situations)
