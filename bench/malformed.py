"""Proof: no bytes that a peer can send stop the server, harm others, or go unnoticed.

While a well-behaved client calls a model from its own process, raw peers send every malformed vector of
tests/vectors, random mutations of valid messages, and messages with a frame too few or too many.
"""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ..client import Client
from ..rpc.errors import code_name
from .environment import Environment
from .mutations import mutate
from .proof_models import identity, write_model
from .proofs import Figures, Proof, Usage, mebibytes, milliseconds, serving, usage, workplace
from .raw import MAGIC, Answer, Frames, Kind, RawPeer, control, head, request
from .steady import Calls, Spec, SteadyClient, percentile

MODEL: Final = "identity"
#: Where the vectors lie in a checkout.
VECTORS: Final = Path(__file__).parent.parent / "tests" / "vectors"
#: Messages sent between two barriers.
_BURST: Final = 200
_BURSTS_PER_PEER: Final = 10
#: Milliseconds that an answer may take when nothing else is going on.
_PATIENCE_MS: Final = 2000
#: Worker threads start when they are first needed.
_WORKERS: Final = 4
#: Resident memory may end this far over what it was when the first fifth was through.
_RSS_SLACK: Final = 16 << 20
_RSS_LIMIT: Final = 1.1
_ROW: Final = struct.pack("<16f", *range(16))
_FIRST_ID: Final = 1 << 32
_ANSWERABLE: Final = 16


class MalformedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. ``vectors``: the directory with ``malformed.json`` and others."""

    vectors: Path = VECTORS
    mutations: int = 100_000
    seed: int = 1
    frame_rounds: int = 200
    rate: float = 200.0


class Refusal(msgspec.Struct, frozen=True):
    """What the protocol's page says about one malformed vector."""

    name: str
    frames: Frames
    #: Name of the status; ``dropped``: no answer.
    error: str
    id: int
    count: int


class Fuzzed(msgspec.Struct, kw_only=True):
    """What became of the mutated messages."""

    sent: int = 0
    #: By the kind of the answer; errors by status.
    answers: dict[str, int] = {}
    #: Too short for an id, or not this protocol: to be dropped, and counted.
    droppable: int = 0
    #: Cancellations have no answer.
    silent: int = 0
    #: Messages that had to be answered and were not, as hexadecimal frames.
    unanswered: list[list[str]] = []
    rss: list[int] = []
    seconds: float = 0.0


def run(settings: MalformedSettings) -> Proof:
    """Send everything.

    Raises:
        ChildError: the server, or the client beside it, died.
        NoAnswerError: the server did not answer a PING.
    """
    proof = Proof(name="malformed", environment=Environment.read())
    started = time.monotonic()
    with workplace() as (repository, logs):
        write_model(repository / MODEL, identity())
        with serving(repository, logs) as server, Client(server.address, timeout=10.0) as client:
            spec = Spec(address=server.address, kind="identity", model=MODEL, rate=settings.rate)
            with SteadyClient.start(spec, logs) as steady:
                time.sleep(0.5)
                calm = steady.take()
                before = usage(server.pid)
                _vectors(proof, settings, server.address, client)
                _frames(proof, settings, server.address)
                _mutations(proof, settings, server.address, client, server.pid)
                _others(proof, calm, steady.take(), before, usage(server.pid))
    proof.seconds = time.monotonic() - started
    return proof


def counters(client: Client) -> dict[str, int]:
    """The counters of all front ends' pumps together."""
    stats = client.control("stats")
    pumps = [stats["pump"], *(each["pump"] for each in stats["front_ends"])]
    return {name: sum(pump[name] for pump in pumps) for name in stats["pump"]}


# -------------------------------------------------------------------- vectors


def load_refusals(directory: Path) -> list[Refusal]:
    """The malformed vectors that are for servers."""
    return [
        Refusal(
            vector["name"],
            vector["frames"],
            vector["outcome"]["error"],
            int(vector["outcome"].get("id", 0)),
            int(vector["outcome"].get("count", 0)),
        )
        for vector in _load(directory / "malformed.json")
        if vector["receiver"] == "server"
    ]


def _load(path: Path) -> Iterator[dict[str, Any]]:
    for vector in json.loads(path.read_text())["vectors"]:
        yield {**vector, "frames": [_frame(text) for text in vector["frames"]]}


def _frame(text: str) -> bytes:
    """As tests/vectors/README.md says: hexadecimal digits, runs as ``00*1234``, between commas."""
    pieces = (piece.partition("*") for piece in text.split(","))
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in pieces)


