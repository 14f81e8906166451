"""Bytes that peers should not send: each is answered or counted, and nobody else is harmed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pumps
import pytest
from tensorwire.bench.malformed import (
    MODEL,
    check_frames,
    check_refusal,
    counters,
    fuzz,
    load_refusals,
    valid_messages,
)
from tensorwire.bench.models import INPUT, OUTPUT
from tensorwire.bench.mutations import MUTATIONS, mutate
from tensorwire.bench.proof_models import identity, write_model
from tensorwire.bench.raw import RawPeer
from tensorwire.bench.servers import Server
from tensorwire.client import Client

VECTORS = Path(__file__).parent.parent / "vectors"
SEED = 7


@pytest.fixture(params=pumps.NAMES)
def pump(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which pump servers use from now on."""
    monkeypatch.setenv("TENSORWIRE_PURE_PYTHON", "1" if request.param == "python" else "0")
    return pumps.pump_named(request.param).__name__


@pytest.fixture
def server(pump: str, start: Callable[[Path], Server], tmp_path: Path) -> Server:
    write_model(tmp_path / "models" / MODEL, identity())
    return start(tmp_path / "models")


def test_bad_input_harms_nobody(server: Server, pump: str) -> None:
    """One server for all of it: what one message leaves behind would show in the next."""
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    with Client(server.address, timeout=20.0) as client, RawPeer(server.address) as peer:
        for vector in load_refusals(VECTORS):
            assert check_refusal(peer, client, vector) == "", vector.name
        for announced in range(1, 5):
            for difference in (-announced, -1, 1, 300):
                number = (announced << 20) + ((difference + announced) << 8)
                assert check_frames(peer, number, announced, difference) == ""
        assert client.health().pump == pump
        before = counters(client)
        result = fuzz(server.address, valid_messages(VECTORS), 2000, SEED, server.pid)
        after = counters(client)
        assert result.sent == 2000
        assert result.unanswered == []
        assert after["malformed_dropped"] - before["malformed_dropped"] == result.droppable
        np.testing.assert_array_equal(client.predict(MODEL, {INPUT: x})[OUTPUT], x)


def test_mutations_repeat_with_their_seed_and_differ_without() -> None:
    messages = valid_messages(VECTORS)

    def made(seed: int) -> list[list[bytes]]:
        draw = random.Random(seed)
        return [mutate(draw, messages, number) for number in range(50)]

    assert made(1) == made(1) != made(2)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_every_mutation_takes_messages_of_any_shape(mutation: Callable[..., list[bytes]]) -> None:
    draw = random.Random(0)
    for frames in ([b""], [b"a"], [b"a" * 60, b""], [b"a" * 60, b"b" * 3]):
        for _ in range(20):
            changed = mutation(draw, frames) if len(frames[0]) >= 48 else frames
            assert changed
            assert all(isinstance(frame, bytes) for frame in changed)
