"""Proof: a server that is asked for three times what it can do still does what it can.

Two models: *busy* computes for a millisecond or two, one request at a time; *waiting* takes batches and
sleeps, so its capacity does not depend on what else the machine does. For each, capacity (a closed loop)
and overload (an open loop at three times that) take turns. At last the waiting model stalls while requests
queue up whose time runs out, and its diary shows that none of them was run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from ..client import Client
from ..rpc.errors import DeadlineExceededError, RpcError, code_name
from .child import Ready
from .environment import Environment
from .open_loop import Shot, Target, Volley
from .overload_model import STALL_SECONDS, inputs_for, read_diary, write_waiting_model
from .processes import Child
from .proof_models import busy, write_model
from .proofs import Figures, Proof, milliseconds, serving, until, workplace
from .recorder import Spread
from .steady import percentile

Kind = Literal["busy", "waiting"]
KINDS: Final[tuple[Kind, ...]] = ("waiting", "busy")
#: Answers in time under overload over the capacity.
GOODPUT_LIMIT: Final = 0.85
#: 99th percentile of the time that a refusal takes, seconds.
REFUSAL_LIMIT: Final = 0.010
#: The generator must send at least this share of what it was told.
_RATE_KEPT: Final = 0.95
_START_SECONDS: Final = 30.0
_EXPIRING: Final = 50
#: How far a request's start may lie behind its deadline on the client's clock: the server's clock starts
#: when it reads the request.
_CLOCK_SLACK: Final = 0.025

_counters_of = ("requests", "rows", "expired", "rejected", "cancelled", "failed", "in_flight")


class OverloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds."""

    kinds: tuple[Kind, ...] = KINDS
    #: Short ones, so that a machine that slows down does so for both.
    rounds: int = 12
    seconds: float = 0.7
    overload: float = 3.0
    timeout: float = 0.1
    #: Callers of the closed loop that measures the capacity.
    callers: int = 32
    #: Matrix products of the busy model.
    steps: int = 150
    batch: int = 8
    batch_seconds: float = 0.004
    row_seconds: float = 0.0005


class Round(msgspec.Struct, frozen=True):
    """Capacity and overload, one after the other."""

    capacity: Volley
    overload: Volley
    rate: float


def run(settings: OverloadSettings) -> Proof:
    """Overload each kind of model.

    Raises:
        ChildError: a process died.
    """
    proof = Proof(name="overload", environment=Environment.read())
    started = time.monotonic()
    with workplace() as (repository, logs):
        diary = logs / "diary"
        write_models(repository, diary, settings)
        with serving(repository, logs) as server, Client(server.address, timeout=10.0) as client:
            for kind in settings.kinds:
                target = Target(address=server.address, model=kind, kind=kind)
                with generator(target, logs) as child:
                    before = counters(client, kind)
                    rounds = [measure(child, settings) for _ in range(settings.rounds)]
                    _report(proof, kind, rounds, settings)
                    _account(proof, kind, rounds, before, client)
            if "waiting" in settings.kinds:
                _diary(proof, diary)
                _stall(proof, diary, client)
    proof.seconds = time.monotonic() - started
    return proof


def write_models(repository: Path, diary: Path, settings: OverloadSettings) -> None:
    """Both models."""
    # One worker: the other core is for the front end and the generator.
    write_model(repository / "busy", busy(settings.steps), "[workers]\ncount = 1\n")
    write_waiting_model(
        repository / "waiting",
        diary,
        batch=settings.batch,
        batch_seconds=settings.batch_seconds,
        row_seconds=settings.row_seconds,
    )


@contextmanager
def generator(target: Target, logs: Path) -> Generator[Child]:
    """A process that loads ``target``, until the block ends."""
    arguments = ["-m", f"{__package__}.open_loop", msgspec.json.encode(target).decode()]
    with Child(f"the load of {target.model}", arguments, logs / f"load-{target.model}.log") as child:
        child.receive(Ready, _START_SECONDS)
        yield child