def check_refusal(peer: RawPeer, client: Client, vector: Refusal) -> str:
    """Send one malformed vector; what was wrong with the server's reaction, or nothing."""
    before = counters(client)
    peer.send(vector.frames)
    answers = peer.barrier()
    after = counters(client)
    if vector.error == "dropped":
        counted = after["malformed_dropped"] - before["malformed_dropped"]
        return "" if counted == 1 and not answers else f"counted {counted} times, answered with {answers}"
    found = [(answer.kind, code_name(answer.status), answer.id, answer.count) for answer in answers]
    if found != [(Kind.ERROR, vector.error, vector.id, vector.count)]:
        return f"expected {vector.error} for {vector.id} (+{vector.count}), got {found}"
    return ""


def _vectors(proof: Proof, settings: MalformedSettings, address: str, client: Client) -> None:
    refusals = load_refusals(settings.vectors)
    wrong: list[str] = []
    with RawPeer(address) as peer:
        for vector in refusals:
            problem = check_refusal(peer, client, vector)
            if problem:
                wrong.append(f"{vector.name}: {problem}")
    right = len(refusals) - len(wrong)
    text = f"{right} of {len(refusals)} malformed vectors were answered or counted as specified"
    proof.check(bool(refusals) and not wrong, "; ".join([text, *wrong[:5]]))
    proof.raw["vectors"] = {"sent": len(refusals), "wrong": wrong}


# -------------------------------------------------------------------- frames


def framed(request_id: int, announced: int, sent: int) -> Frames:
    """A request that announces ``announced`` tensor frames and has ``sent``."""
    payload = bytes(16)
    frames = request(
        MODEL, request_id, [(f"t{i}", "uint8", (16,), payload) for i in range(announced)], inline_limit=8
    )
    return [*frames, *[payload] * max(0, sent - announced)][: 1 + sent]


def check_frames(peer: RawPeer, request_id: int, announced: int, difference: int) -> str:
    """A message with frames too few or too many, and a good one behind it; what went wrong, or nothing."""
    peer.send(framed(request_id, announced, announced + difference))
    peer.send(request(MODEL, request_id + 1, [("x", "float32", (16,), _ROW)]))
    answers: dict[int, Answer] = {}
    while len(answers) < 2 and (answer := peer.receive()) is not None:
        answers[answer.id] = answer
    bad, good = answers.get(request_id), answers.get(request_id + 1)
    if bad is None or bad.kind != Kind.ERROR or code_name(bad.status) != "INVALID_ARGUMENT":
        return f"{announced} frames announced, {announced + difference} sent: {bad}"
    if good is None or good.kind != Kind.REPLY:
        return f"the request behind {announced} announced, {announced + difference} sent frames: {good}"
    return ""


def _frames(proof: Proof, settings: MalformedSettings, address: str) -> None:
    wrong: list[str] = []
    sent = 0
    with RawPeer(address) as peer:
        for number in range(settings.frame_rounds):
            announced = number % 8 + 1
            for difference in (-1, 1, -announced, 300):
                sent += 1
                problem = check_frames(peer, _FIRST_ID + 2 * sent, announced, difference)
                if problem:
                    wrong.append(problem)
    text = f"{sent} messages with frames too few or too many were refused, the request behind each was served"
    proof.check(sent > 0 and not wrong, "; ".join([text, *wrong[:3]]))
    proof.raw["frames"] = {"sent": sent, "wrong": wrong}


# -------------------------------------------------------------------- mutations


def valid_messages(directory: Path) -> list[Frames]:
    """What is mutated: every valid message to a server in the vectors, and requests that a model answers."""
    vectors = [
        vector["frames"]
        for name in ("requests.json", "controls.json")
        for vector in _load(directory / name)
        if vector["message"]["kind"] in ("REQUEST", "CANCEL", "PING", "CONTROL")
    ]
    row = ("x", "float32", (16,), _ROW)
    return [
        *vectors,
        request(MODEL, 0, [row]),
        request(MODEL, 0, [row], timeout_us=50_000),
        request(MODEL, 0, [row], inline_limit=8),
        control(0, "health"),
        [head(Kind.PING, 0)],
    ]


