from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from fake_engine import add_version
from tensorwire.manager import source as source_module
from tensorwire.manager.fingerprint import fingerprint, is_ignored, is_temporary
from tensorwire.manager.intent import Intent
from tensorwire.manager.manifest import MANIFEST_NAME, BackgroundCheck
from tensorwire.manager.source import FileSystemSource, ModelScan, Scan

OLD = 1_000_000_000.0


class Repository:
    """A repository whose files are as old as the test says, and a source that looks at it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *, remove_missing: bool = False) -> None:
        self.root = root
        self.now = 100.0
        self.newest = OLD
        self.intents: Mapping[str, Intent] = {}
        # The time of change (ctime) of a file cannot be set, so the test says what the disk would.
        monkeypatch.setattr("tensorwire.manager.fingerprint._changed", lambda status: self.newest)
        self.source = FileSystemSource(
            root,
            settle_time=2.0,
            check_manifest=BackgroundCheck(lambda job: job(), lambda: None),
            remove_missing=remove_missing,
            clock=lambda: self.now,
            wall_clock=lambda: OLD + self.now,
        )

    def add(self, model: str, *versions: int, content: str = "model") -> None:
        for version in versions:
            add_version(self.root, model, version, content)

    def configure(self, model: str, text: str) -> None:
        (self.root / model).mkdir(exist_ok=True)
        (self.root / model / "model.toml").write_text(text)

    def fresh(self) -> None:
        """From now on files look as if they had been written this moment."""
        self.newest = OLD + self.now

    def poll(self) -> Scan:
        return self.source.poll(self.intents)

    def model(self, name: str = "m") -> ModelScan:
        return self.poll().models[name]

    def aspired(self, name: str = "m") -> list[int]:
        return list(self.model(name).aspired)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return Repository(tmp_path, monkeypatch)


def test_latest_is_the_default(repository: Repository) -> None:
    repository.add("m", 1, 2, 10)
    scan = repository.model()
    assert list(scan.aspired) == [10]
    assert scan.aspired[10].path == repository.root / "m" / "10"
    assert scan.found == (1, 2, 10)
    assert scan.problem == ""


@pytest.mark.parametrize(
    ("toml", "aspired"),
    [
        ('policy = "latest"\ncount = 2', [2, 10]),
        ('policy = "all"', [1, 2, 10]),
        ('policy = "specific"\nspecific = [1, 7]', [1]),
    ],
)
def test_version_policies(repository: Repository, toml: str, aspired: list[int]) -> None:
    repository.add("m", 1, 2, 10)
    repository.configure("m", f"[versions]\n{toml}\n")
    assert repository.aspired() == aspired


def test_what_the_file_names_is_told_apart_from_the_defaults(repository: Repository) -> None:
    repository.add("m", 1)
    assert repository.model().written == {}
    repository.configure("m", "workers.count = 2\nlimits.max_in_flight = 16384\n[labels]\nstable = 1")
    said = {"workers.count": 2, "limits.max_in_flight": 16384}
    assert repository.model().written == said
    repository.configure("m", "workers.count = 0")
    assert repository.model().written == said
    repository.configure("m", "")
    assert repository.model().written == {}


def test_names_that_are_not_versions_or_models(repository: Repository) -> None:
    repository.add("m", 1)
    for name in (".2", "2.tmp", "3.part", "4~", "v5", "-6", "७", "99999999999999999999", "_7"):
        (repository.root / "m" / name).mkdir()
    (repository.root / "m" / "8").write_text("a file")
    for name in (".hidden", "_draft", "copy.tmp", "lost+found", "empty"):
        (repository.root / name).mkdir()
    (repository.root / "README.md").write_text("hello")
    scan = repository.poll()
    assert list(scan.models) == ["m"]
    assert scan.models["m"].found == (1,)


def test_two_spellings_of_a_version(repository: Repository) -> None:
    repository.add("m", 1)
    (repository.root / "m" / "01").mkdir()
    assert repository.model().aspired[1].path.name == "1"


def test_labels_routes_and_operators_keep_versions(repository: Repository) -> None:
    repository.add("m", 1, 2, 3, 4, 5, 6)
    repository.configure(
        "m", "[labels]\nstable = 1\n[route]\ntargets = {stable = 1.0, 2 = 1.0}\nshadow = '3'\n"
    )
    repository.intents = {"m": Intent(loaded=frozenset({4}), bound=frozenset({5}))}
    assert repository.aspired() == [1, 2, 3, 4, 5, 6]
    repository.configure("m", "[versions]\ntransition = 'resource'\n")
    assert repository.aspired() == [4, 6]


def test_a_version_unloaded_by_hand_gives_way_to_the_next(repository: Repository) -> None:
    repository.add("m", 1, 2, 3)
    repository.intents = {"m": Intent(unloaded=frozenset({3}))}
    assert repository.aspired() == [2]
    repository.intents = {"m": Intent(disabled=True)}
    assert repository.aspired() == []


def test_a_version_that_is_being_copied_waits(repository: Repository) -> None:
    repository.add("m", 1)
    assert repository.aspired() == [1]
    for size in (1, 2, 3):
        repository.fresh()
        repository.add("m", 2, content="x" * size)
        scan = repository.model()
        assert list(scan.aspired) == [1]
        assert "files are still changing" in scan.held[2]
        assert scan.settling
        repository.now += 1.5
    repository.now += 0.6
    scan = repository.model()
    assert list(scan.aspired) == [2]
    assert not scan.held


def test_a_hidden_partial_file_that_grows_counts_as_a_change(repository: Repository) -> None:
    repository.fresh()
    repository.add("m", 1)
    for size in (1, 2, 3):
        (repository.root / "m" / "1" / ".weights.bin.Xa31bc").write_text("x" * size)
        repository.fresh()
        assert repository.aspired() == []
        repository.now += 1.9
    repository.now += 0.2
    assert repository.aspired() == [1]


def test_files_from_the_future_settle_by_the_servers_own_clock(repository: Repository) -> None:
    repository.newest = OLD * 2
    repository.add("m", 1)
    assert repository.aspired() == []
    repository.now += 2.0
    assert repository.aspired() == [1]


def test_a_loaded_version_that_changes_stays_until_the_change_is_complete(repository: Repository) -> None:
    repository.add("m", 1)
    before = repository.model().aspired[1]
    repository.fresh()
    repository.add("m", 1, content="another model")
    scan = repository.model()
    assert scan.aspired[1] == before
    assert 1 in scan.held
    repository.now += 2.0
    after = repository.model().aspired[1]
    assert after.content != before.content


def test_caches_of_the_interpreter_are_no_change(repository: Repository) -> None:
    repository.add("m", 1)
    before = repository.model()
    cache = repository.root / "m" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_text("x")
    repository.fresh()
    assert repository.model() == before


def test_an_empty_version_waits(repository: Repository) -> None:
    (repository.root / "m" / "1").mkdir(parents=True)
    scan = repository.model()
    assert scan.held == {1: "the directory is empty"}
    assert not scan.settling


def test_a_verified_manifest_needs_no_settling(repository: Repository) -> None:
    repository.fresh()
    repository.add("m", 1)
    manifest = repository.root / "m" / "1" / MANIFEST_NAME
    manifest.write_text(f"{hashlib.sha256(b'model').hexdigest()}  model.fake\n")
    assert repository.aspired() == [1]


def test_a_version_that_does_not_match_its_manifest_waits(repository: Repository) -> None:
    repository.add("m", 1, 2)
    manifest = repository.root / "m" / "2" / MANIFEST_NAME
    manifest.write_text(f"{hashlib.sha256(b'whole model').hexdigest()}  model.fake\n")
    scan = repository.model()
    assert list(scan.aspired) == [1]
    assert "model.fake has sha256" in scan.held[2]
    repository.add("m", 2, content="whole model")
    assert repository.aspired() == [2]


def test_one_unreadable_model_stops_nobody(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repository.add("bad", 1)
    repository.add("good", 1)
    first = repository.poll()
    listing = source_module._list_versions  # pyright: ignore[reportPrivateUsage]

    def fail(directory: Path) -> dict[int, Path]:
        if directory.name == "bad":
            raise PermissionError(13, "Permission denied")
        return listing(directory)

    monkeypatch.setattr(source_module, "_list_versions", fail)
    repository.add("good", 2)
    with caplog.at_level(logging.WARNING, "tensorwire.manager"):
        second = repository.poll()
        repository.poll()
    assert second.models["bad"].aspired == first.models["bad"].aspired
    assert "Permission denied" in second.models["bad"].problem
    assert list(second.models["good"].aspired) == [2]
    assert len(caplog.records) == 1
    monkeypatch.setattr(source_module, "_list_versions", listing)
    assert repository.model("bad").problem == ""


def test_a_model_that_was_never_readable_is_shown(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add("bad", 1)
    monkeypatch.setattr(source_module, "_list_versions", lambda directory: os.listdir("/nonexistent"))
    assert "cannot be read" in repository.model("bad").problem


def test_a_missing_model_directory_keeps_what_serves(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    repository.add("gone", 1)
    repository.add("m", 1)
    before = repository.poll().models["gone"].aspired
    shutil.rmtree(repository.root / "gone")
    repository.add("m", 2)
    with caplog.at_level(logging.INFO, "tensorwire.manager"):
        scan = repository.poll()
        repository.poll()
    assert scan.models["gone"].aspired == before
    assert "the directory is gone" in scan.models["gone"].problem
    assert list(scan.models["m"].aspired) == [2]
    assert len(caplog.records) == 1
    repository.add("gone", 1)
    assert repository.model("gone").problem == ""


def test_missing_models_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path, monkeypatch, remove_missing=True)
    repository.add("gone", 1)
    repository.poll()
    shutil.rmtree(tmp_path / "gone")
    assert repository.poll() == Scan()


def test_a_removed_version_is_left_out(repository: Repository) -> None:
    repository.add("m", 1, 2)
    assert repository.aspired() == [2]
    shutil.rmtree(repository.root / "m" / "2")
    assert repository.aspired() == [1]
    shutil.rmtree(repository.root / "m" / "1")
    scan = repository.model()
    assert scan.aspired == {}
    assert scan.problem == ""


def test_a_missing_repository_keeps_everything(repository: Repository) -> None:
    repository.add("m", 1)
    before = repository.poll()
    moved = repository.root.with_name("moved")
    repository.root.rename(moved)
    during = repository.poll()
    assert during.models == before.models
    assert "cannot be listed" in during.problem
    moved.rename(repository.root)
    assert repository.poll() == before


def test_an_unreadable_version_is_held(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.add("m", 1)
    before = repository.model()

    def fail(directory: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(source_module, "fingerprint", fail)
    scan = repository.model()
    assert scan.aspired == before.aspired
    assert "Input/output error" in scan.held[1]


def test_an_invalid_configuration_keeps_the_one_before(repository: Repository) -> None:
    repository.add("m", 1, 2)
    repository.configure("m", "[versions]\npolicy = 'all'\n")
    assert repository.aspired() == [1, 2]
    repository.configure("m", "[versions]\npolicy = 'some'\n")
    scan = repository.model()
    assert list(scan.aspired) == [1, 2]
    assert "model.toml" in scan.problem
    assert "versions.policy" in scan.problem
    assert "keeping the configuration from before" in scan.problem
    repository.configure("m", "")
    assert repository.aspired() == [2]


def test_a_configuration_that_was_never_valid_loads_nothing(repository: Repository) -> None:
    repository.add("m", 1)
    repository.configure("m", "nonsense")
    for _ in range(2):
        scan = repository.model()
        assert scan.aspired == {}
        assert "not loading the model" in scan.problem


def test_linked_versions_are_followed(repository: Repository) -> None:
    store = repository.root / ".store"
    target = add_version(store, "m", 1)
    (repository.root / "m").mkdir()
    (repository.root / "m" / "5").symlink_to(target)
    (target / "loop").symlink_to(target)
    (target / "nowhere").symlink_to(target / "missing")
    assert repository.aspired() == [5]


def test_fingerprints(tmp_path: Path) -> None:
    directory = add_version(tmp_path, "m", 1)
    first = fingerprint(directory)
    assert first.files == 1
    assert fingerprint(directory) == first
    (directory / "sub").mkdir()
    (directory / "sub" / "part.bin").write_text("x")
    second = fingerprint(directory)
    assert second.content != first.content
    (directory / "w.part").write_text("x")
    third = fingerprint(directory)
    assert third.content == second.content
    assert third.activity != second.activity
    assert third.newest >= first.newest


def test_ignored_names() -> None:
    assert all(map(is_ignored, (".x", "_x", "x.tmp", "x.PART", "x~", "lost+found", "__pycache__")))
    assert not any(map(is_ignored, ("x", "1", "resnet50", "tmp")))
    assert is_temporary(".x")
    assert not is_temporary("_helpers.py")