def measure(child: Child, settings: OverloadSettings) -> Round:
    """One round."""
    capacity = _fire(child, Shot(seconds=settings.seconds, timeout=5.0, callers=settings.callers))
    rate = settings.overload * capacity.goodput
    overload = _fire(child, Shot(seconds=settings.seconds, timeout=settings.timeout, rate=rate))
    return Round(capacity, overload, rate)


def _fire(child: Child, shot: Shot) -> Volley:
    child.send(shot)
    return child.receive(Volley, shot.seconds + 2 * shot.timeout + _START_SECONDS)


def counters(client: Client, model: str) -> dict[str, Any]:
    """The counters of the version that serves a model; zeros before its first request."""
    for version in client.control("stats")["versions"]:
        if version["model"] == model:
            return version
    return dict.fromkeys(_counters_of, 0)


def _report(proof: Proof, kind: Kind, rounds: list[Round], settings: OverloadSettings) -> None:
    rows: list[tuple[str, ...]] = []
    for number, part in enumerate(rounds, 1):
        over = part.overload
        rows.append(
            (
                str(number),
                f"{part.capacity.goodput:,.0f}",
                f"{over.sent / settings.seconds:,.0f}",
                f"{over.goodput:,.0f}",
                f"{over.goodput / part.capacity.goodput:.1%}" if part.capacity.goodput else "-",
                f"{milliseconds(percentile(over.answered, 50))} / {milliseconds(percentile(over.answered))}",
                f"{len(over.refused):,}",
                f"{milliseconds(percentile(over.refused, 50))} / {milliseconds(percentile(over.refused))}",
                f"{len(over.expired):,}",
                str(over.failed or "-"),
                f"{milliseconds(percentile(over.lag))}, {over.cores:.0%}",
            )
        )
    columns = (
        "round", "capacity/s", "sent/s", "in time/s", "of capacity", "p50 / p99 ms", "refused",
        "refusal p50 / p99 ms", "expired", "other", "generator lag p99 ms, CPU",
    )  # fmt: skip
    title = f"{kind}: open loop at {settings.overload:g}x capacity, timeout {settings.timeout * 1e3:g} ms"
    proof.figures.append(Figures(title, columns, rows))
    proof.raw[kind] = [
        {
            "capacity": part.capacity.goodput,
            "rate": part.rate,
            "sent": part.overload.sent,
            "goodput": part.overload.goodput,
            "refused": len(part.overload.refused),
            "refusal_p99": percentile(part.overload.refused),
            "expired": len(part.overload.expired),
            "failed": part.overload.failed,
        }
        for part in rounds
    ]
    _verify(proof, kind, rounds, settings)


def _verify(proof: Proof, kind: Kind, rounds: list[Round], settings: OverloadSettings) -> None:
    def spread(value: Callable[[Round], float]) -> Spread:
        return Spread.of([value(part) for part in rounds])

    capacity, goodput = (spread(lambda r: r.capacity.goodput), spread(lambda r: r.overload.goodput))
    share = goodput.median / capacity.median if capacity.median else 0.0
    text = f"{kind}: {goodput.median:,.0f} answers in time/s, capacity {capacity.median:,.0f}/s: {share:.1%}"
    proof.check(share >= GOODPUT_LIMIT, f"{text}; expected >= {GOODPUT_LIMIT:.0%}")
    refusal = spread(lambda r: percentile(r.overload.refused))
    text = f"{kind}: refusals at p99 after {milliseconds(refusal.median)} ms"
    text += f"; expected < {REFUSAL_LIMIT * 1e3:g} ms"
    proof.check(0 < refusal.median < REFUSAL_LIMIT, text)
    kept = spread(lambda r: r.overload.sent / settings.seconds / r.rate if r.rate else 0.0)
    proof.check(kept.median >= _RATE_KEPT, f"{kind}: the generator sent {kept.median:.1%} of its rate")
    messages = {code: text for part in rounds for code, text in part.overload.messages.items()}
    odd = {code: text for code, text in messages.items() if code != "DEADLINE_EXCEEDED"}
    proof.check(not odd, f"{kind}: nothing failed but for overload: {odd or 'none'}")