def fuzz(
    address: str, messages: list[Frames], count: int, seed: int, pid: int, *, samples: int = 5
) -> Fuzzed:
    """Send ``count`` mutated messages from changing peers, and account for each.

    Raises:
        NoAnswerError: the server did not answer a PING.
    """
    draw = random.Random(seed)
    result = Fuzzed()
    begun = time.monotonic()
    per_sample = max(_BURST, count // samples)
    while result.sent < count:
        with RawPeer(address) as peer:
            for _ in range(min(_BURSTS_PER_PEER, -(-(count - result.sent) // _BURST))):
                before = result.sent // per_sample
                size = min(_BURST, count - result.sent)
                burst = [mutate(draw, messages, _FIRST_ID + result.sent + i) for i in range(size)]
                _send_burst(peer, burst, result)
                if result.sent // per_sample != before:
                    result.rss.append(usage(pid).rss)
    result.seconds = time.monotonic() - begun
    return result


def _send_burst(peer: RawPeer, burst: list[Frames], result: Fuzzed) -> None:
    for frames in burst:
        peer.send(frames)
    answered = _account(peer.barrier(), result)
    missing = [frames for frames in burst if _owed(frames) and _id(frames) not in answered]
    result.silent += sum(_is_cancel(frames) for frames in missing)
    # What a model computes is answered later than a PING.
    missing = [frames for frames in missing if not _is_cancel(frames)]
    while missing and (answer := peer.receive(_PATIENCE_MS)) is not None:
        answered |= _account([answer], result)
        missing = [frames for frames in missing if _id(frames) not in answered]
    result.unanswered += [[frame.hex() for frame in frames[:8]] for frames in missing]
    result.droppable += sum(not _owed(frames) for frames in burst)
    result.sent += len(burst)


def _account(answers: list[Answer], result: Fuzzed) -> set[int]:
    for answer in answers:
        name = code_name(answer.status) if answer.kind == Kind.ERROR else Kind(answer.kind).name
        result.answers[name] = result.answers.get(name, 0) + 1
    return {answer.id for answer in answers}


def _owed(frames: Frames) -> bool:
    """Whether a message has an id to answer to."""
    return len(frames[0]) >= _ANSWERABLE and frames[0].startswith(MAGIC)


def _is_cancel(frames: Frames) -> bool:
    return frames[0][5] == Kind.CANCEL


def _id(frames: Frames) -> int:
    return int.from_bytes(frames[0][8:16], "little")


def _mutations(proof: Proof, settings: MalformedSettings, address: str, client: Client, pid: int) -> None:
    before = counters(client)
    result = fuzz(address, valid_messages(settings.vectors), settings.mutations, settings.seed, pid)
    after = counters(client)
    dropped, answered = (after[key] - before[key] for key in ("malformed_dropped", "malformed_answered"))
    rows = [(name, f"{count:,}") for name, count in sorted(result.answers.items())]
    rows += [
        ("dropped and counted", f"{dropped:,}"),
        ("cancellations without an answer", f"{result.silent:,}"),
    ]
    rate = result.sent / result.seconds
    title = (
        f"{result.sent:,} mutated messages, seed {settings.seed}, {rate:,.0f} a second: the server's answers"
    )
    proof.figures.append(Figures(title, ("answer", "messages"), rows))
    proof.check(
        dropped == result.droppable,
        f"messages without an id to answer to: {result.droppable:,} sent, {dropped:,} counted as dropped",
    )
    unanswered = len(result.unanswered)
    text = f"every other mutated message was answered ({answered:,} refused as malformed)"
    proof.check(not unanswered, f"{text}; unanswered: {result.unanswered[:3] or 'none'}")
    _check_memory(proof, result.rss)
    proof.raw["mutations"] = result


def _check_memory(proof: Proof, rss: list[int]) -> None:
    if len(rss) < 2:
        return
    first, last = rss[0], rss[-1]
    limit = max(first * _RSS_LIMIT, first + _RSS_SLACK)
    text = f"memory after a fifth of the mutations {mebibytes(first)} MiB, after all {mebibytes(last)} MiB"
    proof.check(last <= limit, f"{text}; expected <= {mebibytes(limit)}")


# -------------------------------------------------------------------- others


def _others(proof: Proof, calm: Calls, calls: Calls, before: Usage, after: Usage) -> None:
    rows = [
        (
            name,
            f"{len(part.seconds):,}",
            str(len(part.failed)),
            *(milliseconds(percentile(part.seconds, level)) for level in (50, 99, 100)),
        )
        for name, part in (("before", calm), ("during", calls))
    ]
    columns = ("well-behaved client", "calls", "failed", "p50 ms", "p99 ms", "max ms")
    proof.figures.append(Figures("others meanwhile", columns, rows))
    failures = calls.failures()
    proof.check(
        bool(calls.seconds) and not failures,
        f"another client's calls meanwhile: {len(calls.seconds):,} answered, {failures or 'none'} failed",
    )
    proof.check(after.fds <= before.fds + 2, f"descriptors {before.fds} -> {after.fds}")
    proof.check(after.threads <= before.threads + _WORKERS, f"threads {before.threads} -> {after.threads}")
    proof.raw["others"] = {"before": calm.failures(), "during": failures, "usage": [before, after]}
