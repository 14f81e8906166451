"""A run made by hand, put into a page of the documentation."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from suites import FUSED, GRPC, histogram, info, point, rounds, suite
from tensorwire.bench.suite.docs import BEGIN, END, NoMarks, write_docs
from tensorwire.bench.suite.results import Split

pytest.importorskip("matplotlib", reason="pip install 'tensorwire[bench]'")

PAGE = f"# The benchmark\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
DOCS = Path(__file__).parents[2] / "docs" / "benchmark.md"


def test_the_summary_stands_between_the_marks_and_links_its_plots(tmp_path: Path) -> None:
    page = tmp_path / "benchmark.md"
    page.write_text(PAGE)
    stale = tmp_path / "benchmark" / "stale.svg"
    stale.parent.mkdir()
    stale.write_text("<svg/>")
    tail = rounds(10, histogram=histogram(), requests=2000)
    found = suite(
        [
            *(point(system, 1000, x) for system in (FUSED, GRPC) for x in (16, 64)),
            *(point(system, 10, scenario="C", rounds=tail) for system in (FUSED, GRPC)),
        ],
        [info("A"), info("C", figure="p99")],
        splits=[Split(system=FUSED, concurrency=50, rpc=1e-5, engine=2e-5, both=2.5e-5, predicted=3e-5)],
    )
    for _ in range(2):  # what one run wrote, the next one replaces
        written = write_docs(found, page)
    text = page.read_text()
    assert text.startswith("# The benchmark\n\nBefore.")
    assert text.endswith(f"{END}\n\nAfter.\n")
    assert text.count(BEGIN) == text.count("### Should we replace gRPC?") == 1
    assert "old" not in text
    pictures = written[1:]
    assert {path.name for path in pictures} == {"A-throughput.svg", "C-latency.svg", "split.svg"}
    assert sorted(stale.parent.iterdir()) == sorted(pictures)
    for picture in pictures:
        assert f"(benchmark/{picture.name})" in text
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")
        assert "#010101" not in picture.read_text()


@pytest.mark.parametrize(
    "text", ["", END + BEGIN, f"{BEGIN}\n{BEGIN}\n{END}"], ids=["none", "order", "twice"]
)
def test_a_page_without_the_marks_is_refused(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(NoMarks, match=r"page\.md must hold"):
        write_docs(suite([]), page)
    assert page.read_text() == text


def test_our_page_has_the_marks() -> None:
    text = DOCS.read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)
