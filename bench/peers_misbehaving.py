"""Proof: peers that stop half-way cost the server nothing that lasts, and the others nothing that shows.

A well-behaved client calls at a constant rate from its own process. Meanwhile come, one after the other:
a client that asks for large and small answers and never reads one; connections that end, or just stay, in the
middle of a handshake or of a message; and hundreds of clients that vanish in the middle of a message or with
requests under way. After each, what the server has in use of its heap, its descriptors and its threads must
be what they were. What the heap keeps for the next burst goes back once nobody calls: the end looks at that.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ..client import Client
from . import zmtp
from .environment import Environment
from .proof_models import identity, wide, write_model
from .proofs import (
    Figures,
    Proof,
    Usage,
    mebibytes,
    milliseconds,
    serving,
    settled_usage,
    usage,
    workplace,
)
from .raw import Frames, RawPeer, request
from .recorder import Spread
from .steady import Calls, Spec, SteadyClient, percentile

MODEL: Final = "identity"
WIDE: Final = "wide"
_ROW: Final = struct.pack("<16f", *range(16))
_SMALL: Final = ("x", "float32", (16,), _ROW)
#: A request large enough to be cut in two.
_LARGE_NBYTES: Final = 1 << 20
#: What may stay: buffers of threads and connections in the heap; what it keeps of its free memory in quiet
#: times; worker threads that were first needed meanwhile.
_USED_SLACK: Final = 4 << 20
_RSS_SLACK: Final = 24 << 20
_FDS: Final = 2
_THREADS: Final = 4
_SETTLE_SECONDS: Final = 5.0
_POOL_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 10.0
#: Rows of 1 MiB that the model may make at a time.
_WIDE_BATCH: Final = "[batching]\nmax_batch_size = 4\n"
#: 99th percentile of the others, over what it was before; below the floor (seconds) it is noise.
P99_LIMIT: Final = 3.0
P99_FLOOR: Final = 0.02


class PeersSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much of it; times in seconds."""

    rate: float = 200.0
    calm: float = 3.0
    windows: int = 4
    large: int = 300
    small: int = 20_000
    #: For how long bad peers stay.
    stay: float = 2.0
    halves: int = 50
    vanishing: int = 500
    #: How often each kind of bad peer comes, once before the count aside.
    rounds: int = 2


class Episode(msgspec.Struct, kw_only=True):
    """What one kind of bad peer did."""

    name: str
    calls: Calls
    peak: Usage
    after: Usage
    begun: float
    ended: float


def run(settings: PeersSettings) -> Proof:
    """Let every kind of bad peer loose.

    Raises:
        ChildError: the server, or the client beside it, died.
    """
    proof = Proof(name="bad-peers", environment=Environment.read())
    started = time.monotonic()
    with workplace() as (repository, logs):
        write_model(repository / MODEL, identity())
        write_model(repository / WIDE, wide(), _WIDE_BATCH)
        with serving(repository, logs) as server, Client(server.address, timeout=30.0) as client:
            spec = Spec(address=server.address, kind="identity", model=MODEL, rate=settings.rate)
            with SteadyClient.start(spec, logs) as steady:
                warm_up(server.address)
                time.sleep(0.5)
                steady.take()
                begun = time.monotonic()
                time.sleep(settings.calm)
                calm = (begun, time.monotonic())
                look = _onlooker(server.pid, client)
                untouched, calls = look(), steady.take()
                # Once without counting: buffers and threads that were never needed are made then, and kept.
                for _, act in scenarios(settings, server.address):
                    act(_nothing)
                before = settled_usage(look, allowed(untouched), _POOL_SECONDS)
                steady.take()
                episodes = [
                    observe(name, act, look, before, steady)
                    for _ in range(settings.rounds)
                    for name, act in scenarios(settings, server.address)
                ]
                _report(proof, settings, calls, calm, before, episodes)
                proof.raw["untouched"] = untouched
                proof.notes.append(
                    f"before any bad peer: {untouched}; the first, uncounted pass left {before}, "
                    "which is what later growth is held against"
                )
                proof.raw["pump"] = client.control("stats")["pump"]
            _verify_quiet(proof, server.pid, untouched)
    proof.seconds = time.monotonic() - started
    return proof


