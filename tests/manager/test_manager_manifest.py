from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorwire.manager.manifest import MANIFEST_NAME, BackgroundCheck, parse_manifest, verify_manifest
from tensorwire.rpc.errors import AbortedError, DataLossError, InvalidArgumentError

DIGEST = hashlib.sha256(b"model").hexdigest()


def write(directory: Path, manifest: str) -> None:
    (directory / "model.onnx").write_bytes(b"model")
    (directory / MANIFEST_NAME).write_text(manifest)


def test_lines_in_both_modes_of_sha256sum() -> None:
    assert parse_manifest(f"{DIGEST}  model.onnx\n\n{DIGEST.upper()} *./data/w.bin\n") == {
        "model.onnx": DIGEST,
        "data/w.bin": DIGEST,
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no files are listed"),
        ("hello", "line 1: found 'hello'; expected"),
        (f"{DIGEST}  a\n{DIGEST[:-1]}  b", "line 2"),
        (f"{DIGEST}  /etc/passwd", "leaves the version directory"),
        (f"{DIGEST}  ../other", "leaves the version directory"),
        (f"{DIGEST}  .", "leaves the version directory"),
        (f"{DIGEST}  a\n{DIGEST}  ./a", "listed twice"),
    ],
)
def test_bad_manifests(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        parse_manifest(text)


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        entries = parse_manifest(text)
    except InvalidArgumentError:
        return
    assert all(len(digest) == 64 and not name.startswith("/") for name, digest in entries.items())


def test_a_right_manifest(tmp_path: Path) -> None:
    write(tmp_path, f"{DIGEST}  model.onnx\n")
    verify_manifest(tmp_path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_what_sha256sum_writes(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model")
    listing = subprocess.run(
        ["sha256sum", "model.onnx"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    (tmp_path / MANIFEST_NAME).write_text(listing.stdout)
    verify_manifest(tmp_path)


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        (
            f"{'0' * 64}  model.onnx",
            "model.onnx has sha256 .* expected 000000000000...; copy the version again",
        ),
        (f"{DIGEST}  model.onnx\n{DIGEST}  weights.bin", "1 of 2 files missing: weights.bin"),
        ("nonsense", "MANIFEST.sha256: line 1"),
    ],
)
def test_wrong_contents(tmp_path: Path, manifest: str, complaint: str) -> None:
    write(tmp_path, manifest)
    with pytest.raises(DataLossError, match=complaint):
        verify_manifest(tmp_path)


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(DataLossError, match="utf-8"):
        verify_manifest(tmp_path)


def test_a_verification_can_be_stopped(tmp_path: Path) -> None:
    write(tmp_path, f"{DIGEST}  model.onnx\n")
    with pytest.raises(AbortedError):
        verify_manifest(tmp_path, lambda: True)


class Later:
    """Collects jobs for the test to run."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def __call__(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def run(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()


def test_verification_in_the_background(tmp_path: Path) -> None:
    write(tmp_path, f"{DIGEST}  model.onnx\n")
    later, done = Later(), list[int]()
    check = BackgroundCheck(later, lambda: done.append(1))
    assert check(tmp_path, "one") is None
    assert check(tmp_path, "one") is None
    assert len(later.jobs) == 1
    later.run()
    assert check(tmp_path, "one") == ""
    assert done == [1]


def test_a_verdict_about_old_files_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, f"{DIGEST}  model.onnx\n")
    later = Later()
    check = BackgroundCheck(later, lambda: None)
    check(tmp_path, "one")
    (tmp_path / "model.onnx").write_bytes(b"changed")
    assert check(tmp_path, "two") is None
    first, second = later.jobs
    first()
    assert check(tmp_path, "two") is None
    second()
    assert "copy the version again" in (check(tmp_path, "two") or "")


def test_a_check_that_runs_at_once(tmp_path: Path) -> None:
    write(tmp_path, f"{DIGEST}  model.onnx\n")
    assert BackgroundCheck(lambda job: job(), lambda: None)(tmp_path, "one") == ""


def test_a_stopped_check_gives_no_verdict(tmp_path: Path) -> None:
    write(tmp_path, f"{DIGEST}  model.onnx\n")
    later = Later()
    check = BackgroundCheck(later, lambda: None)
    check(tmp_path, "one")
    check.stop()
    later.run()
    assert check(tmp_path, "one") is None
