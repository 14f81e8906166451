"""Fingerprints of version directories, and which names in a repository do not count."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

_TEMPORARY_SUFFIXES: Final = (
    "~",
    ".tmp",
    ".temp",
    ".part",
    ".partial",
    ".swp",
    ".crdownload",
    ".filepart",
    ".incomplete",
)
#: Written by the interpreter when it imports a model's code, and by file systems.
_NOT_CONTENT: Final = frozenset({"__pycache__", "lost+found"})
#: Ends the walk where a symbolic link points at its own parent.
_MAX_DEPTH: Final = 16


def is_ignored(name: str) -> bool:
    """Whether a model or version directory is passed over: hidden (``.x``, ``_x``) or temporary."""
    return name.startswith("_") or name in _NOT_CONTENT or is_temporary(name)


def is_temporary(name: str) -> bool:
    """Hidden (``.x``) and temporary file names (``x.tmp``, ``x.part``, ``x~``, ...)."""
    return name.startswith(".") or name.lower().endswith(_TEMPORARY_SUFFIXES)


class Fingerprint(msgspec.Struct, frozen=True):
    """What a version directory looks like.

    ``content`` changes with the files that count; ``activity`` also with hidden and temporary ones, because
    they show that a copy is under way (rsync writes ``.model.onnx.Xa31bc`` first). ``newest`` is the latest
    change of anything, seconds since the epoch.
    """

    content: str
    activity: str
    newest: float
    files: int


def fingerprint(directory: Path) -> Fingerprint:
    """Look at every file of a version directory, by name, size and time of change.

    Raises:
        OSError: the directory cannot be read.
    """
    content, activity = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    status = os.stat(directory)
    newest, files = _changed(status), 0
    for path, entry, ignored in _walk(directory, "", False, _MAX_DEPTH):
        newest = max(newest, _changed(entry))
        line = f"{path}\0{entry.st_size}\0{entry.st_mtime_ns}\n".encode(errors="surrogateescape")
        activity.update(line)
        if not ignored:
            content.update(line)
            files += 1
    return Fingerprint(content.hexdigest(), activity.hexdigest(), newest, files)


def _changed(status: os.stat_result) -> float:
    # The time of change too: copies that preserve the modification time look old while they are written.
    return max(status.st_mtime, status.st_ctime)


def _walk(
    directory: Path, prefix: str, ignored: bool, depth: int
) -> Iterator[tuple[str, os.stat_result, bool]]:
    """(relative path, stat, ignored) of every file, in a stable order; symbolic links are followed."""
    with os.scandir(directory) as entries:
        listing = sorted(entries, key=lambda entry: entry.name)
    for entry in listing:
        if entry.name in _NOT_CONTENT or entry.name.endswith(".pyc"):
            continue
        hidden = ignored or is_temporary(entry.name)
        relative = prefix + entry.name
        try:
            if not entry.is_dir():
                yield relative, entry.stat(), hidden
            elif depth > 0:
                yield from _walk(Path(entry.path), f"{relative}/", hidden, depth - 1)
        except FileNotFoundError:
            # Renamed between listing and looking (the end of a copy), or a dangling link.
            continue
