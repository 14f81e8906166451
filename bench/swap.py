"""Proof: versions are swapped under load without a failed request, a latency cliff or leaked memory.

A client process calls a model at a constant rate while version after version is put into the repository,
complete, by a rename. Latencies are compared in three phases: *before* the first swap, *during* the swaps
(calls that were going on between the rename and the end of the old version) and *after* the last. Each phase
is cut into windows; the figure is the median of the windows' percentiles, so one hiccup is one window.
"""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import msgspec

from ..client import Client
from ..rpc.types import VersionStatus
from .environment import Environment
from .proof_models import VersionedModel
from .proofs import Figures, Proof, chunks, mebibytes, milliseconds, serving, until, usage, workplace
from .recorder import Spread
from .steady import Calls, Spec, SteadyClient, percentile

Policy = Literal["availability", "resource"]
POLICIES: Final[tuple[Policy, ...]] = ("availability", "resource")
MODEL: Final = "versioned"
#: Latency during swaps over latency before them, 99th percentiles.
P99_LIMIT: Final = 2.0
#: Resident memory after the last swap over that after the first few.
RSS_LIMIT: Final = 1.1
_SWAP_SECONDS: Final = 30.0
_UNAVAILABLE: Final = "UNAVAILABLE"


class SwapSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure. Times are in seconds; ``rate`` is in calls a second."""

    policies: tuple[Policy, ...] = POLICIES
    swaps: int = 50
    #: After so many swaps the memory is taken as the reference.
    reference: int = 5
    mebibytes: int = 16
    rate: float = 400.0
    quiet: float = 4.0
    #: Between two swaps.
    gap: float = 0.1
    windows: int = 8


class Swap(msgspec.Struct, frozen=True):
    """One swap: from the rename (``time.monotonic``) until the old version was gone, and memory then."""

    begun: float
    ended: float
    rss: int


class PolicyRun(msgspec.Struct, kw_only=True):
    """What happened under one policy."""

    policy: Policy
    calls: Calls
    swaps: list[Swap]
    before: tuple[float, float]
    after: tuple[float, float]

    @property
    def gap_calls(self) -> int:
        """Calls that failed because nothing served."""
        return self.calls.failures().get(_UNAVAILABLE, 0)

    def window_latencies(self, phase: str, windows: int) -> list[list[float]]:
        """Latencies of each window of ``before``, ``during`` or ``after``."""
        if phase == "during":
            groups = [[(swap.begun, swap.ended) for swap in group] for group in chunks(self.swaps, windows)]
        else:
            start, end = self.before if phase == "before" else self.after
            step = (end - start) / windows
            groups = [[(start + i * step, start + (i + 1) * step)] for i in range(windows)]
        return [[seconds for span in group for seconds in self.calls.between(*span)] for group in groups]

    def spread(self, phase: str, windows: int, level: float) -> Spread:
        """A percentile over the windows of a phase."""
        found = [percentile(window, level) for window in self.window_latencies(phase, windows) if window]
        return Spread.of(found or [0.0])


def run(settings: SwapSettings) -> Proof:
    """Swap versions under each policy, each on a server of its own.

    Raises:
        ChildError: a process died.
        TimeoutError: a swap did not come to its end.
    """
    proof = Proof(name="swap", environment=Environment.read())
    started = time.monotonic()
    for policy in settings.policies:
        result = run_policy(policy, settings)
        _report(proof, result, settings)
        _verify(proof, result, settings)
    proof.seconds = time.monotonic() - started
    return proof


def run_policy(policy: Policy, settings: SwapSettings) -> PolicyRun:
    """All swaps under one policy."""
    with workplace() as (repository, logs):
        model = VersionedModel(repository / MODEL, settings.mebibytes)
        model.publish(model.prepare(1), 1)
        config = f'[versions]\npolicy = "latest"\ncount = 1\ntransition = "{policy}"\n'
        (repository / MODEL / "model.toml").write_text(config)
        with serving(repository, logs) as server, Client(server.address, timeout=10.0) as client:
            spec = Spec(
                address=server.address, kind="versioned", model=MODEL, rate=settings.rate, rows=model.rows
            )
            with SteadyClient.start(spec, logs) as steady:
                return _swap_all(policy, settings, model, client, steady, server.pid)


def _swap_all(
    policy: Policy,
    settings: SwapSettings,
    model: VersionedModel,
    client: Client,
    steady: SteadyClient,
    pid: int,
) -> PolicyRun:
    before = _quiet(settings.quiet)
    swaps: list[Swap] = []
    for version in range(2, settings.swaps + 2):
        swaps.append(_swap(model, version, client, pid))
        time.sleep(settings.gap)
    after = _quiet(settings.quiet)
    return PolicyRun(policy=policy, calls=steady.take(), swaps=swaps, before=before, after=after)


def _quiet(seconds: float) -> tuple[float, float]:
    begun = time.monotonic()
    time.sleep(seconds)
    return begun, time.monotonic()


def _swap(model: VersionedModel, version: int, client: Client, pid: int) -> Swap:
    staged = model.prepare(version)
    begun = time.monotonic()
    model.publish(staged, version)
    client.control("models.rescan")
    if not until(lambda: _serves_only(client.status(MODEL), version), _SWAP_SECONDS):
        raise TimeoutError(f"version {version} did not replace its predecessor: {client.status(MODEL)}")
    ended = time.monotonic()
    model.remove(version - 1)
    return Swap(begun, ended, usage(pid).rss)


def _serves_only(status: list[VersionStatus], version: int) -> bool:
    return [(line.version, line.state) for line in status] == [(version, "AVAILABLE")]


def _report(proof: Proof, result: PolicyRun, settings: SwapSettings) -> None:
    rows: list[tuple[str, ...]] = []
    raw: dict[str, Any] = {}
    for phase in ("before", "during", "after"):
        windows = result.window_latencies(phase, settings.windows)
        spreads = [result.spread(phase, settings.windows, level) for level in (50, 99, 100)]
        raw[phase] = dict(zip(("p50", "p99", "max"), spreads, strict=True))
        figures = [
            f"{milliseconds(s.median)} ({milliseconds(s.low)}-{milliseconds(s.high)})" for s in spreads
        ]
        rows.append((phase, str(len(windows)), str(sum(map(len, windows))), *figures))
    took = Spread.of([swap.ended - swap.begun for swap in result.swaps])
    title = (
        f"{result.policy}-preserving: {len(result.swaps)} swaps of {settings.mebibytes} MiB, "
        f"{settings.rate:g} calls/s; a swap took {milliseconds(took.median)} ms "
        f"({milliseconds(took.low)}-{milliseconds(took.high)})"
    )
    columns = ("phase", "windows", "calls", "p50 ms (windows)", "p99 ms (windows)", "max ms (windows)")
    proof.figures.append(Figures(title, columns, rows))
    raw["failures"] = result.calls.failures()
    raw["calls"] = len(result.calls.begun)
    raw["rss"] = [swap.rss for swap in result.swaps]
    raw["swap_seconds"] = [swap.ended - swap.begun for swap in result.swaps]
    proof.raw[result.policy] = raw


def _verify(proof: Proof, result: PolicyRun, settings: SwapSettings) -> None:
    name, calls, failures = result.policy, result.calls, result.calls.failures()
    total = len(calls.begun) + len(calls.failed)
    if name == "availability":
        proof.check(not failures, f"{name}: no call failed: {failures or 'none'} of {total}")
        before, during = (result.spread(phase, settings.windows, 99) for phase in ("before", "during"))
        ratio = during.median / before.median if before.median else 0.0
        text = f"{name}: p99 during swaps {ratio:.2f}x of before; expected <= {P99_LIMIT:g}x"
        proof.check(0 < ratio <= P99_LIMIT, text)
    else:
        others = {code: count for code, count in failures.items() if code != _UNAVAILABLE}
        text = f"{name}: {result.gap_calls} of {total} calls met a gap (UNAVAILABLE); other failures: "
        proof.check(not others, text + f"{others or 'none'}")
        astray = [
            begun for begun, _ in calls.failed if not any(s.begun <= begun <= s.ended for s in result.swaps)
        ]
        proof.check(not astray, f"{name}: calls that failed outside of a swap: {len(astray)}")
    if len(result.swaps) > settings.reference:
        early, late = result.swaps[settings.reference - 1].rss, result.swaps[-1].rss
        text = f"{name}: memory after {len(result.swaps)} swaps {mebibytes(late)} MiB, after "
        text += (
            f"{settings.reference} {mebibytes(early)} MiB ({late / early:.3f}x); expected <= {RSS_LIMIT:g}x"
        )
        proof.check(late <= RSS_LIMIT * early, text)
    proof.check(calls.skipped == 0, f"{name}: the generator kept its rate (left out: {calls.skipped} calls)")
