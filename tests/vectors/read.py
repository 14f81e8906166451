"""Reads the vectors back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def frame_of(text: str) -> bytes:
    """The bytes of a frame: hexadecimal digits, runs as ``00*1234``, between commas."""
    parts: list[bytes] = []
    for part in text.split(","):
        digits, _, times = part.partition("*")
        parts.append(bytes.fromhex(digits) * int(times or 1))
    return b"".join(parts)


def load(*names: str) -> list[dict[str, Any]]:
    """The vectors of some files; ``frames`` are bytes."""
    return [
        {**vector, "file": name, "frames": [frame_of(text) for text in vector["frames"]]}
        for name in names
        for vector in json.loads((FOLDER / f"{name}.json").read_text())["vectors"]
    ]
