from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import Array, FakeEngine, FakeServable, add_version, fail_with
from tensorwire.manager.config import BatchingConfig, LimitsConfig, ModelConfig, WorkersConfig
from tensorwire.manager.independence import dependent_output, two_rows
from tensorwire.manager.loader import Loader, apply_live, needs_reload
from tensorwire.manager.warmup import WARMUP_NAME, batch_sizes, load_samples, make_inputs
from tensorwire.rpc.errors import AbortedError, InternalError, InvalidArgumentError
from tensorwire.rpc.types import TensorSpec


class Bench:
    """One version in a repository, and a loader for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = add_version(root, "m", 1)
        self.engine = FakeEngine()
        self.options: dict[str, Any] = {}
        self.engine.options["m", 1] = self.options
        self.batching = BatchingConfig()
        self.workers = WorkersConfig()
        self.ticks = 0.0

    def timer(self) -> float:
        self.ticks += 0.25
        return self.ticks

    def warm(self, **more: Any) -> Any:
        config = ModelConfig(batching=self.batching, workers=self.workers, description="a model")
        loader = Loader("m", 1, self.directory, config, finder=self.engine.finder, timer=self.timer)
        return loader.warm_up(loader.load(), **more)

    @property
    def rows(self) -> list[int]:
        return [len(run["x"]) for run in self.engine.servables[-1].runs]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_allowed_size_is_run_and_measured(bench: Bench) -> None:
    bench.batching = BatchingConfig(allowed_batch_sizes=(1, 4, 8))
    handle = bench.warm(ram_bytes=7)
    assert {1, 4, 8} <= set(bench.rows)
    assert handle.costs == {1: 0.25, 4: 0.25, 8: 0.25}
    assert handle.metadata.max_batch_size == 8
    assert handle.metadata.batched
    assert handle.metadata.description == "a model"
    assert handle.config.batching.enabled is True
    assert handle.config.workers.count >= 1
    assert handle.ram_bytes == 7


def test_without_allowed_sizes_the_smallest_and_the_largest_are_run(bench: Bench) -> None:
    bench.batching = BatchingConfig(max_batch_size=32)
    assert sorted(bench.warm().costs) == [1, 32]
    assert {1, 32} <= set(bench.rows)


def test_sizes_to_run() -> None:
    assert batch_sizes(1, ()) == (1,)
    assert batch_sizes(16, ()) == (1, 16)
    assert batch_sizes(16, (4, 16)) == (4, 16)
    many = batch_sizes(100, tuple(range(1, 101)))
    assert len(many) == 32
    assert many[-1] == 100


def test_very_large_batches_are_not_run(bench: Bench) -> None:
    bench.options["inputs"] = (TensorSpec("x", "float32", (None, 1024, 1024)),)
    bench.options["compute"] = lambda inputs: [np.zeros((len(inputs["x"]), 2), np.float32)]
    bench.batching = BatchingConfig(max_batch_size=64)
    assert list(bench.warm().costs) == [1]


def test_an_unbatched_model_runs_as_declared(bench: Bench) -> None:
    bench.options.update(batched=False, inputs=(TensorSpec("x", "float32", (None, 3)),))
    handle = bench.warm()
    assert bench.engine.servables[0].runs[0]["x"].shape == (1, 3)
    assert list(handle.costs) == [1]
    assert handle.config.batching.enabled is False
    assert not handle.metadata.batched
    assert handle.metadata.max_batch_size is None


def wrong_rows(inputs: dict[str, Array]) -> list[Array]:
    return [np.zeros((1, 2), np.float32)]


def only_one_row(inputs: dict[str, Array]) -> list[Array]:
    if len(inputs["x"]) > 1:
        raise InternalError("reshape of 256 rows to (1, 2)")
    return [inputs["x"]]


@pytest.mark.parametrize("compute", [wrong_rows, only_one_row])
def test_batching_that_was_only_inferred_is_given_up(bench: Bench, compute: Any) -> None:
    bench.options["compute"] = compute
    handle = bench.warm()
    assert handle.config.batching.enabled is False
    assert handle.config.batching.max_batch_size == 1
    assert not handle.metadata.batched
    assert list(handle.costs) == [1]


@pytest.mark.parametrize("compute", [wrong_rows, only_one_row])
@pytest.mark.parametrize("batching", [BatchingConfig(enabled=True), BatchingConfig(max_batch_size=8)])
def test_batching_that_was_asked_for_must_work(bench: Bench, compute: Any, batching: BatchingConfig) -> None:
    bench.options["compute"] = compute
    bench.batching = batching
    with pytest.raises(InvalidArgumentError, match=r"cannot be batched.*\[batching\] enabled = false"):
        bench.warm()


def mean_over_rows(inputs: dict[str, Array]) -> list[Array]:
    return [inputs["x"] - inputs["x"].mean(axis=0) + 1]


def running_sum(inputs: dict[str, Array]) -> list[Array]:
    return [np.cumsum(inputs["x"], axis=0)]


@pytest.mark.parametrize("compute", [mean_over_rows, running_sum])
def test_rows_that_depend_on_each_other_are_not_put_together(bench: Bench, compute: Any) -> None:
    bench.options["compute"] = compute
    assert bench.warm().config.batching.enabled is False
    bench.batching = BatchingConfig(max_batch_size=4)
    with pytest.raises(InvalidArgumentError, match="a row of output y changes with the other rows"):
        bench.warm()
    bench.batching = BatchingConfig(enabled=True)
    assert bench.warm().config.batching.enabled is True


def test_samples_show_dependence_too(bench: Bench) -> None:
    np.savez(bench.directory / WARMUP_NAME, x=np.array([[1, 2], [3, 4]], np.float32))
    bench.options["compute"] = running_sum
    assert bench.warm().config.batching.enabled is False


def test_random_answers_and_rounding_say_nothing_about_rows(bench: Bench) -> None:
    generator = np.random.default_rng()
    bench.options["compute"] = lambda inputs: [generator.standard_normal(inputs["x"].shape)]
    assert bench.warm().config.batching.enabled is True
    bench.options["compute"] = lambda inputs: [inputs["x"] * (1 + 0.01 * len(inputs["x"]) / 256)]
    assert bench.warm().config.batching.enabled is True


def test_independence_of_every_kind_of_output() -> None:
    specs = (
        TensorSpec("s", "string", (None,)),
        TensorSpec("i", "int8", (None, 2)),
        TensorSpec("c", "complex64", (None,)),
    )
    rows = two_rows(FakeServable("m", 1, inputs=specs).metadata)
    assert rows["s"].tolist() == ["", "1"]
    assert rows["i"].tolist() == [[0, 0], [1, 1]]
    nan = np.full(2, np.nan)

    def run(inputs: dict[str, Array]) -> list[Array]:
        return [inputs["s"], inputs["i"], inputs["c"], nan[: len(inputs["s"])], np.zeros(())]

    assert dependent_output(run, rows, list("sicno")) is None

    def joined(inputs: dict[str, Array]) -> list[Array]:
        return [np.array(["".join(inputs["s"])] * len(inputs["s"]), object)]

    assert dependent_output(joined, rows, ["s"]) == "s"

    def infinite(inputs: dict[str, Array]) -> list[Array]:
        return [np.full(len(inputs["i"]), np.inf if len(inputs["i"]) > 1 else 1.0)]

    assert dependent_output(infinite, rows, ["y"]) == "y"


def test_ones_where_zeros_are_wrong(bench: Bench) -> None:
    def needs_ones(inputs: dict[str, Array]) -> list[Array]:
        if not inputs["x"].all():
            raise InternalError("length 0")
        return [inputs["x"]]

    bench.options["compute"] = needs_ones
    assert sorted(bench.warm().costs) == [1, 256]


def test_a_model_that_fails_says_why_and_what_to_do(bench: Bench) -> None:
    bench.options["compute"] = fail_with(InternalError("division by zero"))
    with pytest.raises(InternalError, match=r"division by zero .*warmup\.npz"):
        bench.warm()


def test_a_cancelled_warm_up_ends_between_runs(bench: Bench) -> None:
    answers = iter([False, False, True])
    with pytest.raises(AbortedError):
        bench.warm(stop=lambda: next(answers))
    assert len(bench.rows) == 2


def test_samples_are_repeated_to_the_batch_size(bench: Bench) -> None:
    np.savez(bench.directory / WARMUP_NAME, x=np.array([[1, 2], [3, 4]], np.float32))
    bench.batching = BatchingConfig(max_batch_size=3)
    bench.warm()
    assert bench.engine.servables[0].runs[-1]["x"].tolist() == [[1, 2], [3, 4], [1, 2]]


def test_samples_of_an_unbatched_model_are_used_as_they_are(bench: Bench) -> None:
    np.savez(bench.directory / WARMUP_NAME, x=np.ones((5, 2), np.float32))
    bench.options["batched"] = False
    bench.warm()
    assert bench.rows[0] == 5


def test_samples_of_text(bench: Bench) -> None:
    specs = (TensorSpec("b", "bytes", (None,)), TensorSpec("s", "string", (None,)))
    metadata = FakeServable("m", 1, inputs=specs).metadata
    np.savez(bench.directory / WARMUP_NAME, b=np.array(["é"]), s=np.array([b"x", b"y"]))
    samples = load_samples(bench.directory, metadata)
    assert samples is not None
    assert samples["b"].tolist() == ["é".encode()]
    assert samples["s"].tolist() == ["x", "y"]
    assert samples["s"].dtype == object


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"y": np.zeros((1, 2), np.float32)}, r"found arrays \['y'\]; expected the model's inputs \['x'\]"),
        ({}, "found arrays"),
        ({"x": np.zeros((1, 2), np.float64)}, r"x is float64; expected x: float32\[\?, 2\]"),
        ({"x": np.zeros((1, 3), np.float32)}, r"shape \(1, 3\); expected"),
        ({"x": np.zeros((0, 2), np.float32)}, r"shape \(0, 2\)"),
        ({"x": np.zeros(2, np.float32)}, r"shape \(2,\)"),
        ({"x": np.array([[object()]])}, "cannot be read as an npz file"),
    ],
)
def test_samples_that_do_not_suit_the_model(bench: Bench, arrays: dict[str, Array], complaint: str) -> None:
    np.savez(bench.directory / WARMUP_NAME, **arrays)
    with pytest.raises(InvalidArgumentError, match=complaint):
        bench.warm()


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_a_file_that_holds_no_samples(bench: Bench, content: bytes) -> None:
    (bench.directory / WARMUP_NAME).write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=r"warmup\.npz: cannot be read"):
        bench.warm()


def test_generated_inputs() -> None:
    specs = (
        TensorSpec("a", "int64", (None, None, 4)),
        TensorSpec("b", "bytes", (None,)),
        TensorSpec("s", "string", ()),
        TensorSpec("left_out", "float32", (None,), True),
        TensorSpec("h", "bfloat16", (2,)),
    )
    metadata = FakeServable("m", 1, inputs=specs).metadata
    inputs = make_inputs(metadata, None, 1)
    assert list(inputs) == ["a", "b", "s", "h"]
    assert inputs["a"].shape == (1, 1, 4)
    assert inputs["b"].tolist() == [b"1"]
    assert inputs["s"].item() == "1"
    assert make_inputs(metadata, None, 0)["b"].tolist() == [b""]


def test_a_model_for_one_call_at_a_time_gets_one_worker(bench: Bench) -> None:
    bench.options["concurrent"] = False
    assert bench.warm().config.workers.count == 1


def test_what_needs_a_reload() -> None:
    base = ModelConfig()
    assert needs_reload(base, ModelConfig(batching=BatchingConfig(max_batch_size=4)))
    assert needs_reload(base, ModelConfig(inputs=(TensorSpec("x", "int8", ()),)))
    live = ModelConfig(
        batching=BatchingConfig(max_queue_delay=0.1),
        limits=LimitsConfig(max_in_flight=3),
        workers=WorkersConfig(count=2),
        labels={"stable": 1},
        description="new",
    )
    assert not needs_reload(base, live)


@pytest.mark.parametrize(
    ("loaded", "wanted", "reload"),
    [
        (BatchingConfig(max_batch_size=8), BatchingConfig(max_batch_size=4), False),
        (BatchingConfig(max_batch_size=8), BatchingConfig(allowed_batch_sizes=(3, 8)), False),
        (BatchingConfig(max_batch_size=8), BatchingConfig(max_batch_size=9), True),
        (BatchingConfig(max_batch_size=8), BatchingConfig(), True),
        (BatchingConfig(), BatchingConfig(max_batch_size=256), False),
        (BatchingConfig(allowed_batch_sizes=(2, 8)), BatchingConfig(allowed_batch_sizes=(2,)), False),
        (BatchingConfig(allowed_batch_sizes=(2, 8)), BatchingConfig(allowed_batch_sizes=(4, 8)), True),
        (BatchingConfig(allowed_batch_sizes=(2, 8)), BatchingConfig(max_batch_size=8), True),
        (BatchingConfig(enabled=False), BatchingConfig(enabled=False, max_batch_size=1), True),
    ],
)
def test_batch_sizes_beyond_the_warm_up_need_a_reload(
    bench: Bench, loaded: BatchingConfig, wanted: BatchingConfig, reload: bool
) -> None:
    bench.batching = loaded
    handle = bench.warm()
    old, new = ModelConfig(batching=loaded), ModelConfig(batching=wanted)
    assert needs_reload(old, new, handle) is reload
    assert needs_reload(old, new) is (loaded != wanted)
    if not reload:
        apply_live(handle, new)
        assert handle.config.batching.allowed_batch_sizes == wanted.allowed_batch_sizes
        # Back to where it was is never a load.
        assert not needs_reload(new, old, handle)


def test_live_changes(bench: Bench) -> None:
    handle = bench.warm()
    config = ModelConfig(
        batching=BatchingConfig(max_queue_delay=0.1), workers=WorkersConfig(count=3), description="new"
    )
    assert apply_live(handle, config)
    assert handle.config.batching.max_queue_delay == 0.1
    assert handle.config.batching.max_batch_size == 256
    assert handle.config.workers.count == 3
    assert handle.metadata.description == "new"
    assert not apply_live(handle, config)


def test_live_changes_that_do_not_suit_the_model(bench: Bench) -> None:
    bench.options["concurrent"] = False
    handle = bench.warm()
    with pytest.raises(InvalidArgumentError, match=r"workers\.count"):
        apply_live(handle, ModelConfig(workers=WorkersConfig(count=2)))


def test_a_single_array_is_no_archive(bench: Bench) -> None:
    with (bench.directory / WARMUP_NAME).open("wb") as file:
        np.save(file, np.zeros((1, 2), np.float32))
    with pytest.raises(InvalidArgumentError, match="cannot be read as an npz file"):
        bench.warm()
