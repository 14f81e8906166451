"""What the pages promise: links lead somewhere, and the code in README.md runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("rpc", "manager", "server", "client", "bench", "examples", "tests", "docs")
PAGES = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
BLOCK = re.compile(r"<!-- tested: (?P<name>\S+) -->\n```python\n(?P<code>.*?)```", re.DOTALL)
DEFAULT_ADDRESS = "tcp://127.0.0.1:8700"


def anchors(page: Path) -> set[str]:
    """Names of a page's headings in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: no {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: no heading for {target}"


def test_decisions_that_the_code_names_are_there_and_listed() -> None:
    pages = {path.name[:4]: path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md")}
    index = (ROOT / "docs/decisions/README.md").read_text()
    assert [name for name in pages.values() if f"({name})" not in index] == []
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    named = {
        (number, path.name)
        for path in sources
        for number in re.findall(r"docs/decisions/(\d{4})", path.read_text())
    }
    assert {(number, name) for number, name in named if number not in pages} == set()


def blocks() -> dict[str, str]:
    return {match["name"]: match["code"] for match in BLOCK.finditer((ROOT / "README.md").read_text())}


def test_the_example_of_the_readme(serve, tmp_path: Path) -> None:
    found = blocks()
    model, client = found["models/scorer/1/model.py"], found["client"]
    path = tmp_path / "models/scorer/1/model.py"
    path.parent.mkdir(parents=True)
    path.write_text(model)
    server = serve(tmp_path / "models")
    assert DEFAULT_ADDRESS in client
    done = subprocess.run(
        [sys.executable, "-c", client.replace(DEFAULT_ADDRESS, server.endpoint)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    promised = re.findall(r"# (.+)$", client, re.MULTILINE)
    assert lines[:2] == promised[:2]
    assert lines[2].startswith("3 INVALID_ARGUMENT")
    assert re.search(r"found|has shape", lines[2])
    assert "expected x: float32[?, 4]" in lines[2]


def test_the_example_of_the_readme_is_ten_lines() -> None:
    code = [line for line in blocks()["client"].splitlines() if line.strip()]
    assert len(code) <= 11
