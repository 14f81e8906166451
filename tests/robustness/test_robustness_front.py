"""Many connections, and mutated messages at the pump: what the proof about the front does at length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pumps
import pytest
from tensorwire.bench.environment import Environment
from tensorwire.bench.front import connections, mutations
from tensorwire.bench.front.fuzzer import VALID, Fuzzer
from tensorwire.bench.malformed import valid_messages
from tensorwire.bench.proofs import Proof
from tensorwire.rpc.pump import Drained, PythonPump

VECTORS = Path(__file__).parent.parent / "vectors"


def test_many_connections_are_all_answered_rightly() -> None:
    settings = connections.ConnectionsSettings(
        many=60, few=4, processes=1, rounds=1, warmup=0.02, seconds=0.1
    )
    found = connections.measure(Proof(name="front", environment=Environment.read()), settings)
    assert (connections.SERVER, connections.MANY) in found
    for slices in found.values():
        assert [each.wrong for each in slices] == [0]
        assert slices[0].answered >= settings.many


@pytest.fixture
def fuzzers() -> Iterator[Any]:
    made: list[Fuzzer] = []

    def make(pump: Any) -> Fuzzer:
        made.append(Fuzzer(pump, valid_messages(VECTORS), seed=3))
        return made[-1]

    yield make
    for fuzzer in made:
        fuzzer.close()


@pytest.mark.parametrize("name", pumps.NAMES)
def test_every_mutated_message_is_accounted_for(fuzzers: Any, name: str) -> None:
    fuzzer = fuzzers(pumps.pump_named(name))
    for _ in range(20):
        fuzzer.burst()
    tally = fuzzer.result()
    assert (tally.sent, tally.valid, tally.right) == (4000, 20 * VALID, 20 * VALID)
    assert (tally.lost, tally.wrong) == (0, [])
    assert sum(tally.taken.values()) + sum(tally.refused.values()) + tally.dropped == tally.sent


class Forgetful(PythonPump):
    """Loses every request."""

    def drain(self, limit: int = 1024) -> Drained:
        drained = super().drain(limit)
        del drained.bundles[:]
        return drained


class Confused(PythonPump):
    """Answers with the rows of another request."""

    def reply(self, part: Any, template: Any, outputs: Any, *rest: Any) -> None:
        super().reply(part, template, [output[::-1] for output in outputs], *rest)


@pytest.mark.parametrize("pump", [Forgetful, Confused])
def test_a_pump_that_loses_or_mixes_up_messages_is_found_out(fuzzers: Any, pump: type[PythonPump]) -> None:
    fuzzer = fuzzers(pump)
    for _ in range(3):
        fuzzer.burst()
    assert fuzzer.tally.wrong
    assert fuzzer.tally.right < fuzzer.tally.valid
    assert (fuzzer.tally.lost > 0) == (pump is Forgetful)


def test_a_process_that_dies_is_a_failure(tmp_path: Path) -> None:
    pumps.pump_named("compiled")
    good = mutations.MutationsSettings(messages=1000, processes=1, vectors=VECTORS)
    (outcome,) = mutations.fuzz(good)
    assert (outcome.death, outcome.tally.done, outcome.tally.sent) == ("", True, 1000)
    bad = mutations.MutationsSettings(messages=1000, processes=1, vectors=tmp_path)
    outcomes = mutations.fuzz(bad)
    assert "ended; its last words" in outcomes[0].death
    proof = Proof(name="front", environment=Environment.read())
    mutations.report(proof, outcomes, bad)
    assert not proof.passed
