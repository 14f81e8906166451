"""Part ``loading``: a large model is loaded and unloaded in a process, and a small one beside it serves on.

The large one is an ONNX model with a table of some hundred megabytes; the small one is called at a constant
rate. Three phases take turns: *before* a load, *during* it, and *elsewhere*: the same load in a second server
that nobody calls. What that costs the calls is the machine: memory bandwidth, and a core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from ...client import Client
from ..models import INPUT
from ..proof_models import VersionedModel, identity, write_model
from ..proofs import Figures, Proof, mebibytes, serving, until, workplace
from ..servers import Server
from .caller import Aim, Caller, Salvo, Tally
from .models import workers_config
from .scene import PHASE_COLUMNS, Span, over, phase_raw, phase_rows, resident, spend, spread, take_turns

NAME: Final = "loading"
SMALL: Final = "small"
LARGE: Final = "large"
#: 99th percentile of the small model's calls during a load over that before; and over that during a load in
#: another server, which is what the load of this server costs beyond the machine.
P99_LIMIT: Final = 1.5
#: Memory of the server and its children after the last unload over that before the first load, and bytes
#: besides: what a load brings along once and for all, such as threads.
RSS_LIMIT: Final = 1.05
_RSS_SLACK: Final = 8 << 20
_PATIENCE: Final = 60.0
_SETTLE_SECONDS: Final = 5.0
#: To the small model, before memory is looked at for the first time.
_CALLS: Final = 100


class LoadingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure; times in seconds, ``rate`` in calls a second."""

    mebibytes: int = 200
    rounds: int = 4
    rate: float = 300.0
    quiet: float = 1.5
    #: After each load and unload: the processes have other things to do than to disturb what is next.
    settle: float = 0.2


class LoadingRun(NamedTuple):
    """What happened: the calls, the phases, and resident bytes before the first and after each unload."""

    tally: Tally
    phases: dict[str, list[Span]]
    before: int
    after: list[int]


class _Place(NamedTuple):
    """A server that serves the small model, and has once loaded and unloaded the large one.

    Attributes:
        before: its resident bytes when it had only served the small one.
    """

    server: Server
    client: Client
    logs: Path
    before: int


def run(proof: Proof, full: bool) -> None:
    """Measure, and add the verdict to a proof.

    Raises:
        ChildError: a server, or the callers, died.
        TimeoutError: the large model was not loaded or unloaded in time.
    """
    settings = LoadingSettings(mebibytes=500, rounds=10) if full else LoadingSettings()
    found = measure(settings)
    calls = found.tally.calls
    title = f"{NAME}: {settings.mebibytes} MiB loaded in a process {settings.rounds} times, beside "
    title += f"{settings.rate:g} calls/s to a small model in threads"
    rows = phase_rows(calls, found.phases)
    proof.figures.append(Figures(title, ("phase", *PHASE_COLUMNS), rows))
    took = sorted(end - begin for begin, end in found.phases["during"])
    proof.notes.append(f"{NAME}: a load took {took[0]:.2f} to {took[-1]:.2f} s")
    proof.raw[NAME] = {
        "failed": calls.failures(),
        "phases": phase_raw(calls, found.phases),
        "load_seconds": took,
        "rss": {"before": found.before, "after": found.after},
    }
    _verify(proof, found)


