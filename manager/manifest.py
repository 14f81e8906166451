"""The optional manifest of a version: ``MANIFEST.sha256`` as ``sha256sum`` writes and checks it."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from ..rpc.errors import AbortedError, DataLossError, InvalidArgumentError

MANIFEST_NAME: Final = "MANIFEST.sha256"

_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_CHUNK: Final = 1 << 20


def parse_manifest(text: str) -> dict[str, str]:
    """Relative path -> SHA-256 in lower-case hex.

    Raises:
        InvalidArgumentError: a line is not ``<64 hex digits>  <relative path>``, a path leaves the
            directory or comes twice, or nothing is listed.
    """
    entries: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise InvalidArgumentError(
                f"line {number}: found {line[:80]!r}; expected '<64 hex digits>  <relative path>'"
            )
        path = PurePosixPath(match[2])
        if path.is_absolute() or ".." in path.parts or "\0" in match[2] or not path.parts:
            raise InvalidArgumentError(f"line {number}: path {match[2]!r} leaves the version directory")
        if str(path) in entries:
            raise InvalidArgumentError(f"line {number}: path {match[2]!r} is listed twice")
        entries[str(path)] = match[1].lower()
    if not entries:
        raise InvalidArgumentError("no files are listed; expected one line per file")
    return entries


def verify_manifest(directory: Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Check every file that the manifest of a version directory lists.

    Args:
        directory: the version directory.
        stop: asked between chunks of 1 MiB; true ends the check.

    Raises:
        DataLossError: the manifest cannot be read, a file is missing or its contents differ.
        AbortedError: ``stop`` said so.
    """
    try:
        entries = parse_manifest((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InvalidArgumentError) as error:
        detail = error.message if isinstance(error, InvalidArgumentError) else str(error)
        raise DataLossError(f"{MANIFEST_NAME}: {detail}") from error
    missing = [name for name in entries if not (directory / name).is_file()]
    if missing:
        raise DataLossError(f"{MANIFEST_NAME}: {len(missing)} of {len(entries)} files missing: {missing[0]}")
    for name, expected in entries.items():
        try:
            found = _sha256(directory / name, stop)
        except OSError as error:
            raise DataLossError(f"{MANIFEST_NAME}: {name} cannot be read: {error.strerror}") from error
        if found != expected:
            raise DataLossError(
                f"{MANIFEST_NAME}: {name} has sha256 {found[:12]}..., expected {expected[:12]}...; "
                "copy the version again"
            )


def _sha256(path: Path, stop: Callable[[], bool]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if stop():
                raise AbortedError("the check was stopped")
            digest.update(chunk)
    return digest.hexdigest()


class BackgroundCheck:
    """Verifies manifests on other threads, so that a large version does not hold up the look at the others.

    Args:
        submit: runs a job elsewhere, soon.
        done: called after each verification.
    """

    def __init__(self, submit: Callable[[Callable[[], None]], object], done: Callable[[], None]) -> None:
        self._submit = submit
        self._done = done
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        #: directory -> (what it looked like, verdict; ``None`` = under way)
        self._verdicts: dict[Path, tuple[str, str | None]] = {}

    def __call__(self, directory: Path, activity: str) -> str | None:
        """``None`` = under way, ``""`` = every file is right, else what is wrong."""
        with self._lock:
            known = self._verdicts.get(directory)
            if known is not None and known[0] == activity:
                return known[1]
            self._verdicts[directory] = (activity, None)
        self._submit(partial(self._verify, directory, activity))
        with self._lock:
            # A submit that runs the job at once has the verdict ready.
            return self._verdicts[directory][1]

    def stop(self) -> None:
        """End running verifications at their next chunk."""
        self._stopped.set()

    def _verify(self, directory: Path, activity: str) -> None:
        try:
            verify_manifest(directory, self._stopped.is_set)
            verdict = ""
        except AbortedError:
            return
        except DataLossError as error:
            verdict = error.message
        except OSError as error:
            verdict = f"{MANIFEST_NAME}: cannot be verified: {error}"
        with self._lock:
            current = self._verdicts[directory][0] == activity
            if current:
                self._verdicts[directory] = (activity, verdict)
        if current:
            self._done()
