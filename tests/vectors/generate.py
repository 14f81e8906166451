"""Writes the protocol's test vectors: ``python tests/vectors/generate.py``.

The files are committed, and read by the tests of every implementation; README.md says how they are laid out.
A test compares what this script would write with what is there, so a change of the bytes is never silent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))  # when it is run as a script

from vectors import malformed, messages  # noqa: E402
from vectors.describe import Json  # noqa: E402


def write(name: str, description: str, vectors: Sequence[Json]) -> str:
    """The text of one file."""
    names = [vector["name"] for vector in vectors]
    assert len(set(names)) == len(names), f"names repeat in {name}"
    document = {"protocol_version": 1, "description": description, "vectors": vectors}
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def files() -> dict[str, str]:
    """Every file and its text."""
    return {
        "requests.json": write("requests", "REQUEST messages.", list(messages.requests())),
        "replies.json": write("replies", "REPLY messages.", list(messages.replies())),
        "errors.json": write("errors", "ERROR messages.", list(messages.errors())),
        "controls.json": write(
            "controls", "CANCEL, PING, PONG, CONTROL and CONTROL_REPLY messages.", list(messages.controls())
        ),
        "malformed.json": write(
            "malformed",
            "Messages that must be refused: what the receiver answers, or does with the calls concerned.",
            list(malformed.malformed()),
        ),
    }


if __name__ == "__main__":
    for file_name, text in files().items():
        (FOLDER / file_name).write_text(text)