def _verify(proof: Proof, found: LoadingRun) -> None:
    calls = found.tally.calls
    text = f"{NAME}: no call to the small model failed: {calls.failures() or 'none'} of {found.tally.sent:,}"
    proof.check(not calls.failed, text)
    before, during, elsewhere = (
        spread(calls, found.phases[phase]) for phase in ("before", "during", "elsewhere")
    )
    ratio = over(during, before)
    text = f"{NAME}: the small model's p99 {ratio:.2f}x of before during loads; expected <= {P99_LIMIT:g}x "
    text += f"(during the same loads in another server: {over(elsewhere, before):.2f}x)"
    proof.check(0 < ratio <= P99_LIMIT, text)
    share = over(during, elsewhere)
    text = f"{NAME}: its p99 {share:.2f}x of that during the same loads in another server; "
    proof.check(0 < share <= P99_LIMIT, f"{text}expected <= {P99_LIMIT:g}x")
    last, limit = found.after[-1], RSS_LIMIT * found.before + _RSS_SLACK
    text = f"{NAME}: memory of server and children {mebibytes(found.before)} MiB before, "
    text += f"{mebibytes(last)} MiB after the last unload; expected <= {mebibytes(limit)} MiB "
    text += f"({RSS_LIMIT - 1:.0%} and {_RSS_SLACK >> 20} MiB more)"
    proof.check(last <= limit, text)


def measure(settings: LoadingSettings) -> LoadingRun:
    """Load and unload in turns."""
    with workplace() as (store, _):
        # Written once: the servers have links to it.
        content = VersionedModel(store / LARGE, settings.mebibytes).prepare(1) / "model.onnx"
        with (
            _place(content) as here,
            _place(content) as elsewhere,
            Caller.start(Aim(address=here.server.address, payload="identity"), here.logs) as caller,
        ):
            return _measure(settings, here, elsewhere, caller)


def _measure(settings: LoadingSettings, here: _Place, elsewhere: _Place, caller: Caller) -> LoadingRun:
    after: list[int] = []

    def load(place: _Place) -> Span:
        span = _load(place)
        time.sleep(settings.settle)
        _unload(place)
        if place is here:
            after.append(_settled(place))
        time.sleep(settings.settle)
        return span

    caller.begin(Salvo(model=SMALL, rate=settings.rate))
    spend(settings.settle)
    phases = take_turns(
        {
            "before": lambda: spend(settings.quiet),
            "during": lambda: load(here),
            "elsewhere": lambda: load(elsewhere),
        },
        settings.rounds,
    )
    return LoadingRun(caller.stop(), phases, here.before, after)


@contextmanager
def _place(content: Path) -> Generator[_Place]:
    with workplace() as (repository, logs):
        write_model(repository / SMALL, identity(), workers_config("thread", 2))
        with serving(repository, logs) as server, Client(server.address, timeout=10.0) as client:
            x = np.ones((1, 16), np.float32)
            for _ in range(_CALLS):
                client.predict(SMALL, {INPUT: x})
            before = resident(server.pid)
            version = repository / LARGE / "1"
            staged = version.with_name(".1")
            staged.mkdir(parents=True)
            (version.parent / "model.toml").write_text(workers_config("process", 1))
            os.link(content, staged / "model.onnx")
            staged.rename(version)
            client.control("models.rescan")
            _until(client, "AVAILABLE")
            place = _Place(server, client, logs, before)
            _unload(place)
            yield place


def _load(place: _Place) -> Span:
    begun = time.monotonic()
    place.client.control("models.load", {"model": LARGE})
    _until(place.client, "AVAILABLE")
    return begun, time.monotonic()


def _unload(place: _Place) -> None:
    place.client.control("models.unload", {"model": LARGE})
    _until(place.client, "")


def _until(client: Client, state: str) -> None:
    """Until the large model is in this state; empty: until it has gone, and so has what it was run by."""

    def reached() -> bool:
        states = [str(line.state) for line in client.status(LARGE)]
        return state in states if state else not set(states) - {"UNLOADED", "NEW"}

    if not until(reached, _PATIENCE):
        raise TimeoutError(f"{LARGE} is not {state or 'unloaded'}: {client.status(LARGE)}")


def _settled(place: _Place) -> int:
    """Resident bytes once they are what is expected, or after a while."""
    limit = RSS_LIMIT * place.before + _RSS_SLACK
    until(lambda: resident(place.server.pid) <= limit, _SETTLE_SECONDS, interval=0.05)
    return resident(place.server.pid)
