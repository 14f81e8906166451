"""What the first lines of a report say of runs made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from suites import CPP, FUSED, GRPC, UNFUSED, info, measured, point, rounds, suite
from tensorwire.bench.suite.figures import near_ceiling, share_of_ceiling
from tensorwire.bench.suite.lead import lead
from tensorwire.bench.suite.notes import NOWHERE_SLOWER, TAIL_NOTE
from tensorwire.bench.suite.results import Axis, Ceiling, NotRun, Settings, Split, Suite
from tensorwire.bench.suite.summary import summary, write_summary
from tensorwire.bench.suite.verdict import best_system, judge


def first_lines(found: Suite) -> str:
    """Everything before the first table."""
    return summary(found).partition("\n## ")[0]


def test_faster_everywhere_is_a_yes() -> None:
    found = suite([point(FUSED, 9000), point(UNFUSED, 6000), point(GRPC, 1000), point(CPP, 5000)])
    assert judge(found).answer == "yes"
    assert "in no scenario was gRPC faster" in first_lines(found)
    assert "Nowhere is shown" in first_lines(found)


def test_where_it_is_slower_is_in_the_first_lines() -> None:
    found = suite(
        [
            *(point(FUSED, 9000, x) for x in (16, 64, 256)),
            *(point(GRPC, 1000, x) for x in (16, 64, 256)),
            *(point(CPP, rate, x) for x, rate in ((16, 3000), (64, 3000), (256, 18000))),
        ]
    )
    assert judge(found).answer == "mostly"
    assert f"A title of A, at 256 B: {FUSED} has 0.5x of {CPP}'s throughput." in first_lines(found)


def test_a_latency_that_is_higher_is_slower() -> None:
    tail = info("C", figure="p99")
    found = suite(
        [
            point(FUSED, 1000, scenario="C", rounds=rounds(1000, p99=0.004)),
            point(GRPC, 1000, scenario="C", rounds=rounds(1000, p99=0.002)),
        ],
        [tail],
    )
    # Without a spread the ranges are points, and they are apart.
    assert judge(found).answer == "no"
    assert f"{FUSED} has 2x {GRPC}'s p99" in first_lines(found)


def test_other_systems_of_ours_that_are_slower_are_told_too() -> None:
    found = suite([point(FUSED, 9000), point(UNFUSED, 500), point(GRPC, 1000)])
    told = lead(found, judge(found))
    assert not told.slower
    assert told.others == [f"A title of A, at 64 B: {UNFUSED} has 0.5x of {GRPC}'s throughput."]
    assert told.others[0] in first_lines(found)


def test_overlapping_ranges_show_nothing() -> None:
    found = suite([point(FUSED, 1005), point(GRPC, 1000)])
    verdict = judge(found)
    assert [one.outcome for one in verdict.standings] == ["no difference shown"]
    assert verdict.answer == "open"


def test_a_worse_median_is_told_even_if_it_shows_nothing() -> None:
    found = suite([point(FUSED, 1000), point(GRPC, 1005)])
    assert "In 1 of 1 comparisons with all peers the median of its best system is worse" in first_lines(found)


def test_one_round_shows_nothing() -> None:
    found = suite(
        [point(FUSED, 9000, rounds=[measured(9000)]), point(GRPC, 1000, rounds=[measured(1000)])],
        settings=Settings(rounds=1, warmup=0.1, duration=1.0),
    )
    assert judge(found).answer == "open"
    assert [one.outcome for one in judge(found).standings] == ["one round"]
    assert "With one round there is no spread" in first_lines(found)
    assert summary(found).count("(9x)") == 2


def test_no_answer_where_the_peer_answers_is_a_loss() -> None:
    found = suite([point(FUSED, 0, rounds=[], failures=["it ended"] * 3), point(UNFUSED, 9), point(GRPC, 1)])
    lost = [one for one in judge(found).standings if one.lost]
    assert [(one.ours, one.outcome) for one in lost] == [(FUSED, "failed")]
    assert f"{FUSED} gave no answer, {GRPC} did" in first_lines(found)
    assert "3 round(s): it ended" in summary(found)


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [(0, 0, "faster"), (5, 0, "faster"), (50, 0, "failed"), (50, 60, "peer failed"), (0, 50, "peer failed")],
)
def test_calls_that_failed_decide_over_the_latency_of_the_others(
    ours: int, theirs: int, outcome: str
) -> None:
    tails = ((FUSED, 0.001, ours), (GRPC, 0.002, theirs))
    points = [
        point(system, 1000, scenario="C", rounds=rounds(1000, p99=p99, errors={"UNKNOWN": failed}))
        for system, p99, failed in tails
    ]
    found = suite(points, [info("C", figure="p99")])
    assert [one.outcome for one in judge(found).standings] == [outcome]
    told = f"{FUSED} failed 4.8% of its calls, {GRPC} did better."
    assert (told in first_lines(found)) == (outcome == "failed")
    assert (" calls failed |" in summary(found)) == (outcome != "faster")


def test_refusals_under_overload_do_not_decide_over_the_latency() -> None:
    refused = rounds(1000, p99=0.001, errors={"RESOURCE_EXHAUSTED": 900})
    points = [point(FUSED, 1000, scenario="H", rounds=refused), point(GRPC, 900, scenario="H")]
    assert [one.outcome for one in judge(suite(points, [info("H")])).tails] == ["faster"]


def test_a_system_whose_calls_failed_is_not_the_best_by_latency() -> None:
    failing = rounds(1000, p99=0.001, errors={"UNKNOWN": 50})
    found = suite([point(FUSED, 1000, rounds=failing), point(UNFUSED, 1000)], [info(figure="p99")])
    assert best_system(found, found.scenarios[0]) == UNFUSED


def test_best_system_is_one_for_the_whole_scenario() -> None:
    ours = [point(FUSED, 9000, 16), point(FUSED, 1000, 64)]
    found = suite([*ours, point(UNFUSED, 6000, 16), point(UNFUSED, 4000, 64)])
    # sqrt(1 * 0.25) < sqrt(0.67 * 1)
    assert best_system(found, info()) == UNFUSED


def test_a_system_that_was_measured_in_a_part_only_is_not_the_best() -> None:
    found = suite([point(FUSED, 9000, 16), point(UNFUSED, 100, 16), point(UNFUSED, 100, 64)])
    assert best_system(found, info()) == UNFUSED


def test_references_are_no_peers() -> None:
    found = suite([point(FUSED, 100), point("bare pyzmq echo", 9000), point("null", 90000)])
    assert judge(found).standings == []
    assert "Nothing was measured with both" in first_lines(found)


def test_the_nearest_ceiling_counts() -> None:
    ceilings = [
        Ceiling(client="null", systems=(FUSED,), concurrency=callers, throughput=throughput)
        for callers, throughput in ((8, 1000.0), (50, 10000.0))
    ]
    found = suite([point(FUSED, 8000), point(GRPC, 9999)], ceilings=ceilings)
    ours, theirs = found.points
    assert share_of_ceiling(found, ours) == pytest.approx(0.8)
    assert near_ceiling(found, ours)
    assert share_of_ceiling(found, theirs) is None
    assert "8,000 ±1% †" in summary(found)


def test_what_a_system_reaches_the_generator_reaches() -> None:
    ceiling = Ceiling(
        client="null", systems=(FUSED, GRPC), concurrency=50, throughput=5000.0, low=4500.0, high=5500.0
    )
    found = suite([point(FUSED, 10000), point(GRPC, 5000)], ceilings=[ceiling])
    assert [share_of_ceiling(found, one) for one in found.points] == pytest.approx([1.0, 0.5])
    (row,) = (line for line in summary(found).splitlines() if line.startswith("| null"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[1:-1] == ["null", "50", "5,000 ±10%", "10,000", f"{FUSED}, {GRPC}"]


def test_few_callers_have_no_ceiling() -> None:
    ceiling = Ceiling(client="null", systems=(FUSED,), concurrency=8, throughput=1000.0)
    few, enough = (point(FUSED, 1000, callers=callers) for callers in (7, 8))
    assert not near_ceiling(suite([few], ceilings=[ceiling]), few)
    assert near_ceiling(suite([enough], ceilings=[ceiling]), enough)


def test_a_ceiling_of_one_process_says_nothing_of_several() -> None:
    axis = Axis(name="client processes")
    ceiling = Ceiling(client="null", systems=(FUSED,), concurrency=8, throughput=1000.0)
    found = suite([point(FUSED, 1500, 4)], [info(axis=axis)], ceilings=[ceiling])
    assert not near_ceiling(found, found.points[0])


def test_worse_tails_are_in_the_first_lines_where_throughput_decides() -> None:
    found = suite(
        [
            point(FUSED, 9000, rounds=rounds(9000, p99=0.02)),
            point(GRPC, 1000, rounds=rounds(1000, p99=0.01)),
        ]
    )
    told = first_lines(found)
    assert f"{TAIL_NOTE}\n\n- A title of A, at 64 B: {FUSED} has 2x {GRPC}'s p99." in told
    assert NOWHERE_SLOWER not in told
    assert "by the figure that decides" in told
    assert lead(found, judge(found)).glances[0].slower == f"none shown; by p99: {GRPC}"


def test_refusals_are_failures_except_under_overload() -> None:
    refused = {"RESOURCE_EXHAUSTED": 5}
    points = [
        point(FUSED, 10, scenario=key, rounds=rounds(10, errors=refused, refused=5)) for key in ("A", "H")
    ]
    found = suite(points, [info("A"), info("H")])
    assert [one.scenario for one, _, _ in judge(found).unanswered] == ["A"]


def test_refusals_are_a_share_of_all_calls_that_ended() -> None:
    errors = {"RESOURCE_EXHAUSTED": 20, "DEADLINE_EXCEEDED": 30}
    found = suite([point(FUSED, 50, rounds=[measured(50, errors=errors, refused=20)])])
    assert "20.0%" in summary(found)


def test_lengths_of_time_are_rounded() -> None:
    settings = Settings(rounds=3, warmup=0.0597325, duration=0.23893)
    text = summary(suite([point(FUSED, 50)], [info(seconds=0.23893)], settings=settings))
    assert "Each measurement takes 0.24 s." in text
    assert "3 interleaved rounds of 0.24 s, longer in some scenarios, each after at least 0.06 s" in text


def test_an_empty_run_says_that_it_cannot_say() -> None:
    for found in (suite([], []), suite([])):
        assert judge(found).answer == "open"
        assert "This run cannot say" in first_lines(found)


def test_the_summary_holds_everything(tmp_path: Path) -> None:
    found = suite(
        [point(FUSED, 9000), point("peer <b>|*x*", 100)],
        [info("A", FUSED, GRPC)],
        not_run=[NotRun(system="Triton", reason="not | there")],
        splits=[Split(system=FUSED, concurrency=50, rpc=1e-5, engine=2e-5, both=2.5e-5, predicted=3e-5)],
        options={FUSED: "one connection"},
        interrupted=True,
    )
    path = tmp_path / "summary.md"
    write_summary(found, path)
    text = path.read_text()
    for wanted in (
        "The run was interrupted",
        "Not run: Triton",
        "peer \\<b\\>\\|\\*x\\*",
        "not \\| there",
        f"Not measured here: {GRPC}.",
        "one connection",
        "make bench",
    ):
        assert wanted in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    split = next(line for line in rows if "predicted" in line)
    assert split.count("|") == 9
