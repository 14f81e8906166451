"""When a command's effect is there, decided from what the server says."""

from __future__ import annotations

from tensorwire.rpc.types import VersionStatus
from tensorwire.server.cli.waiting import Look, labelled, loaded, settled, unloaded


def row(state: str, version: int = 1, labels: tuple[str, ...] = (), reason: str = "") -> VersionStatus:
    return VersionStatus(model="m", version=version, state=state, labels=labels, reason=reason)


def test_a_new_version_is_loaded_when_it_serves() -> None:
    verdict = loaded([row("AVAILABLE", 1)], 2)
    assert verdict(Look([row("AVAILABLE", 1)], False)) is None
    for state in ("NEW", "WAITING", "LOADING", "WARMING"):
        assert verdict(Look([row(state, 2)], False)) is None
    # Other models may still be loading: that this one serves is enough.
    assert verdict(Look([row("AVAILABLE", 2)], False)) == ""


def test_an_old_failure_is_not_the_result() -> None:
    verdict = loaded([row("FAILED", reason="old")], 1)
    assert verdict(Look([row("FAILED", reason="old")], False)) is None
    assert verdict(Look([row("LOADING")], False)) is None
    assert verdict(Look([row("FAILED", reason="new")], False)) == "m:1 FAILED (new)"


def test_a_reload_too_quick_to_be_seen_counts_when_nothing_is_on_its_way() -> None:
    verdict = loaded([row("FAILED")], 1)
    assert verdict(Look([row("AVAILABLE")], False)) is None
    assert verdict(Look([row("AVAILABLE")], True)) == ""


def test_a_version_that_waits_is_waited_for() -> None:
    assert loaded([], 1)(Look([row("WAITING", reason="no memory")], True)) is None


def test_a_version_that_nobody_wants() -> None:
    assert loaded([], 1)(Look([], False)) is None
    assert "does not want" in (loaded([], 1)(Look([], True)) or "")


def test_unloaded_when_no_row_is_left() -> None:
    assert unloaded(1)(Look([row("UNLOADING")], False)) is None
    assert unloaded(1)(Look([row("AVAILABLE", 2)], False)) == ""
    assert unloaded(None)(Look([row("AVAILABLE", 2)], False)) is None
    # The line about a model.toml that cannot be used is no version.
    assert unloaded(None)(Look([row("FAILED", -1)], False)) == ""


def test_a_label_has_moved() -> None:
    verdict = labelled("stable", 2)
    old = row("AVAILABLE", 1, ("stable",))
    assert verdict(Look([old, row("LOADING", 2)], False)) is None
    assert verdict(Look([old, row("WAITING", 2)], True)) is None
    assert verdict(Look([row("AVAILABLE", 1), row("AVAILABLE", 2, ("stable",))], False)) == ""
    failed = verdict(Look([old, row("FAILED", 2, reason="why")], True))
    assert failed == ("label 'stable' stays at version 1: m:2 FAILED (why); it moves when version 2 serves")


def test_a_label_is_gone() -> None:
    assert labelled("stable", None)(Look([row("AVAILABLE", 1, ("stable",))], False)) is None
    assert labelled("stable", None)(Look([row("AVAILABLE", 1)], False)) == ""


def test_settled() -> None:
    assert settled(Look([], False)) is None
    assert settled(Look([], True)) == ""
