"""Live values over model.toml: what they come to, and when they end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorwire.manager.config import (
    BatchingConfig,
    EngineConfig,
    ModelConfig,
    WorkersConfig,
    parse_model_config,
)
from tensorwire.manager.tuning import KEYS, changed, flat, lay_over, outlasting, written
from tensorwire.rpc.errors import InvalidArgumentError

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "workers.kind": st.sampled_from(["thread", "process", None]),
    "workers.count": st.none() | st.integers(1, 1024),
    "workers.cpus": st.sampled_from([None, "0", "0-3,6"]),
    "workers.device": st.sampled_from([None, "0", "1,0"]),
    "workers.hang_timeout": st.floats(0, 86_400),
    "batching.enabled": st.sampled_from([None, True]),
    "batching.max_batch_size": st.none() | st.integers(1, 4096),
    "batching.max_queue_delay": st.floats(0, 10),
    "limits.max_queued_rows": st.integers(1, 2**40),
    "limits.max_in_flight": st.integers(1, 2**40),
    "engine.intra_op_threads": st.none() | st.integers(1, 1024),
    "engine.inter_op_threads": st.none() | st.integers(1, 1024),
}
SIZES = {"batching.allowed_batch_sizes": st.sets(st.integers(1, 64)).map(lambda s: tuple(sorted(s)))}
live_values = st.fixed_dictionaries({}, optional=VALUES)
#: These may contradict each other.
any_values = st.fixed_dictionaries({}, optional={**VALUES, **SIZES})


def test_everything_about_how_a_model_is_run_can_be_set() -> None:
    assert {*VALUES, *SIZES} == {*KEYS}


@given(live_values, live_values)
def test_live_values_win_and_the_rest_stays(file: dict[str, Any], live: dict[str, Any]) -> None:
    config = lay_over(ModelConfig(description="a", labels={"stable": 1}), file, source="file")
    assert flat(config) == {**flat(ModelConfig()), **file}
    laid = lay_over(config, live, source="live")
    assert flat(laid) == {**flat(config), **live}
    assert (laid.description, laid.labels) == ("a", {"stable": 1})
    # Once more changes nothing, and nothing changes nothing.
    assert lay_over(laid, live, source="again") == laid
    assert lay_over(config, {}, source="none") == config


@given(live_values, live_values)
def test_what_is_set_last_wins_key_by_key(first: dict[str, Any], second: dict[str, Any]) -> None:
    both = changed(changed({}, first, ()), second, ())
    assert both == {**first, **second}
    assert changed(both, {}, second) == {key: value for key, value in first.items() if key not in second}
    assert changed(both, {}, ("workers", "batching", "limits", "engine")) == {}


def test_sections_are_reset_as_a_whole() -> None:
    live = {"workers.count": 2, "workers.cpus": "0", "limits.max_in_flight": 3}
    assert changed(live, {"batching.enabled": True}, ["workers"]) == {
        "limits.max_in_flight": 3,
        "batching.enabled": True,
    }


@pytest.mark.parametrize(
    ("values", "reset", "message"),
    [
        (
            {"workers.cuont": 1},
            [],
            "workers.cuont: unknown key (did you mean 'count'?); known keys are count,",
        ),
        ({"worker.count": 1}, [], "worker: unknown key (did you mean 'workers'?); known keys are batching,"),
        (
            {"engine.kind": "python"},
            [],
            "engine.kind: unknown key; known keys are inter_op_threads, intra_op",
        ),
        ({"workers": 1}, [], "workers: unknown key"),
        ({}, ["limits.x"], "limits.x: unknown key"),
        ({}, ["labels"], "labels: unknown key"),
        (
            {"workers.count": 1},
            ["workers"],
            "workers.count: found in what is to be set and in what is to be r",
        ),
    ],
)
def test_keys_that_cannot_be_set(values: dict[str, Any], reset: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        changed({}, values, reset)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("live", "message"),
    [
        ({"workers.count": 0}, "x: workers.count: found 0; expected an integer >= 1 and <= 1024"),
        ({"workers.count": "4"}, "x: workers.count: found '4'; expected an integer >= 1 and <= 1024"),
        ({"workers.kind": "fibre"}, "x: workers.kind: found 'fibre'; expected one of 'process', 'thread'"),
        ({"workers.cpus": "3-1"}, "x: workers.cpus: found '3-1'; expected core numbers and ranges"),
        ({"limits.max_in_flight": None}, "x: limits.max_in_flight: found None; expected an integer >= 1"),
        (
            {"batching.max_queue_delay": float("nan")},
            "x: batching.max_queue_delay: found nan; expected a numb",
        ),
        (
            {"batching.max_batch_size": 4},
            "x: batching.allowed_batch_sizes: found [1, 8]; expected max_batch_size = 4 as the last",
        ),
    ],
)
def test_values_are_refused_as_in_the_file(live: dict[str, Any], message: str) -> None:
    config = ModelConfig(batching=BatchingConfig(allowed_batch_sizes=(1, 8)))
    with pytest.raises(InvalidArgumentError) as caught:
        lay_over(config, live, source="x")
    assert caught.value.message.startswith(message)


def test_values_come_as_the_wire_has_them() -> None:
    laid = lay_over(
        ModelConfig(engine=EngineConfig(options={"a": 1})),
        {"batching.allowed_batch_sizes": [1, 4], "engine.intra_op_threads": 2},
        source="x",
    )
    assert laid.batching.allowed_batch_sizes == (1, 4)
    assert laid.engine == EngineConfig(options={"a": 1}, intra_op_threads=2)


def test_what_the_file_names() -> None:
    raw = {
        "workers": {"count": 4},
        "batching": {"max_queue_delay": 0.0, "allowed_batch_sizes": [1, 8]},
        "engine": {"kind": "python"},
        "labels": {"stable": 1},
    }
    assert written(raw, parse_model_config(raw, source="x")) == {
        "workers.count": 4,
        "batching.max_queue_delay": 0.0,
        "batching.allowed_batch_sizes": (1, 8),
    }


class TestTheEnd:
    LIVE = {"workers.count": 3, "batching.allowed_batch_sizes": (1, 8), "limits.max_in_flight": 7}  # noqa: RUF012

    def test_as_long_as_the_file_says_the_same(self) -> None:
        said = {"workers.count": 2}
        config = ModelConfig(workers=WorkersConfig(count=2))
        assert outlasting(self.LIVE, said, said, config) is self.LIVE

    @pytest.mark.parametrize(("before", "now"), [(2, 4), (2, None), (None, 4), (None, 3)])
    def test_whoever_spoke_last_wins(self, before: int | None, now: int | None) -> None:
        def said(count: int | None) -> dict[str, Any]:
            return {} if count is None else {"workers.count": count}

        config = ModelConfig(workers=WorkersConfig(count=now))
        left = outlasting(self.LIVE, said(before), said(now), config)
        assert left.keys() == self.LIVE.keys() - {"workers.count"}

    def test_naming_a_default_is_saying_it(self) -> None:
        said = {"limits.max_in_flight": ModelConfig().limits.max_in_flight}
        left = outlasting(self.LIVE, {}, said, ModelConfig())
        assert left.keys() == self.LIVE.keys() - {"limits.max_in_flight"}

    def test_what_contradicts_the_file_goes_with_its_section_only(self) -> None:
        config = ModelConfig(batching=BatchingConfig(max_batch_size=16))
        left = outlasting(self.LIVE, {}, {"batching.max_batch_size": 16}, config)
        assert left.keys() == {"workers.count", "limits.max_in_flight"}

    @given(any_values, any_values, live_values)
    def test_what_is_left_can_always_be_laid_over(
        self, live: dict[str, Any], before: dict[str, Any], now: dict[str, Any]
    ) -> None:
        config = lay_over(ModelConfig(), now, source="now")
        left = outlasting(live, before, now, config)
        assert left.items() <= live.items()
        lay_over(config, left, source="left")
        same = {key for key in live if (key in before, before.get(key)) == (key in now, now.get(key))}
        lost = {key.partition(".")[0] for key in same - left.keys()}
        assert left.keys() == {key for key in same if key.partition(".")[0] not in lost}
        assert lost <= {"batching"}
