"""Runs the parts of a proof that has several: modules of one package, each with ``run(proof, full)``."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from importlib import import_module

import psutil

from .environment import Environment
from .proofs import Proof


def run(name: str, parts: Sequence[str], *, full: bool = False) -> Proof:
    """Run some parts, one after the other, each on servers of its own.

    Args:
        name: of the proof, and of the package of ``bench`` that has its parts.

    Raises:
        ChildError: a process died.
        TimeoutError: a number of workers, or a version, did not become what it should.
    """
    proof = Proof(name=name, environment=Environment.read())
    started = time.monotonic()
    for part in parts:
        begun, busy, own = time.monotonic(), _machine_seconds(), _own_seconds()
        run_part: Callable[[Proof, bool], None] = import_module(f".{name}.{part}", __package__).run
        run_part(proof, full)
        seconds = time.monotonic() - begun
        others = max(0.0, (_machine_seconds() - busy - (_own_seconds() - own)) / seconds)
        proof.notes.append(f"{part} took {seconds:.0f} s; {others:.1f} cores were busy with something else")
        proof.raw[f"{part}_other_cores"] = others
    proof.seconds = time.monotonic() - started
    return proof


def _machine_seconds() -> float:
    """CPU seconds of everything on the machine, time stolen by its host included."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _own_seconds() -> float:
    """CPU seconds of this process and of all its descendants that have ended, as they have behind a part."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )
