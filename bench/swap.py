"""Proof: versions are swapped under load without a failed request, a latency cliff or leaked memory.

A client process calls a model at a constant rate while version after version is put into the repository,
complete, by a rename. Three phases take turns, so that a machine that slows down does so for all: *before* a
swap, *during* it (calls that were going on between the rename and the end of the old version), and
*elsewhere*: the same swap in a second server that nobody calls. What that costs the calls is the machine,
not the serving: reading and building a model takes memory bandwidth and a core. Each phase is cut into
windows; the figure is the median of the windows' percentiles, so one hiccup is one window.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from ..client import Client
from ..rpc.types import VersionStatus
from .environment import Environment
from .proof_models import VersionedModel
from .proofs import Figures, Proof, chunks, mebibytes, milliseconds, serving, until, usage, workplace
from .recorder import Spread
from .servers import Server
from .steady import Calls, Spec, SteadyClient, percentile

Policy = Literal["availability", "resource"]
POLICIES: Final[tuple[Policy, ...]] = ("availability", "resource")
Phase = Literal["before", "during", "elsewhere"]
PHASES: Final[tuple[Phase, ...]] = ("before", "during", "elsewhere")
#: From when to when, ``time.monotonic``.
Span = tuple[float, float]
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
    #: Before each swap.
    quiet: float = 0.15
    #: After each: the processes have other things to do than to disturb what is measured next.
    settle: float = 0.05
    windows: int = 8


class Swap(msgspec.Struct, frozen=True):
    """One swap: from the rename (``time.monotonic``) until the old version was gone, and memory then."""

    begun: float
    ended: float
    rss: int


class PolicyRun(msgspec.Struct, kw_only=True):
    """What happened under one policy.

    Attributes:
        swaps: in the server that is called.
        spans: for each other phase, from when to when it lasted.
    """

    policy: Policy
    calls: Calls
    swaps: list[Swap]
    spans: dict[Phase, list[Span]]

    @property
    def gap_calls(self) -> int:
        """Calls that failed because nothing served."""
        return self.calls.failures().get(_UNAVAILABLE, 0)

    @property
    def astray(self) -> int:
        """Calls that failed though no swap was going on at any time of theirs."""
        return sum(
            not any(begun <= swap.ended and ended >= swap.begun for swap in self.swaps)
            for begun, ended, _ in self.calls.failed
        )

    def window_latencies(self, phase: Phase, windows: int) -> list[list[float]]:
        """Latencies of each window of a phase."""
        spans = [(s.begun, s.ended) for s in self.swaps] if phase == "during" else self.spans.get(phase, [])
        return [
            [seconds for span in group for seconds in self.calls.between(*span)]
            for group in chunks(spans, windows)
        ]

    def spread(self, phase: Phase, windows: int, level: float) -> Spread:
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
    with _model_server(policy, settings) as here, _model_server(policy, settings) as elsewhere:
        spec = Spec(
            address=here.server.address,
            kind="versioned",
            model=MODEL,
            rate=settings.rate,
            rows=here.model.rows,
        )
        with SteadyClient.start(spec, here.logs) as steady:
            time.sleep(settings.quiet)
            spans: dict[Phase, list[Span]] = {"before": [], "elsewhere": []}
            swaps: list[Swap] = []
            for version in range(2, settings.swaps + 2):
                spans["before"].append(_quiet(settings.quiet))
                swaps.append(_swap(here, version))
                time.sleep(settings.settle)
                if policy == "availability":
                    other = _swap(elsewhere, version)
                    spans["elsewhere"].append((other.begun, other.ended))
                    time.sleep(settings.settle)
            return PolicyRun(policy=policy, calls=steady.take(), swaps=swaps, spans=spans)


class _ModelServer(NamedTuple):
    model: VersionedModel
    server: Server
    client: Client
    logs: Path


@contextmanager
def _model_server(policy: Policy, settings: SwapSettings) -> Generator[_ModelServer]:
    """A server whose only model has one version."""
    with workplace() as (repository, logs):
        model = VersionedModel(repository / MODEL, settings.mebibytes)
        model.publish(model.prepare(1), 1)
        config = f'[versions]\npolicy = "latest"\ncount = 1\ntransition = "{policy}"\n'
        (repository / MODEL / "model.toml").write_text(config)
        with serving(repository, logs) as server, Client(server.address, timeout=10.0) as client:
            yield _ModelServer(model, server, client, logs)


def _quiet(seconds: float) -> Span:
    begun = time.monotonic()
    time.sleep(seconds)
    return begun, time.monotonic()


def _swap(where: _ModelServer, version: int) -> Swap:
    model, client = where.model, where.client
    staged = model.prepare(version)
    begun = time.monotonic()
    model.publish(staged, version)
    client.control("models.rescan")
    if not until(lambda: _serves_only(client.status(MODEL), version), _SWAP_SECONDS):
        raise TimeoutError(f"version {version} did not replace its predecessor: {client.status(MODEL)}")
    ended = time.monotonic()
    model.remove(version - 1)
    return Swap(begun, ended, usage(where.server.pid).rss)


def _serves_only(status: list[VersionStatus], version: int) -> bool:
    return [(line.version, line.state) for line in status] == [(version, "AVAILABLE")]


def _report(proof: Proof, result: PolicyRun, settings: SwapSettings) -> None:
    rows: list[tuple[str, ...]] = []
    raw: dict[str, Any] = {}
    for phase in PHASES:
        windows = result.window_latencies(phase, settings.windows)
        if not windows:
            continue
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
        before = result.spread("before", settings.windows, 99)
        during = result.spread("during", settings.windows, 99)
        ratio = during.median / before.median if before.median else 0.0
        other = result.spread("elsewhere", settings.windows, 99).median / before.median if ratio else 0.0
        text = f"{name}: p99 during swaps {ratio:.2f}x of before; expected <= {P99_LIMIT:g}x "
        text += f"(during the same swaps in another server: {other:.2f}x)"
        proof.check(0 < ratio <= P99_LIMIT, text)
    else:
        others = {code: count for code, count in failures.items() if code != _UNAVAILABLE}
        text = f"{name}: {result.gap_calls} of {total} calls met a gap (UNAVAILABLE); other failures: "
        proof.check(not others, text + f"{others or 'none'}")
        proof.check(not result.astray, f"{name}: calls that failed outside of a swap: {result.astray}")
    if len(result.swaps) > settings.reference:
        early, late = result.swaps[settings.reference - 1].rss, result.swaps[-1].rss
        text = f"{name}: memory after {len(result.swaps)} swaps {mebibytes(late)} MiB, after "
        text += (
            f"{settings.reference} {mebibytes(early)} MiB ({late / early:.3f}x); expected <= {RSS_LIMIT:g}x"
        )
        proof.check(late <= RSS_LIMIT * early, text)
    proof.check(calls.skipped == 0, f"{name}: the generator kept its rate (left out: {calls.skipped} calls)")
