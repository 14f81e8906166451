"""What kind of files are these? Magika decides from the first and the last 1024 bytes.

    python examples/file_type.py PATH... [--server tcp://127.0.0.1:8700 | --local REPOSITORY]

All files go to the server in one request, one row per file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from packages import package_file
from predictors import Predict, add_arguments, open_predict

MODEL = "file_type"
#: The model sees this many bytes of each end, taken from blocks of BLOCK bytes after trimming white space.
END, BLOCK, PADDING = 1024, 4096, 256
#: Shorter files are not worth a model.
SHORTEST = 8


@dataclass(frozen=True)
class FileType:
    """Magika's label (``"python"``), the same in words, and the model's probability for it."""

    label: str
    description: str
    confidence: float


@cache
def _labels() -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's configuration (labels, thresholds) and what is known about each label."""
    config = package_file("magika", "magika/models/*/config.min.json")
    knowledge = package_file("magika", "magika/config/content_types_kb.min.json")
    return json.loads(config.read_bytes()), json.loads(knowledge.read_bytes())


def features(head: bytes, tail: bytes) -> np.ndarray:
    """The model's input row, int32[2048], from the first and the last (at most) 4096 bytes of a file."""
    row = np.full(2 * END, PADDING, np.int32)
    first = np.frombuffer(head.lstrip()[:END], np.uint8)
    last = np.frombuffer(tail.rstrip()[-END:], np.uint8)
    row[: first.size] = first
    row[2 * END - last.size :] = last
    return row


def classify_bytes(contents: Sequence[bytes], predict: Predict) -> list[FileType]:
    """Type of each content; one request for all of them."""
    return _classify([(data[:BLOCK], data[-BLOCK:]) for data in contents], predict)


def classify_files(paths: Sequence[Path], predict: Predict) -> list[FileType]:
    """Type of each file; reads at most 8 kB of each, and makes one request for all of them."""
    return _classify([_ends(path) for path in paths], predict)


def _ends(path: Path) -> tuple[bytes, bytes]:
    with path.open("rb") as file:
        head = file.read(BLOCK)
        size = file.seek(0, 2)
        file.seek(max(0, size - BLOCK))
        return head, file.read(BLOCK)


def _classify(ends: Sequence[tuple[bytes, bytes]], predict: Predict) -> list[FileType]:
    rows = {i: features(*end) for i, end in enumerate(ends) if len(end[0].strip()) >= SHORTEST}
    found = {i: _of_few_bytes(end[0]) for i, end in enumerate(ends) if i not in rows}
    if rows:
        outputs = predict(MODEL, {"bytes": np.stack(list(rows.values()))})
        found |= dict(zip(rows, map(interpret, outputs["target_label"]), strict=True))
    return [found[i] for i in range(len(ends))]


def interpret(probabilities: np.ndarray) -> FileType:
    """The most probable label, or "some text" and "unknown" where the model is not sure enough of it."""
    config, knowledge = _labels()
    best = int(probabilities.argmax())
    confidence = float(probabilities[best])
    guess = config["target_labels_space"][best]
    label = config["overwrite_map"].get(guess, guess)
    if confidence < config["thresholds"].get(guess, config["medium_confidence_threshold"]):
        label = "txt" if knowledge[label]["is_text"] else "unknown"
    return _file_type(label, confidence)


def _of_few_bytes(data: bytes) -> FileType:
    if not data:
        return _file_type("empty", 1.0)
    try:
        data.decode()
    except UnicodeDecodeError:
        return _file_type("unknown", 1.0)
    return _file_type("txt", 1.0)


def _file_type(label: str, confidence: float) -> FileType:
    return FileType(label, _labels()[1][label]["description"], confidence)


def main(arguments: list[str] | None = None) -> int:
    """Command line: one line per file."""
    parser = argparse.ArgumentParser(description="What kind of files are these?")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    with open_predict(options) as predict:
        found = classify_files(options.paths, predict)
    for path, kind in zip(options.paths, found, strict=True):
        print(f"{path}: {kind.description} ({kind.label}, {kind.confidence:.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
