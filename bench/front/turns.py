"""The quick benchmark's turns, for parts that set tensorwire beside ``grpc.aio``."""

from __future__ import annotations

from collections.abc import Sequence

from ..proofs import Proof
from ..quick import Group, run
from ..results import Settings
from .ratios import Rounds


def measure(proof: Proof, part: str, groups: Sequence[Group], settings: Settings) -> dict[str, Rounds]:
    """Measure every group; rounds by situation and system.

    Rounds that gave no measurement fail the proof, and are missing from what is returned.

    Raises:
        ChildError: a server or a client process died.
    """
    results = run(groups, settings, lambda _done, _total, _what: None)
    situations: dict[str, Rounds] = {}
    for group in groups:
        cells = [results.cell(system, group.case, group.concurrency) for system in group.systems]
        found = {cell.system: cell.rounds for cell in cells if cell is not None}
        situations[f"{part}: {group.case}, {group.concurrency} callers"] = found
        for cell in cells:
            if cell is not None and cell.failures:
                proof.check(False, f"{part}: {cell.system} could not be measured: {cell.failures}")
    return situations
