"""What `tensorwire serve` tells about loading and about its surroundings."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorwire.rpc.types import VersionStatus
from tensorwire.server.report import Progress, describe_failed, describe_waiting, empty_hint, reach_warning


def row(state: str, version: int = 1, reason: str = "") -> VersionStatus:
    return VersionStatus(model="m", version=version, state=state, reason=reason)


def test_progress_is_told_after_a_second_and_then_ever_more_rarely() -> None:
    progress = Progress(100.0)
    rows = [row("AVAILABLE"), row("WAITING", 2, "no memory"), row("LOADING", 3)]
    told = [tenths / 10 for tenths in range(1000, 2200) if progress.line(tenths / 10, rows)]
    assert told == [101.0, 102.0, 104.0, 108.0, 116.0, 132.0, 162.0, 192.0]
    assert progress.line(300.0, rows) == (
        "loading for 200 s, 1 of 3 done: m:2 WAITING (no memory), m:3 LOADING"
    )


def test_progress_names_a_few_of_many() -> None:
    line = Progress(0.0).line(1.0, [row("LOADING", version) for version in range(20)])
    assert line.endswith("m:5 LOADING and 14 more")
    assert Progress(0.0).line(1.0, []).endswith("looking at the repository")


def test_failures_come_with_the_remedy() -> None:
    failed, config = describe_failed(
        [row("FAILED", 3, "why"), row("AVAILABLE"), row("FAILED", -1, "x.toml: y")]
    )
    assert failed.startswith("m:3 FAILED: why; it is tried again when its files")
    assert failed.endswith("`tensorwire models load m 3`")
    assert config == "m FAILED: x.toml: y; it is read again when that changes"
    assert describe_waiting([row("WAITING", 2, "no memory"), row("FAILED")]) == ["m:2 WAITING: no memory"]


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("tcp://127.0.0.1:8700", False),
        ("tcp://127.8.0.1:8700", False),
        ("tcp://[::1]:8700", False),
        ("tcp://localhost:8700", False),
        ("ipc:///run/x", False),
        ("tcp://0.0.0.0:8700", True),
        ("tcp://192.0.2.1:8700", True),
    ],
)
def test_addresses_that_others_can_reach(endpoint: str, warned: bool) -> None:
    assert bool(reach_warning(endpoint)) is warned


def test_an_empty_repository(tmp_path: Path) -> None:
    assert "MODEL/1/model.onnx" in empty_hint(tmp_path)
    assert "cannot be read" in empty_hint(tmp_path / "gone")