def scenarios(
    settings: PeersSettings, address: str
) -> list[tuple[str, Callable[[Callable[[], None]], None]]]:
    """Name and doings of each kind of bad peer; they call what they get to have the server looked at."""
    return [
        ("never reads its answers", lambda look: stuck(address, settings, look)),
        ("half a handshake, half a message", lambda look: half_messages(address, settings, look)),
        ("vanish", lambda look: vanishing(address, settings, look)),
    ]


def _nothing() -> None:
    pass


def _onlooker(pid: int, client: Client) -> Callable[[], Usage]:
    """What sees all that the server uses; it asks the server itself for what is in use of its heap."""

    def look() -> Usage:
        used: int = client.control("stats")["process"].get("used", 0)
        return msgspec.structs.replace(usage(pid), used=used)

    return look


def warm_up(address: str) -> None:
    """What is kept once needed (threads, buffers for large answers) is there before the count."""
    with RawPeer(address) as peer:
        for number in range(8):
            peer.send(request(WIDE, number + 1, [("x", "float32", (1,), bytes(4))]))
            peer.send(request(MODEL, number + 101, [_SMALL]))
        for _ in range(16):
            if peer.receive() is None:
                raise RuntimeError(f"{address} did not answer")


# -------------------------------------------------------------------- bad peers


