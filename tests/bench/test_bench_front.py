"""The parts of the proof about the front without servers: what they read and write, and their verdicts."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorwire.bench import echo, zmtp
from tensorwire.bench.environment import Environment
from tensorwire.bench.front import c_echo, connections, lone, lone_caller, many, mutations, pauses, stream
from tensorwire.bench.front.fuzzer import Tally
from tensorwire.bench.front.pulse import overlapping
from tensorwire.bench.models import CASE_OF_NAME, OUTPUT
from tensorwire.bench.proofs import Proof
from tensorwire.bench.raw import PREFIX, Kind, head
from tensorwire.bench.systems import FUSED, GRPC

CASE = CASE_OF_NAME["64 B"]


@pytest.fixture
def proof() -> Proof:
    return Proof(name="front", environment=Environment.read())


def failed(proof: Proof) -> list[str]:
    return [check.text for check in proof.checks if not check.passed]


# -------------------------------------------------------------------- connections


@pytest.fixture
def ends() -> Any:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield many.Connection(client), server


def test_messages_are_found_wherever_they_are_cut(ends: Any) -> None:
    connection, _ = ends
    short = struct.pack("BB", 0, 5) + b"short"
    data = short + zmtp.encode([b"l" * 300]) + short
    for size in (1, 3, 11, len(data)):
        found: list[bytes] = []
        for at in range(0, len(data), size):
            found += connection.take(data[at : at + size])
        assert found == [b"short", b"l" * 300, b"short"]
        assert connection.between


def test_a_heartbeat_between_messages_is_answered(ends: Any) -> None:
    connection, server = ends
    ping = b"\x04PING" + struct.pack(">H", 10) + b"context"
    assert connection.take(bytes((4, len(ping))) + ping) == []
    assert server.recv(100) == b"\x04\x0c\x04PONGcontext"


def test_requests_are_of_the_protocol_and_only_their_own_answer_is_right() -> None:
    requests = many.Requests(CASE)
    whole = requests.make(7)
    frame = whole[9:]
    assert zmtp.encode([frame]) == whole
    magic, version, kind, _, _, request_id, *_ = PREFIX.unpack_from(frame)
    assert (magic, version, kind, request_id) == (b"TWIR", 1, Kind.REQUEST, 7)
    x = np.frombuffer(frame[-64:], np.float32).reshape(CASE.shape)
    answer = head(Kind.REPLY, 7, rest=CASE.reference(x).tobytes())
    assert requests.is_right(7, answer)
    assert not requests.is_right(8, answer)
    assert not requests.is_right(7, head(Kind.ERROR, 7) + answer[-64:])


def test_limits_of_descriptors_are_refused_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many.resource, "getrlimit", lambda _: (100, 200))
    many.allow_descriptors(100)
    with pytest.raises(OSError, match="300 descriptors are needed; the hard limit is 200"):
        many.allow_descriptors(300)


@pytest.mark.parametrize(("rate", "wrong", "texts"), [(85.0, 0, 0), (75.0, 0, 1), (85.0, 2, 1)])
def test_connections_are_judged_by_throughput_and_answers(
    proof: Proof, rate: float, wrong: int, texts: int
) -> None:
    found = {
        (connections.SERVER, connections.MANY): [connections.Slice(rate, 1e-5, 1e-5, 10, wrong)] * 3,
        (connections.SERVER, connections.FEW): [connections.Slice(100.0, 1e-5, 1e-5, 10, 0)] * 3,
    }
    connections.report(proof, found, connections.ConnectionsSettings())
    assert len(failed(proof)) == texts


# -------------------------------------------------------------------- lone


def rounds(**p50: float) -> list[lone_caller.Round]:
    return [
        lone_caller.Round({name: np.full(5, value * factor).tobytes() for name, value in p50.items()})
        for factor in (1.0, 2.0, 3.0)
    ]


@pytest.mark.parametrize(("p50", "passes"), [(110e-6, True), (120e-6, False)])
def test_the_faster_way_to_the_echo_is_the_floor(proof: Proof, p50: float, passes: bool) -> None:
    found = rounds(**{lone_caller.CLIENT: p50, "echo, a": 130e-6, "echo, b": 100e-6, "other, a": 1e-6})
    floor = lone.floor_of(found, "echo")
    assert floor == "echo, b"
    lone.report(proof, found, floor, lone.LoneSettings())
    assert (not failed(proof)) == passes


def test_turns_count_all_but_the_first_calls() -> None:
    called = {"a": 0, "b": 0}

    def call(name: str) -> Any:
        def one() -> dict[str, Any]:
            called[name] += 1
            return {}

        return one

    found = lone_caller.play({name: call(name) for name in called}, turns=3, each=5)
    assert called == dict.fromkeys(called, 3 * (5 + lone_caller.UNCOUNTED))
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == dict.fromkeys(called, 15 * 8)


def test_an_echo_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    with pytest.raises(c_echo.NotBuiltError, match="only in a checkout"):
        c_echo.build(tmp_path / "none")
    (tmp_path / "Makefile").write_text("all:\n\t@echo 'echo.c:1: error: no zmq.h' >&2; false\n")
    with pytest.raises(c_echo.NotBuiltError, match=r"error: no zmq\.h"):
        c_echo.build(tmp_path)


def test_the_echo_in_c_gives_back_what_it_gets(tmp_path: Path) -> None:
    try:
        program = c_echo.build(out=tmp_path / "build")
    except c_echo.NotBuiltError as error:
        pytest.skip(str(error))
    x = CASE.inputs(1)[0]
    with c_echo.start(program, tmp_path / "echo.log") as server:
        with echo.open_client(server.address) as client:
            assert client.caller(CASE, x)()[OUTPUT] == x.tobytes()
        with lone_caller.open_exchange(server.address) as call:
            if call is not None:
                for _ in range(3):
                    assert call()[OUTPUT].endswith(x.tobytes())


# -------------------------------------------------------------------- pauses


@pytest.mark.parametrize(
    ("other", "expected"),
    [((0.0, 1.0), False), ((0.5, 1.1), True), ((1.2, 1.3), True), ((0.0, 9.0), True), ((2.0, 3.0), False)],
)
def test_gaps_overlap(other: tuple[float, float], expected: bool) -> None:
    assert overlapping((1.0, 2.0), [other]) == expected
    assert not overlapping((1.0, 2.0), [])


class Clock:
    """Goes on by half a millisecond whenever somebody looks; tells when a time has come."""

    def __init__(self, when: float = float("inf"), tell: Callable[[], object] = lambda: None) -> None:
        self._looks = 0
        self._when, self._tell = when, tell

    def __call__(self) -> float:
        self._looks += 1
        now = self._looks * 0.0005
        if now > self._when:
            self._tell()
        return now


def test_calls_are_made_at_their_rate_and_count_from_when_they_were_due() -> None:
    async def call() -> Any:
        return {}

    async def run() -> stream.Arrived:
        return await stream.Streamer([call], stream.Stream(seconds=0.05, rate=200.0), str, Clock()).run()

    found = asyncio.run(run())
    latencies = np.frombuffer(found.latencies)
    assert len(latencies) == 10
    assert (found.unsent, found.failed, found.pauses) == (0, {}, [])
    assert ((latencies > 0) & (latencies < 0.005)).all()


def test_calls_that_wait_for_others_count_with_what_they_waited() -> None:
    async def run() -> stream.Arrived:
        release = asyncio.Event()

        async def call() -> Any:
            await release.wait()
            raise RuntimeError("down")

        calls = stream.Stream(seconds=0.05, rate=200.0, callers=3)
        return await stream.Streamer([call], calls, str, Clock(0.0512, release.set)).run()

    async def released() -> stream.Arrived:
        return await asyncio.wait_for(run(), 20.0)

    found = asyncio.run(released())
    assert found.failed == {"down": 3}
    assert found.unsent == 7
    assert found.rate == 0.0
    assert np.frombuffer(found.latencies) == pytest.approx(np.arange(7, 0, -1) * 0.005, abs=0.003)


def level(ours: float, theirs: float, **arrived: Any) -> pauses.Level:
    def slices(latency: float, **more: Any) -> list[pauses.Slice]:
        latencies = np.full(10, latency).tobytes()
        found = stream.Arrived(latencies=latencies, rate=100.0, **more)
        return [pauses.Slice(found, [(1.0, 1.5)])] * 2

    return pauses.Level("half", 100.0, {FUSED: slices(ours, **arrived), GRPC: slices(theirs)})


@pytest.mark.parametrize(("ours", "texts"), [(0.001, 0), (0.003, 1)])
def test_latency_is_judged_beside_grpc(proof: Proof, ours: float, texts: int) -> None:
    pauses.report(proof, level(ours, 0.02), pauses.PausesSettings())
    assert len(failed(proof)) == texts


def test_a_pause_counts_unless_the_machine_had_one_too(proof: Proof) -> None:
    pauses.verify_pauses(proof, [level(0.001, 0.02, pauses=[(1.4, 1.6)])])
    assert failed(proof) == []
    pauses.verify_pauses(proof, [level(0.001, 0.02, pauses=[(1.4, 1.6), (2.0, 2.006)], still=[(2.0, 2.1)])])
    assert "2 times without a reply" in failed(proof)[0]
    assert "(ms: 6.0 6.0; in 2 of them" in failed(proof)[0]


# -------------------------------------------------------------------- mutations


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({}, 0),
        ({"lost": 1}, 1),
        ({"right": 1}, 1),
        ({"wrong": ["54574952"]}, 1),
        ({"rss": [1, 1 + mutations.RSS_SLACK]}, 0),
        ({"rss": [1, 2 + mutations.RSS_SLACK, 1]}, 1),
        ({"sent": 9}, 1),
    ],
)
def test_mutations_are_judged(proof: Proof, change: dict[str, Any], texts: int) -> None:
    tally = Tally(**{"sent": 10, "valid": 2, "right": 2, "seconds": 1.0, "done": True, **change})
    settings = mutations.MutationsSettings(messages=10, processes=1)
    mutations.report(proof, [mutations.Outcome(1, tally)], settings)
    assert len(failed(proof)) == texts
