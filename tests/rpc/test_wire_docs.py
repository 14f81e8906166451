"""docs/protocol.md says the same as the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tensorwire.rpc.types import DTYPE_NAMES
from tensorwire.rpc.wire import prefix
from tensorwire.rpc.wire.prefix import Kind
from vectors.read import load

DOCS = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def test_the_prefix_table_is_the_struct() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d) \| `(\w+)` \|", DOCS, re.MULTILINE)
    fields = ["magic", "version", *prefix.Prefix.__struct_fields__]
    assert [name for *_, name in rows] == fields
    offset = 0
    for at, size, _ in rows:
        assert int(at) == offset
        offset += int(size)
    assert offset == prefix.PREFIX_SIZE
    assert f'struct.Struct("{prefix.PREFIX.format}")' in DOCS


def test_the_kinds_are_listed() -> None:
    rows = re.findall(r"^\| (\d) \| ([A-Z_]+) \| to the", DOCS, re.MULTILINE)
    assert [(int(value), name) for value, name in rows] == [(kind.value, kind.name) for kind in Kind]


def test_every_dtype_is_named() -> None:
    assert [name for name in sorted(DTYPE_NAMES) if f"`{name}`" not in DOCS] == []


@pytest.mark.parametrize(
    "text",
    [
        f"| requests in a message (`count`) | {prefix.MAX_COUNT} |",
        f"| header of a REQUEST or REPLY | {prefix.MAX_HEADER} bytes |",
        f"| extra | {prefix.MAX_EXTRA} bytes |",
        f"| tensors in a message | {prefix.MAX_TENSORS} |",
        f"| dimensions in a header's shape | {prefix.MAX_RANK - 1} |",
    ],
)
def test_the_limits_are_the_codes(text: str) -> None:
    assert text in DOCS


@pytest.mark.parametrize(
    ("file", "name"), [("requests", "single"), ("replies", "single"), ("errors", "range")]
)
def test_the_examples_are_the_vectors(file: str, name: str) -> None:
    (vector,) = [vector for vector in load(file) if vector["name"] == name]
    examples = re.findall(r"```\n(.*?)```", DOCS, re.DOTALL)
    found = [
        bytes.fromhex(
            "".join(
                "".join(re.match(r"\s*\d*\s+((?:[0-9a-f]{2} ?)*)", line)[1])  # type: ignore[index]
                for line in example.splitlines()
            )
        )
        for example in examples
        if "54 57 49 52" in example
    ]
    assert vector["frames"][0] in found