def stuck(address: str, settings: PeersSettings, look: Callable[[], None]) -> None:
    """Ask for large and small answers in turn, read none."""
    with RawPeer(address, high_water_mark=1) as peer:
        share = max(1, settings.small // max(1, settings.large))
        number = 0
        pause = settings.stay / max(1, settings.large)
        for _ in range(settings.large):
            number += 1
            peer.send(request(WIDE, number, [("x", "float32", (1,), bytes(4))]))
            for _ in range(share):
                number += 1
                peer.send(request(MODEL, number, [_SMALL]))
            time.sleep(pause)
            look()
        time.sleep(0.2)
        look()


def half_messages(address: str, settings: PeersSettings, look: Callable[[], None]) -> None:
    """Connections that stop in the middle of the greeting, or of a frame, or between two frames, and stay."""
    message = zmtp.encode(large_request())
    first = zmtp.encode([b"", *request(MODEL, 1, [_SMALL])])[:9]
    connections: list[socket.socket] = []
    try:
        for number in range(settings.halves):
            kind = number % 4
            connection = zmtp.connect(address, handshake=kind >= 2)
            connections.append(connection)
            part = (b"\xff\x00", zmtp.GREETING, message[: len(message) // 2], first)[kind]
            connection.sendall(part)
        time.sleep(settings.stay)
        look()
    finally:
        for connection in connections:
            connection.close()


def vanishing(address: str, settings: PeersSettings, look: Callable[[], None]) -> None:
    """Clients that reset their connection, half of them in a message, half with requests under way."""
    message = zmtp.encode(large_request())
    asked = b"".join(
        zmtp.encode(frames)
        for number in range(10)
        for frames in (
            request(MODEL, 2 * number + 1, [_SMALL]),
            *([request(WIDE, 2 * number + 2, [("x", "float32", (1,), bytes(4))])] if number < 2 else []),
        )
    )
    for number in range(settings.vanishing):
        connection = zmtp.connect(address)
        connection.sendall(asked if number % 2 else message[: 1 + (number * 7919) % len(message)])
        zmtp.vanish(connection)
        if number % 50 == 0:
            look()
    look()


def large_request() -> Frames:
    """A request with a tensor in a frame of its own."""
    return request(MODEL, 1, [("x", "uint8", (_LARGE_NBYTES,), bytes(_LARGE_NBYTES))])


# -------------------------------------------------------------------- verdict


def observe(
    name: str,
    act: Callable[[Callable[[], None]], None],
    look: Callable[[], Usage],
    before: Usage,
    steady: SteadyClient,
) -> Episode:
    """Let one kind of bad peer loose, and wait until the server is as before or the patience is over."""
    seen = [look()]
    begun = time.monotonic()
    act(lambda: seen.append(look()))
    ended = time.monotonic()
    after = settled_usage(look, allowed(before), _SETTLE_SECONDS)
    peak = Usage(*(max(getattr(u, name) for u in seen) for name in ("rss", "fds", "threads", "used")))
    return Episode(name=name, calls=steady.take(), peak=peak, after=after, begun=begun, ended=ended)


def allowed(before: Usage) -> Callable[[Usage], bool]:
    """What counts as no growth while others call; the heap keeps then what it has."""

    def fits(now: Usage) -> bool:
        return (
            now.used <= before.used + _USED_SLACK
            and now.fds <= before.fds + _FDS
            and now.threads <= before.threads + _THREADS
        )

    return fits


def windows(calls: Calls, begun: float, ended: float, count: int) -> Spread:
    """99th percentile of each part of a stretch of time."""
    step = (ended - begun) / count
    parts = [calls.between(begun + i * step, begun + (i + 1) * step) for i in range(count)]
    return Spread.of([percentile(part) for part in parts if part] or [0.0])


def _report(
    proof: Proof,
    settings: PeersSettings,
    calm: Calls,
    span: tuple[float, float],
    before: Usage,
    episodes: list[Episode],
) -> None:
    base = windows(calm, *span, settings.windows)
    row = (f"{len(calm.seconds):,}", str(len(calm.failed)), _p99(base))
    memory = (mebibytes(before.used), "", mebibytes(before.rss))
    rows: list[tuple[str, ...]] = [("(before)", "", *row, *memory, str(before.fds), "", str(before.threads))]
    for episode in episodes:
        p99 = windows(episode.calls, episode.begun, episode.ended, settings.windows)
        rows.append(
            (
                episode.name,
                f"{episode.ended - episode.begun:.1f}",
                f"{len(episode.calls.seconds):,}",
                str(len(episode.calls.failed)),
                _p99(p99),
                mebibytes(episode.after.used),
                mebibytes(episode.peak.used),
                mebibytes(episode.after.rss),
                str(episode.after.fds),
                str(episode.peak.fds),
                f"{episode.after.threads} (peak {episode.peak.threads})",
            )
        )
        _verify(proof, episode, base, p99, before)
        figures = {"p99": p99, "peak": episode.peak, "after": episode.after}
        proof.raw[episode.name] = {**figures, "failures": episode.calls.failures()}
    proof.raw["before"] = {"p99": base, "usage": before}
    columns = (
        "bad peers", "s", "others' calls", "failed", "p99 ms (windows)",
        "MiB in use", "peak", "resident", "fds after", "peak", "threads",
    )  # fmt: skip
    proof.figures.append(Figures("well-behaved client and server while peers misbehave", columns, rows))


def _p99(spread: Spread) -> str:
    return f"{milliseconds(spread.median)} ({milliseconds(spread.low)}-{milliseconds(spread.high)})"


def _verify(proof: Proof, episode: Episode, base: Spread, p99: Spread, before: Usage) -> None:
    name, failures = episode.name, episode.calls.failures()
    proof.check(not failures, f"{name}: the others' calls all succeeded: {failures or 'none'} failed")
    limit = max(P99_LIMIT * base.median, P99_FLOOR)
    text = f"{name}: the others' p99 {milliseconds(p99.median)} ms, before {milliseconds(base.median)} ms"
    proof.check(0 < p99.median <= limit, f"{text}; expected <= {milliseconds(limit)} ms")
    proof.check(allowed(before)(episode.after), f"{name}: no growth: {before} -> {episode.after}")


def _verify_quiet(proof: Proof, pid: int, untouched: Usage) -> None:
    """Nobody calls any more: what the heap kept goes back."""
    most = untouched.rss + _RSS_SLACK
    now = settled_usage(lambda: usage(pid), lambda seen: seen.rss <= most, _QUIET_SECONDS)
    text = (
        f"when nobody calls, memory goes back: {mebibytes(now.rss)} MiB resident, {mebibytes(untouched.rss)}"
    )
    proof.check(now.rss <= most, f"{text} before any bad peer; expected <= {mebibytes(most)}")
    proof.raw["quiet"] = now
