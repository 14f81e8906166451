"""Versions change under load: no call fails, or only those that meet the gap that was asked for."""

from __future__ import annotations

import pytest
from tensorwire.bench.swap import PHASES, Phase, PolicyRun, SwapSettings, run_policy

SHORT = SwapSettings(swaps=5, mebibytes=4, rate=100.0, quiet=0.02, settle=0.01, windows=1)


def check_complete(result: PolicyRun) -> None:
    assert len(result.swaps) == len(result.spans["before"]) == SHORT.swaps
    assert result.calls.seconds


def test_no_call_fails_when_the_new_version_is_loaded_first() -> None:
    result = run_policy("availability", SHORT)
    check_complete(result)
    assert result.calls.failures() == {}


def test_only_calls_in_the_gap_fail_when_the_old_version_goes_first() -> None:
    result = run_policy("resource", SHORT)
    check_complete(result)
    assert result.calls.failures().keys() <= {"UNAVAILABLE"}
    assert result.astray == 0


@pytest.mark.parametrize("phase", PHASES)
def test_calls_belong_to_the_windows_in_which_they_were_going_on(phase: Phase) -> None:
    from tensorwire.bench.steady import Calls
    from tensorwire.bench.swap import Swap

    calls = Calls(begun=[0.5, 2.5, 4.5], seconds=[0.1, 0.2, 0.3])
    result = PolicyRun(
        policy="availability",
        calls=calls,
        swaps=[Swap(2.0, 2.6, 1)],
        spans={"before": [(0.0, 1.0)], "elsewhere": [(4.0, 5.0)]},
    )
    expected = {"before": [0.1], "during": [0.2], "elsewhere": [0.3]}
    assert result.window_latencies(phase, 1) == [expected[phase]]