def _account(proof: Proof, kind: Kind, rounds: list[Round], before: dict[str, Any], client: Client) -> None:
    """Every request has one fate, and what was run is what was neither refused nor expired."""
    until(lambda: counters(client, kind)["in_flight"] == 0, 10.0)
    after = counters(client, kind)
    delta = {name: after[name] - before[name] for name in _counters_of}
    volleys = [volley for part in rounds for volley in (part.capacity, part.overload)]
    sent, answered = sum(v.sent for v in volleys), sum(len(v.answered) for v in volleys)
    accounted = delta["requests"] + delta["rejected"]
    proof.check(accounted == sent, f"{kind}: {sent:,} sent = {accounted:,} admitted or refused")
    computed = delta["requests"] - delta["expired"] - delta["cancelled"]
    text = (
        f"{kind}: {delta['requests']:,} admitted - {delta['expired']:,} expired - "
        f"{delta['cancelled']:,} cancelled = {delta['rows']:,} computed; {answered:,} answered in time"
    )
    proof.check(delta["rows"] == computed and answered <= computed, text)
    proof.raw[f"{kind}_counters"] = delta


def _diary(proof: Proof, path: Path) -> None:
    """What the model itself wrote down."""
    rows = read_diary(path)
    ids = rows[:, 0]
    twice = len(ids) - len(np.unique(ids))
    late = rows[:, 2] - rows[:, 1]
    beyond = int((late > _CLOCK_SLACK).sum())
    proof.check(
        twice == 0 and beyond == 0,
        f"waiting: {len(ids):,} requests in the model's diary, {twice} twice, {beyond} begun more than "
        f"{_CLOCK_SLACK * 1e3:g} ms after their deadline (latest: {milliseconds(late.max(initial=-1.0))})",
    )


def _stall(proof: Proof, path: Path, client: Client) -> None:
    """Requests whose time runs out while the worker is stuck are not run when it is back."""
    outcome = expire(client)
    ids = set(read_diary(path)[:, 0].tolist())
    run_anyway = [number for number in outcome if number in ids]
    fates = {code: list(outcome.values()).count(code) for code in sorted(set(outcome.values()))}
    # Some are refused at once: the server expects that they would be late.
    passed = "DEADLINE_EXCEEDED" in fates and fates.keys() <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    text = f"waiting: requests behind a stalled batch: {fates}; {len(run_anyway)} of them were run"
    proof.check(passed and not run_anyway, text)


def expire(client: Client, first_id: int = 1 << 40) -> dict[int, str]:
    """Have requests expire in the queue: their ids and the status that each ended with."""
    stalled = client.submit("waiting", inputs_for(-1, 0.0), timeout=10.0)
    # The model is known to be at it once nothing waits but one request is in flight.
    until(lambda: _stalls(client), 5.0)
    timeout = STALL_SECONDS / 3
    # Admission refuses what it does not expect to be in time, but for what fits into the queue.
    futures = {
        first_id + number: client.submit(
            "waiting", inputs_for(first_id + number, time.monotonic() + timeout), timeout=timeout
        )
        for number in range(_EXPIRING)
    }
    outcome: dict[int, str] = {}
    for number, future in futures.items():
        try:
            future.result()
            outcome[number] = "OK"
        except DeadlineExceededError as error:
            outcome[number] = code_name(error.code)
        except RpcError as error:
            outcome[number] = code_name(error.code)
    stalled.result()
    until(lambda: counters(client, "waiting")["in_flight"] == 0, 5.0)
    return outcome


def _stalls(client: Client) -> bool:
    now = counters(client, "waiting")
    return now["in_flight"] == 1 and now["queued_rows"] == 0
