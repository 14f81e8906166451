"""FileSystemSource: looks at the repository and says which versions are wanted.

One call of :meth:`FileSystemSource.poll` gives the complete set of aspired versions of every model; a
version that is left out is to be unloaded. What cannot be read keeps the answer that it gave last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from ..rpc.errors import InvalidArgumentError
from .config import ModelConfig, parse_model_config
from .decode import read_toml
from .fingerprint import Fingerprint, fingerprint, is_ignored
from .intent import NO_INTENT, Intent, select_versions
from .manifest import MANIFEST_NAME
from .tuning import written

_log = logging.getLogger("tensorwire.manager")

CONFIG_NAME: Final = "model.toml"
_MAX_VERSION: Final = 2**63 - 1


class Candidate(msgspec.Struct, frozen=True):
    """One version that is complete on disk. ``content`` is the fingerprint of its files."""

    version: int
    path: Path
    content: str


class ModelScan(msgspec.Struct, frozen=True):
    """What one look found out about one model.

    Attributes:
        name: model name.
        config: the last valid model.toml.
        aspired: version -> candidate: the complete set that is to serve.
        held: versions that would be wanted but are not complete, and why.
        settling: some held version may become complete by itself shortly.
        found: every version in the directory.
        problem: why the model's directory or its model.toml could not be used; empty otherwise.
        written: what model.toml itself says about keys that can be set live, too.
    """

    name: str
    config: ModelConfig = ModelConfig()
    aspired: Mapping[int, Candidate] = {}
    held: Mapping[int, str] = {}
    settling: bool = False
    found: tuple[int, ...] = ()
    problem: str = ""
    written: Mapping[str, Any] = {}


class Scan(msgspec.Struct, frozen=True):
    """One look at the whole repository; ``problem`` says why it could not be listed."""

    models: Mapping[str, ModelScan] = {}
    problem: str = ""


class ManifestCheck(Protocol):
    """Verifies manifests, possibly elsewhere: ``None`` = under way, ``""`` = good, else what is wrong."""

    def __call__(self, directory: Path, activity: str) -> str | None: ...


class _Watched(msgspec.Struct):
    """What the source remembers about one version between two looks."""

    activity: str
    since: float
    accepted: Candidate | None = None


class _Read(NamedTuple):
    """A valid model.toml, and the keys that it names."""

    config: ModelConfig
    written: Mapping[str, Any] = {}


class FileSystemSource:
    """Source of aspired versions for ``repository/<model>/<integer>/``.

    Keeps only what it saw, starts no threads, and is used by one thread at a time.

    Args:
        repository: the directory.
        settle_time: seconds without a change before a version without a manifest counts as complete.
        check_manifest: verifies versions that have one.
        remove_missing: omit models whose directory is gone, instead of keeping them.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch, to compare with the times of files.
    """

    def __init__(
        self,
        repository: Path,
        *,
        settle_time: float,
        check_manifest: ManifestCheck,
        remove_missing: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self.settle_time = settle_time
        self._check_manifest = check_manifest
        self.remove_missing = remove_missing
        self._clock = clock
        self._wall_clock = wall_clock
        self._watched: dict[Path, _Watched] = {}
        self._last: dict[str, ModelScan] = {}
        self._configs: dict[str, _Read] = {}
        self._warned: dict[str, str] = {}

    def poll(self, intents: Mapping[str, Intent]) -> Scan:
        """Look once. Never raises: what goes wrong is logged once and told in the ``problem`` fields."""
        try:
            names = sorted(
                entry.name
                for entry in self._repository.iterdir()
                if not is_ignored(entry.name) and _is_directory(entry)
            )
        except OSError as error:
            problem = f"{self._repository}: cannot be listed: {error.strerror or error}; keeping what serves"
            self._warn("", problem)
            return Scan(dict(self._last), problem)
        self._warn("", "")
        models: dict[str, ModelScan] = {}
        for name in names:
            scan = self._poll_model(name, intents.get(name, NO_INTENT))
            if scan is not None:
                models[name] = scan
        models.update(self._gone(set(names)))
        self._last = models
        return Scan(models)

    def _gone(self, present: set[str]) -> dict[str, ModelScan]:
        """Models whose directory vanished: kept, unless ``remove_missing``."""
        kept: dict[str, ModelScan] = {}
        for name, last in self._last.items():
            if name in present or not last.found:
                continue
            if self.remove_missing:
                self._warn(name, "")
                continue
            problem = (
                f"{self._repository / name}: the directory is gone; keeping what serves "
                "(unload the model by hand, or set remove_missing)"
            )
            self._warn(name, problem)
            kept[name] = msgspec.structs.replace(last, problem=problem)
        return kept

    def _poll_model(self, name: str, intent: Intent) -> ModelScan | None:
        directory = self._repository / name
        last = self._last.get(name)
        try:
            found = _list_versions(directory)
        except OSError as error:
            problem = f"{directory}: cannot be read: {error.strerror or error}; keeping what serves"
            self._warn(name, problem)
            last = last or ModelScan(name, ModelConfig())
            return msgspec.structs.replace(last, problem=problem)
        if not found and last is None and not (directory / CONFIG_NAME).exists():
            return None
        read, problem = self._read_config(name)
        held: dict[int, str] = {}
        accepted: dict[int, Candidate] = {}
        settling = False

        def ready(version: int) -> bool:
            nonlocal settling
            candidate, reason, passing = self._examine(version, found[version])
            if reason:
                held[version] = reason
                settling = settling or passing
            if candidate is not None:
                accepted[version] = candidate
            return candidate is not None

        # Without a configuration that was ever valid, nothing is known about how these versions are to run.
        aspired = set[int]() if read is None else select_versions(found, read.config, intent, ready)
        config, named = read or _Read(ModelConfig())
        self._forget(directory, found)
        self._warn(name, problem)
        return ModelScan(
            name=name,
            config=config,
            aspired={version: accepted[version] for version in sorted(aspired)},
            held=held,
            settling=settling,
            found=tuple(sorted(found)),
            problem=problem,
            written=named,
        )

    def _read_config(self, name: str) -> tuple[_Read | None, str]:
        """(configuration or the last valid one, problem); ``None`` if it never was valid."""
        path = self._repository / name / CONFIG_NAME
        try:
            raw = read_toml(path)
            config = parse_model_config(raw, source=path)
        except InvalidArgumentError as error:
            known = self._configs.get(name)
            effect = "not loading the model" if known is None else "keeping the configuration from before"
            return known, f"{error.message}; {effect}"
        read = self._configs[name] = _Read(config, written(raw, config))
        return read, ""

    def _examine(self, version: int, path: Path) -> tuple[Candidate | None, str, bool]:
        """(what may be loaded, why not or why not the newest, whether that passes by itself)."""
        watched = self._watched.get(path)
        accepted = None if watched is None else watched.accepted
        try:
            seen = fingerprint(path)
        except OSError as error:
            return accepted, f"{path}: cannot be read: {error.strerror or error}", False
        now = self._clock()
        if watched is None or watched.activity != seen.activity:
            watched = _Watched(seen.activity, now, accepted)
            self._watched[path] = watched
        if accepted is not None and accepted.content == seen.content:
            return accepted, "", False
        reason, passing = self._incomplete(path, seen, now - watched.since)
        if reason:
            return accepted, reason, passing
        watched.accepted = Candidate(version, path, seen.content)
        return watched.accepted, "", False

    def _incomplete(self, path: Path, seen: Fingerprint, unchanged: float) -> tuple[str, bool]:
        """(why the version is not complete, whether that passes by itself); ``("", False)`` if it is."""
        if seen.files == 0:
            return "the directory is empty", False
        if (path / MANIFEST_NAME).is_file():
            verdict = self._check_manifest(path, seen.activity)
            if verdict is None:
                return "the manifest is being verified", True
            return verdict, False
        age = self._wall_clock() - seen.newest
        # Either clock will do: the first look need not wait for old files, and files from the future settle.
        if max(unchanged, age) < self.settle_time:
            return f"files are still changing (waiting for {self.settle_time:g} s without a change)", True
        return "", False

    def _forget(self, directory: Path, found: Mapping[int, Path]) -> None:
        present = set(found.values())
        for path in [path for path in self._watched if path.parent == directory and path not in present]:
            del self._watched[path]

    def _warn(self, subject: str, problem: str) -> None:
        """Log a problem when it appears and when it is over, not at every look."""
        before = self._warned.get(subject, "")
        if problem == before:
            return
        if problem:
            self._warned[subject] = problem
            _log.warning("%s", problem)
        else:
            del self._warned[subject]
            _log.info("%s: readable again", self._repository / subject)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # A link into a place that may not be entered: one bad entry must not end the listing.
        return False


def _list_versions(directory: Path) -> dict[int, Path]:
    """Version number -> directory. Of two spellings of a number (``1`` and ``01``) the shorter counts."""
    found: dict[int, Path] = {}
    for entry in sorted(directory.iterdir(), key=lambda entry: (len(entry.name), entry.name)):
        name = entry.name
        if name.isascii() and name.isdigit() and _is_directory(entry):
            version = int(name)
            if version <= _MAX_VERSION:
                found.setdefault(version, entry)
    return found
