"""What a sweep leaves behind: model.toml and the plot."""

from __future__ import annotations

import builtins
import struct
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import PRESENT, Simulated, outcome, plan, sweep
from tensorwire.bench.tune import toml
from tensorwire.bench.tune.outcome import Outcome
from tensorwire.bench.tune.plot import NoPlotter, draw
from tensorwire.bench.tune.points import Point
from tensorwire.manager.config import parse_model_config


@pytest.fixture(scope="module")
def found() -> Outcome:
    how = plan()
    return outcome(sweep(Simulated(), how), how)


# ---------------------------------------------------------------- model.toml

BEST = Point("process", 4, 32, 0.002)


@pytest.mark.parametrize(
    ("chosen", "sizes", "said", "expected"),
    [
        (PRESENT, (), (), {}),
        (PRESENT, (), ("workers.count",), {"workers.count": 1}),
        (Point("thread", 2, 32, 0.0), (), (), {"workers.count": 2}),
        (Point("thread", 1, 8, 0.0), (), (), {"batching.max_batch_size": 8}),
        (Point("thread", 1, 32, 0.001), (), (), {"batching.max_queue_delay": 0.001}),
        # The default count is another one for another kind.
        (Point("process", 1, 32, 0.0), (), (), {"workers.kind": "process", "workers.count": 1}),
        (Point("thread", 1, 8, 0.0), (4, 8, 32), (), {"batching.allowed_batch_sizes": [4, 8]}),
    ],
)
def test_only_what_is_not_the_default_is_said(
    chosen: Point, sizes: tuple[int, ...], said: tuple[str, ...], expected: dict[str, Any]
) -> None:
    assert toml.recommended(chosen, PRESENT, sizes, said) == expected


def test_a_file_of_its_own_is_complete_and_says_what_was_measured(found: Outcome) -> None:
    values = toml.recommended(BEST, PRESENT, (), ())
    text = toml.write(found, values, {"limits.max_in_flight": 100, "workers.cpus": "0-1"})
    config = parse_model_config(tomllib.loads(text), source="model.toml")
    assert (config.workers.kind, config.workers.count, config.workers.cpus) == ("process", 4, "0-1")
    assert (config.batching.max_queue_delay, config.limits.max_in_flight) == (0.002, 100)
    assert config.batching.max_batch_size is None
    head = text.partition("\n\n")[0]
    assert all(line.startswith("# ") for line in head.splitlines())
    for words in (
        "meets p99 <= 20 ms: thread x4, batch 32",
        "requests/s",
        "before: ",
        "a processor, 2 cores",
    ):
        assert words in head
    assert "count = 4  # before: 1; measured: 1, 2, 4" in text
    assert "Every setting is the default" in toml.write(found, {}, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine\n",
        "[workers]\ncount = 2 # two\ncpus = '0'\n\n[labels]\nstable = 3\n",
        "workers.count = 2\nbatching.max_batch_size = 64\nversions.policy = 'all'\n\n[labels]\nstable = 1\n",
        "[ batching ]\nmax_queue_delay = 0.1\n[engine.options]\ncount = 5\nkind = 'x'\n",
        "[[inputs]]\nname = 'x'\ndtype = 'float32'\nshape = [-1]\n",
        "[batching]\nallowed_batch_sizes = [4, 8]\n",
    ],
)
def test_values_are_laid_into_a_file_and_nothing_else_changes(text: str) -> None:
    values = toml.recommended(BEST, PRESENT, (), ())
    merged = toml.merge(text, values, ["# remark"])
    before, after = tomllib.loads(text), tomllib.loads(merged)
    assert after["workers"] == {
        **{key: value for key, value in before.get("workers", {}).items() if key == "cpus"},
        "kind": "process",
        "count": 4,
    }
    assert after["batching"] == {"max_queue_delay": 0.002}
    others = {key for key in before if key not in ("workers", "batching")}
    assert {key: after[key] for key in others} == {key: before[key] for key in others}
    assert merged.startswith("# remark\n")
    assert ("# mine" in text) == ("# mine" in merged)
    # Once more changes nothing but the remark.
    assert tomllib.loads(toml.merge(merged, values, [])) == after


@pytest.mark.parametrize(
    "text",
    [
        "workers = {count = 2}\n",
        "[batching]\nallowed_batch_sizes = [\n  4,\n  8,\n]\n",
        "[workers\n",
        "[workers]\n'count' = 2\n",
        "description = '''\nworkers.count = 2\n'''\n",
        "description = '''\n[workers]\n'''\n",
    ],
)
def test_what_is_not_understood_is_left_alone(text: str) -> None:
    with pytest.raises(toml.CannotMerge):
        toml.merge(text, {"workers.count": 4}, [])


@given(
    st.dictionaries(
        st.sampled_from(
            ["workers.count", "batching.max_batch_size", "limits.max_in_flight", "labels.stable"]
        ),
        st.integers(1, 9),
    ),
    st.booleans(),
)
def test_merged_files_say_what_they_must(before: dict[str, int], dotted: bool) -> None:
    if dotted:
        text = "".join(f"{key} = {value}\n" for key, value in before.items())
    else:
        text = ""
        for section in sorted({key.partition(".")[0] for key in before}):
            text += f"[{section}]\n"
            text += "".join(
                f"{key.partition('.')[2]} = {value}\n"
                for key, value in before.items()
                if key.startswith(section)
            )
    after = tomllib.loads(toml.merge(text, {"workers.count": 12}, ["# remark"]))
    assert after["workers"]["count"] == 12
    assert "max_batch_size" not in after.get("batching", {})
    assert after.get("limits", {}).get("max_in_flight") == before.get("limits.max_in_flight")
    assert after.get("labels", {}).get("stable") == before.get("labels.stable")


# ---------------------------------------------------------------- plot


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("objective", [0.02, 0.0001])
def test_the_plot_is_a_picture(tmp_path: Path, objective: float) -> None:
    pytest.importorskip("matplotlib")
    how = plan(objective=objective)
    site = Simulated(refused=lambda point: "no" if point.count == 2 else "")
    site.errors = lambda point, callers: {"INTERNAL": 1} if point.delay else {}
    png, svg = draw(outcome(sweep(site, how), how), tmp_path)
    width, height = png_size(png)
    assert 1000 < width < 3000
    assert 500 < height < 2000
    assert 20_000 < png.stat().st_size < 1_000_000
    text = svg.read_text()
    assert "<svg" in text
    assert text.rstrip().endswith("</svg>")


def test_a_plot_of_one_point_and_of_none(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    how = plan(budget=1.0, callers=(4,))
    one = outcome(sweep(Simulated(), how), how)
    assert len(one.lines) >= 1
    assert len(draw(one, tmp_path)) == 2
    nothing = outcome(sweep(Simulated(), how, run=False), how)
    assert draw(nothing, tmp_path) == []


def test_without_matplotlib_it_says_what_to_install(
    found: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(NoPlotter, match=r"pip install 'tensorwire\[tune\]'"):
        draw(found, tmp_path)
