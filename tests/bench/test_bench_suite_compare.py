"""Two runs side by side, made by hand."""

from __future__ import annotations

import msgspec
from suites import FUSED, GRPC, measured, point, suite
from tensorwire.bench.recorder import Spread
from tensorwire.bench.report import as_text
from tensorwire.bench.suite.compare import Agreement, compare, counts, render
from tensorwire.bench.suite.results import Settings


def test_a_run_agrees_with_itself() -> None:
    found = suite([point(FUSED, 9000), point(GRPC, 1000)])
    compared = compare(found, found)
    assert {one.outcome for one in compared.agreements} == {"agrees"}
    assert (compared.only_old, compared.only_new, compared.warnings) == ([], [], [])
    assert "4 of 4 figures agree within the spreads" in as_text(render(compared))


def test_what_changed_is_named_with_its_direction() -> None:
    slower = point(FUSED, 500, rounds=[measured(500, p99=0.001), measured(510, p99=0.001)])
    compared = compare(suite([point(FUSED, 1000)]), suite([slower]))
    assert compared.agreements == [
        Agreement(
            scenario="A",
            system=FUSED,
            variant="",
            label="64 B",
            figure="throughput",
            old=Spread(1000.0, 990.0, 1010.0),
            new=Spread(505.0, 500.0, 510.0),
            ratio=0.505,
            outcome="worse",
        ),
        Agreement(
            scenario="A",
            system=FUSED,
            variant="",
            label="64 B",
            figure="p99",
            old=Spread(0.002, 0.002, 0.002),
            new=Spread(0.001, 0.001, 0.001),
            ratio=0.5,
            outcome="better",
        ),
    ]
    told = as_text(render(compared))
    assert "worse: changed by -50%" in told
    assert "better: changed by -50%" in told
    assert counts(compared) == "0 of 2 figures agree within the spreads; 1 are better, 1 are worse."


def test_ranges_that_overlap_agree() -> None:
    compared = compare(suite([point(FUSED, 1000)]), suite([point(FUSED, 1015)]))
    assert [one.outcome for one in compared.agreements] == ["agrees", "agrees"]


def test_points_of_one_run_only_are_named() -> None:
    old = suite([point(FUSED, 1000), point(GRPC, 10, variant="control")])
    new = suite([point(FUSED, 1000, 128), point(GRPC, 10, variant="control", rounds=[])])
    compared = compare(old, new)
    assert compared.agreements == []
    assert compared.only_old == [("A", FUSED, "64 B"), ("A", GRPC, "control 64 B")]
    assert compared.only_new == [("A", FUSED, "128 B")]
    assert "No point was measured in both runs." in as_text(render(compared))


def test_different_surroundings_are_warned_of() -> None:
    old = suite([point(FUSED, 1000)], options={FUSED: "a"})
    environment = msgspec.structs.replace(
        old.environment, kernel="other", versions=old.environment.versions | {"grpcio": "0.1"}
    )
    new = suite(
        [point(FUSED, 1000)],
        environment=environment,
        options={FUSED: "b"},
        settings=Settings(rounds=1, warmup=0.1, duration=2.0),
        interrupted=True,
    )
    told = "\n".join(compare(old, new).warnings)
    for wanted in ("kernel", "version of grpcio", "rounds", "length of a round", f"settings of {FUSED}"):
        assert f"{wanted} differs: " in told
    for wanted in ("the new run was interrupted", "the new run has one round"):
        assert wanted in told
    assert "load_average" not in told
    assert "length of a round differs: 1 s -> 2 s" in told
