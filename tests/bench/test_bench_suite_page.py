"""The page of a run made by hand: complete, and sufficient unto itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from suites import CPP, FUSED, GRPC, UNFUSED, histogram, info, measured, point, rounds, suite
from tensorwire.bench.suite.page import page, write_page
from tensorwire.bench.suite.results import Axis, Ceiling, NotRun, Split, Suite
from tensorwire.bench.suite.styles import styles

for needed in ("jinja2", "matplotlib"):
    pytest.importorskip(needed, reason="pip install 'tensorwire[bench]'")

#: Elements that end themselves.
VOID = frozenset({"meta", "link", "br", "img", "hr"})
HOSTILE = "<script>alert(1)</script> & \"peer\" 'x'"


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects ids, links, text and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")


def whole() -> Suite:
    """Every kind of plot, with a name that is no good HTML."""
    tail = {"rounds": rounds(1000, histogram=histogram(), offered=1000.0), "callers": 0}
    refusing = {"rounds": rounds(900, refused=90, refused_p50=0.001, refused_p99=0.002)}
    category = Axis(name="load", scale="category")
    systems = (FUSED, UNFUSED, GRPC, HOSTILE)
    return suite(
        [
            *(point(system, 1000 * (index + 1), x) for x in (16, 64) for index, system in enumerate(systems)),
            *(
                point(system, 1, x, scenario="C", variant=variant, **tail)
                for x, variant in ((0, ""), (1, "control"))
                for system in (FUSED, GRPC)
            ),
            *(point(system, 1, x, scenario="H", **refusing) for x in (0, 1, 2) for system in (FUSED, GRPC)),
        ],
        [
            info("A", *systems, CPP),
            info("C", FUSED, GRPC, axis=category, figure="p99"),
            info("H", FUSED, GRPC, axis=category),
        ],
        ceilings=[Ceiling(client="null", systems=(FUSED,), concurrency=50, throughput=1000.0)],
        splits=[Split(system=FUSED, concurrency=50, rpc=1e-5, engine=2e-5, both=2.5e-5, predicted=3e-5)],
        not_run=[NotRun(system=CPP, reason=HOSTILE)],
        options={FUSED: "one <connection>"},
    )


@pytest.fixture(scope="module")
def text() -> str:
    return page(whole())


def test_it_is_well_formed_and_ids_are_unique(text: str) -> None:
    reader = Reader(text)
    assert len(set(reader.ids)) == len(reader.ids)
    for link in reader.links:
        assert link == "data:," or link[1:] in reader.ids, link


def test_it_needs_no_network(text: str) -> None:
    reader = Reader(text)
    assert not reader.tags & {"script", "iframe", "object", "embed", "img", "base"}
    assert re.findall(r"https?:|//[a-z]|@import|url\((?!#)", text) == []


def test_it_contains_every_scenario_and_system(text: str) -> None:
    told = " ".join("".join(Reader(text).words).split())
    for wanted in (
        FUSED,
        UNFUSED,
        GRPC,
        CPP,
        HOSTILE,
        "title of A",
        "title of C",
        "title of H",
        "one <connection>",
    ):
        assert wanted in told
    assert text.count("<svg") > 8
    assert all(name in text for name in ('id="scenario-1"', 'id="scenario-3"', 'id="split"', 'id="not-run"'))
    assert "hollow mark" in told


def test_plots_have_alternative_texts(text: str) -> None:
    assert len(re.findall(r'<svg[^>]* role="img"', text)) == text.count("<svg")
    assert 'aria-label="A title of A: throughput against request size' in text


def test_what_is_slower_comes_before_the_contents(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(suite([point(FUSED, 500), point(GRPC, 1000)]), path)
    before = path.read_text().partition("<nav")[0]
    assert f"{FUSED} has 0.5x of {GRPC}&#39;s throughput" in before
    assert 'class="answer no"' in before


def test_worse_tails_come_before_the_contents_and_nothing_denies_them() -> None:
    ours, theirs = rounds(9000, p99=0.02), rounds(1000, p99=0.01)
    text = page(suite([point(FUSED, 9000, rounds=ours), point(GRPC, 1000, rounds=theirs)]))
    before = text.partition("<nav")[0]
    assert f"{FUSED} has 2x {GRPC}&#39;s p99" in before
    assert "Nowhere is shown" not in text


@pytest.mark.parametrize(
    "found",
    [
        suite([], []),
        suite([]),
        suite([point(FUSED, 0, rounds=[], failures=["gone"])], interrupted=True),
        suite([point(FUSED, 0, rounds=[measured(0, errors={"UNAVAILABLE": 3})])]),
        suite([point(FUSED, 10, rounds=[measured(10)]), point(FUSED, 20, 128, rounds=[measured(20)])]),
        suite([point(FUSED, 10, 0)], [info(axis=Axis(name="load"))]),
        suite([point(FUSED, 10, rounds=[measured(server_cpu_per_request=0.0)]), point(FUSED, 10, 16)]),
        suite([point(FUSED, 10, 0), point(FUSED, 10, 1)], [info(axis=Axis(name="n", scale="linear"))]),
    ],
    ids=["no-scenarios", "no-points", "failures", "errors", "one-round", "zero-along", "zero-up", "linear"],
)
def test_odd_runs_give_a_page(found: Suite) -> None:
    Reader(page(found))


def test_a_system_looks_the_same_in_every_run() -> None:
    every = styles([FUSED, UNFUSED, GRPC, CPP, "Triton", "something else"])
    assert styles([GRPC])[GRPC] == every[GRPC]
    assert len({(one.colour, one.dash, one.marker) for one in every.values()}) == len(every)
