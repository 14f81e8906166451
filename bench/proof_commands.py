"""The proofs on the command line: ``python -m tensorwire.bench swap``, ``malformed``, ``overload``,
``bad-peers``, ``workers``, ``front`` and ``java``.

Settings, models and processes are imported when a command runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .proofs import Proof

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]

_WORKERS: Final = ("scaling", "crash", "resize", "loading", "flood", "tail", "hop")
_FRONT: Final = ("unfused", "fused", "lone", "large", "connections", "pauses", "mutations")


def add_proofs(commands: Commands) -> None:
    """Add the commands to a parser."""
    swap = _add(
        commands, "swap", "versions change under load: no failed call, no latency cliff, no leak", _swap
    )
    swap.add_argument("--swaps", type=int, default=50, help="version changes (default %(default)s)")
    swap.add_argument(
        "--policy",
        action="append",
        choices=("availability", "resource"),
        help="only this one; may be repeated",
    )
    malformed = _add(
        commands, "malformed", "no bytes that a peer can send harm the server or others", _malformed
    )
    malformed.add_argument(
        "--vectors", type=Path, help="directory with malformed.json (default: tests/vectors of the checkout)"
    )
    malformed.add_argument("--seed", type=int, default=1, help="of the mutations (default %(default)s)")
    malformed.add_argument("--mutations", type=int, default=100_000, help="how many (default %(default)s)")
    overload = _add(commands, "overload", "three times too many requests: goodput, quick refusals", _overload)
    overload.add_argument(
        "--model", action="append", choices=("busy", "waiting"), help="only this one; may be repeated"
    )
    _add(commands, "bad-peers", "peers that stall, break off or vanish cost nobody anything", _peers)
    workers = _add(
        commands, "workers", "worker processes scale, are replaced, and keep models from each other", _workers
    )
    workers.add_argument("--part", action="append", choices=_WORKERS, help="only this one; may be repeated")
    front = _add(
        commands, "front", "what a request costs where it arrives, beside gRPC and bare sockets", _front
    )
    front.add_argument("--part", action="append", choices=_FRONT, help="only this one; may be repeated")
    _add(commands, "java", "the Java client beside grpc-java", _java)


def _add(commands: Commands, name: str, text: str, run: Callable[[Any], Proof]) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"Proof: {text}.")
    parser.set_defaults(run=partial(_run, run))
    parser.add_argument(
        "--check", action="store_true", help="print PASS or FAIL lines; exit status 1 on failure"
    )
    parser.add_argument("--full", action="store_true", help="longer, for quotable figures")
    parser.add_argument(
        "--out", type=Path, default=Path(f"out/bench-{name}.json"), help="JSON results, and .txt next to it"
    )
    return parser


def _run(run: Callable[[argparse.Namespace], Proof], options: argparse.Namespace) -> int:
    from .proofs import conclude

    return conclude(run(options), options)


def _swap(options: argparse.Namespace) -> Proof:
    from .swap import POLICIES, SwapSettings, run

    policies = tuple(options.policy or POLICIES)
    if options.full:
        return run(SwapSettings(policies=policies, swaps=options.swaps, mebibytes=64, quiet=0.5, windows=10))
    return run(SwapSettings(policies=policies, swaps=options.swaps))


def _malformed(options: argparse.Namespace) -> Proof:
    from .malformed import VECTORS, MalformedSettings, run

    return run(
        MalformedSettings(
            vectors=options.vectors or VECTORS,
            seed=options.seed,
            mutations=options.mutations * (10 if options.full else 1),
        )
    )


def _overload(options: argparse.Namespace) -> Proof:
    from .overload import KINDS, OverloadSettings, run

    kinds = tuple(options.model or KINDS)
    return run(OverloadSettings(kinds=kinds, rounds=40) if options.full else OverloadSettings(kinds=kinds))


def _peers(options: argparse.Namespace) -> Proof:
    from .peers_misbehaving import PeersSettings, run

    if options.full:
        return run(PeersSettings(calm=10.0, stay=5.0, large=1000, small=100_000, vanishing=2000, rounds=4))
    return run(PeersSettings())


def _workers(options: argparse.Namespace) -> Proof:
    from .parts import run

    return run("workers", options.part or _WORKERS, full=options.full)


def _front(options: argparse.Namespace) -> Proof:
    from .parts import run

    return run("front", options.part or _FRONT, full=options.full)


def _java(options: argparse.Namespace) -> Proof:
    from .java import JavaSettings, run

    return run(JavaSettings(rounds=20, duration=2.0) if options.full else JavaSettings())
