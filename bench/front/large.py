"""Part ``large``: tensors of 602,112 bytes, beside ``grpc.aio``, and that none is copied on its way in.

Both servers run the same manager, engine and model, and batch continuously. They take turns in short rounds.
Whether Python's memory holds a copy is measured on a server of its own, whose allocations are traced.
"""

from __future__ import annotations

from typing import Final

from ..models import CASE_OF_NAME
from ..proofs import Figures, Proof
from ..quick import Group
from ..results import Settings, throughput
from ..systems import FUSED, GRPC
from .ratios import COLUMNS, Limit, check_errors, rows, server_cpu
from .traced import Growth, traced
from .turns import measure

NAME: Final = "large"
CASE: Final = "602,112 B"
CALLERS: Final = (32, 256)
LIMITS: Final = (
    Limit(figure="throughput", of=throughput, ours=FUSED, theirs=GRPC, limit=5.0, at_least=True),
    Limit(
        figure="server CPU a request",
        of=server_cpu,
        ours=FUSED,
        theirs=GRPC,
        limit=1 / 4,
        at_least=False,
        fraction="1/4",
    ),
)


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a process died.
    """
    settings = Settings(rounds=12, warmup=0.3, duration=1.5)
    if not full:
        settings = Settings(rounds=5, warmup=0.15, duration=0.8)
    groups = [Group((GRPC, FUSED), GRPC, CASE, callers) for callers in CALLERS]
    situations = measure(proof, NAME, groups, settings)
    title = (
        f"{NAME}: one client process, {settings.rounds} rounds of {settings.duration:g} s in turn; medians"
    )
    table = [row for situation, found in situations.items() for row in rows(situation, found)]
    proof.figures.append(Figures(title, COLUMNS, table))
    for situation, found in situations.items():
        for limit in LIMITS:
            limit.check(proof, situation, found)
    check_errors(proof, NAME, situations)
    growth = traced(CASE_OF_NAME[CASE].shape)
    proof.raw[NAME] = {"rounds": situations, "growth": growth}
    check_growth(proof, growth)


def check_growth(proof: Proof, growth: Growth) -> None:
    """Two lines of the verdict: no copy of a tensor, and that the tracing would have seen one.

    Half a tensor decides: what a server frees meanwhile makes a copy look some bytes smaller than it is.
    """
    half = growth.tensor // 2
    proof.check(
        growth.plain < half,
        f"{NAME}: from one request of {growth.tensor:,} B to the next, until the model has its tensor, the "
        f"server's traced memory grows by {growth.plain:,} B at most; expected < {half:,} B, no copy",
    )
    proof.check(
        growth.copying >= half,
        f"{NAME}: where the model makes a copy itself it grows by {growth.copying:,} B at least; "
        f"expected >= {half:,} B, or the tracing would not see one",
    )
