"""Runs the parts of the proof about workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module

from ..environment import Environment
from ..proofs import Proof


def run(parts: Sequence[str], *, full: bool = False) -> Proof:
    """Run some parts, one after the other, each on servers of its own.

    Raises:
        ChildError: a process died.
        TimeoutError: a number of workers, or a version, did not become what it should.
    """
    proof = Proof(name="workers", environment=Environment.read())
    started = time.monotonic()
    for part in parts:
        begun = time.monotonic()
        run_part: Callable[[Proof, bool], None] = import_module(f".{part}", __package__).run
        run_part(proof, full)
        proof.notes.append(f"{part} took {time.monotonic() - begun:.0f} s")
    proof.seconds = time.monotonic() - started
    return proof
