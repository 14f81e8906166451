"""Batches: what a servable gets to see, and what becomes of its answers and its failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from bundles import bundle, ids, signature
from fake_engine import Compute, FakeServable
from tensorwire.rpc.errors import InternalError, InvalidArgumentError, StatusCode, UnavailableError
from tensorwire.rpc.pump import Bundle, Slice, whole
from tensorwire.rpc.types import TensorSpec
from tensorwire.server.batch import Batch, Outcome, padded_size
from tensorwire.server.binding import Binding
from tensorwire.server.execution import run_batch

Array = np.ndarray[Any, Any]

A = TensorSpec("a", "float32", (None, 2))
B = TensorSpec("b", "float32", (None, 2))
Y = TensorSpec("y", "float32", (None, 2))
SIGNATURE = signature(("a", "float32", (2,)))


def numbered(*first: int, rows: Sequence[int] | None = None) -> Bundle:
    """Requests whose values are their number; every row of a request has the same."""
    counts = [1] * len(first) if rows is None else list(rows)
    block = np.repeat(np.array(first, np.float32), counts)[:, None] * np.ones(2, np.float32)
    return bundle(*first, rows=rows, inputs=[block], of=SIGNATURE)


def servable(compute: Compute, *, batched: bool = True, **options: Any) -> FakeServable:
    options.setdefault("inputs", (A,))
    options.setdefault("outputs", (Y,))
    return FakeServable("m", 1, batched=batched, compute=compute, **options)


def run(
    model: FakeServable,
    *parts: Slice,
    max_batch_size: int = 8,
    allowed: tuple[int, ...] = (),
    clock: Iterator[float] | None = None,
) -> Outcome:
    binding = Binding(parts[0].bundle.signature, model.metadata)
    assert binding.error is None, binding.error
    rows = sum(part.rows for part in parts)
    batch = Batch(binding, list(parts), rows, max_batch_size, allowed, 0.0)
    ticks = clock or iter((0.0, 0.0))
    return run_batch(model, batch, lambda: next(ticks))


def answers(outcome: Outcome) -> dict[int, list[float]]:
    """Request -> first column of its rows, as the front end takes the outputs apart."""
    found: dict[int, list[float]] = {}
    for result in outcome.results:
        assert result.error is None, result.error
        at = 0
        for part in result.parts:
            for index in range(part.lo, part.hi):
                single = Slice(part.bundle, index, index + 1)
                (name,) = ids([single])
                found[name] = result.outputs[0][at : at + single.rows, 0].tolist()
                at += single.rows
    return found


def double(inputs: dict[str, Array]) -> list[Array]:
    return [inputs["a"] * 2]


class TestGathering:
    def test_one_whole_bundle_is_not_copied(self) -> None:
        made = numbered(1, 2, 3)
        model = servable(double)
        assert answers(run(model, whole(made))) == {1: [2], 2: [4], 3: [6]}
        assert model.runs[0]["a"] is made.inputs[0]

    def test_a_slice_is_a_view(self) -> None:
        made = numbered(1, 2, 3, rows=[2, 1, 3])
        model = servable(double)
        assert answers(run(model, Slice(made, 1, 3))) == {2: [4], 3: [6, 6, 6]}
        assert np.shares_memory(model.runs[0]["a"], made.inputs[0])

    def test_slices_of_several_bundles_are_one_block(self) -> None:
        model = servable(double)
        first, second = numbered(1, 2, 3), numbered(4, 5, rows=[2, 1])
        outcome = run(model, Slice(first, 1, 3), whole(second))
        assert answers(outcome) == {2: [4], 3: [6], 4: [8, 8], 5: [10]}
        assert [each["a"].shape for each in model.runs] == [(5, 2)]

    @pytest.mark.parametrize("parts", [1, 2])
    @pytest.mark.parametrize("batched", [True, False])
    def test_clients_may_name_inputs_in_any_order(self, parts: int, batched: bool) -> None:
        """Both orders have one batch key, so a batch of one may run under the binding of the other."""
        model = servable(lambda inputs: [inputs["a"] - inputs["b"]], batched=batched, inputs=(A, B))
        ab = signature(("a", "float32", (2,)), ("b", "float32", (2,)))
        ba = signature(("b", "float32", (2,)), ("a", "float32", (2,)))
        assert Binding(ab, model.metadata).key == Binding(ba, model.metadata).key
        five, three = np.full((1, 2), 5, np.float32), np.full((1, 2), 3, np.float32)
        swapped = bundle(1, inputs=[three, five], of=ba)
        straight = bundle(2, inputs=[five, three], of=ab)
        chosen = [whole(swapped), whole(straight)][: parts if batched else 1]
        batch = Batch(Binding(ab, model.metadata), chosen, len(chosen), 8, (), 0.0)
        (result,) = run_batch(model, batch).results
        assert result.error is None
        assert result.outputs[0].tolist() == [[2, 2]] * len(chosen)

    def test_without_rows_a_request_gets_its_tensors_as_they_came(self) -> None:
        spec = TensorSpec("s", "float32", ())
        model = servable(lambda inputs: [inputs["s"] + 1], batched=False, inputs=(spec,), outputs=(spec,))
        value = np.array(2, np.float32)
        made = bundle(1, inputs=[value], of=signature(("s", "float32", ()), rows=False))
        (result,) = run(model, whole(made)).results
        assert result.outputs[0].shape == ()
        assert result.outputs[0] == 3

    def test_a_model_without_batch_axis_sees_one_request(self) -> None:
        model = servable(double, batched=False)
        made = numbered(1, 2, rows=[3, 2])
        (result,) = run(model, Slice(made, 1, 2)).results
        assert model.runs[0]["a"].tolist() == [[2, 2], [2, 2]]
        assert result.outputs[0].shape == (2, 2)


class TestPadding:
    @pytest.mark.parametrize(
        ("rows", "allowed", "size"),
        [(1, (), 1), (3, (1, 4, 8), 4), (4, (1, 4, 8), 4), (5, (1, 4, 8), 8), (9, (1, 4, 8), 9)],
    )
    def test_sizes(self, rows: int, allowed: tuple[int, ...], size: int) -> None:
        assert padded_size(rows, allowed) == size

    def test_batches_are_padded_with_their_last_row(self) -> None:
        model = servable(double)
        outcome = run(model, whole(numbered(1, 2, 3)), allowed=(1, 4, 8))
        assert model.runs[0]["a"][:, 0].tolist() == [1, 2, 3, 3]
        assert answers(outcome) == {1: [2], 2: [4], 3: [6]}

    def test_text_is_padded_too(self) -> None:
        spec = TensorSpec("t", "string", (None,))
        model = servable(lambda inputs: [inputs["t"]], inputs=(spec,), outputs=(spec,))
        texts = np.array(["a", "b", "c"], object)
        made = bundle(1, 2, 3, inputs=[texts], of=signature(("t", "string", ())))
        (result,) = run(model, whole(made), allowed=(4,)).results
        assert result.outputs[0].tolist() == ["a", "b", "c", "c"]

    def test_no_rows_are_not_padded(self) -> None:
        model = servable(double)
        assert answers(run(model, whole(numbered(1, rows=[0])), allowed=(4, 8))) == {1: []}
        assert model.runs[0]["a"].shape == (0, 2)


class TestOversized:
    def test_a_request_larger_than_a_batch_is_split(self) -> None:
        model = servable(double)
        made = bundle(1, rows=[10], inputs=[np.arange(20, dtype=np.float32).reshape(10, 2)], of=SIGNATURE)
        outcome = run(model, whole(made), max_batch_size=4)
        assert answers(outcome) == {1: [4.0 * row for row in range(10)]}
        assert [len(each["a"]) for each in model.runs] == [4, 4, 2]

    def test_its_last_piece_is_padded(self) -> None:
        model = servable(double)
        made = bundle(1, rows=[5], inputs=[np.arange(10, dtype=np.float32).reshape(5, 2)], of=SIGNATURE)
        outcome = run(model, whole(made), max_batch_size=4, allowed=(2, 4))
        assert answers(outcome) == {1: [0, 4, 8, 12, 16]}
        assert [len(each["a"]) for each in model.runs] == [4, 2]

    def test_its_failure_is_one_answer(self) -> None:
        def refuse(inputs: dict[str, Array]) -> list[Array]:
            raise ValueError("no")

        model = servable(refuse)
        made = numbered(1, rows=[10])
        (result,) = run(model, whole(made), max_batch_size=4).results
        assert isinstance(result.error, InternalError)
        assert len(model.runs) == 1


def poisonous(inputs: dict[str, Array]) -> list[Array]:
    if (inputs["a"] == 13).any():
        raise RuntimeError("thirteen")
    return double(inputs)


class TestDeadlines:
    def test_what_has_expired_while_it_waited_for_its_worker_is_not_run(self) -> None:
        model = servable(double)
        late = bundle(1, 2, 3, inputs=[np.arange(6, dtype=np.float32).reshape(3, 2)], of=SIGNATURE,
                      deadline=(5.0, 4.0, 6.0))  # fmt: skip
        outcome = run(model, whole(late), whole(numbered(7)), clock=iter((5.0, 5.5)))
        assert answers(outcome) == {3: [8], 7: [14]}
        assert ids(list(outcome.expired)) == [1, 2]
        assert [each["a"][:, 0].tolist() for each in model.runs] == [[4, 7]]
        assert (outcome.begun, outcome.compute_seconds) == (5.0, 0.5)

    def test_nothing_is_run_when_all_have(self) -> None:
        model = servable(double)
        late = bundle(1, inputs=[np.ones((1, 2), np.float32)], of=SIGNATURE, deadline=5.0)
        outcome = run(model, whole(late), clock=iter((5.0,)))
        assert (outcome.results, ids(list(outcome.expired)), outcome.compute_seconds) == ([], [1], 0.0)
        assert model.runs == []


class TestFailures:
    def test_a_poisonous_request_fails_alone(self) -> None:
        model = servable(poisonous)
        outcome = run(model, whole(numbered(1, 13)), whole(numbered(3, 4, rows=[2, 1])))
        good = Outcome([result for result in outcome.results if result.error is None], 0.0, 0.0)
        assert answers(good) == {1: [2], 3: [6, 6], 4: [8]}
        (bad,) = [result for result in outcome.results if result.error is not None]
        assert ids(bad.parts) == [13]
        assert str(bad.error) == "INTERNAL: model 'm' version 1 failed: RuntimeError: thirteen"

    def test_each_request_is_run_once_more_and_no_oftener(self) -> None:
        model = servable(poisonous)
        run(model, whole(numbered(1, 13, 3)))
        assert [each["a"][:, 0].tolist() for each in model.runs] == [[1, 13, 3], [1], [13], [3]]

    def test_a_single_request_is_not_run_again(self) -> None:
        model = servable(poisonous)
        (result,) = run(model, whole(numbered(13, rows=[3]))).results
        assert isinstance(result.error, InternalError)
        assert len(model.runs) == 1

    def test_when_all_fail_each_has_an_error_of_its_own(self) -> None:
        model = servable(poisonous)
        outcome = run(model, whole(bundle(1, 2, inputs=[np.full((2, 2), 13, np.float32)], of=SIGNATURE)))
        first, second = (result.error for result in outcome.results)
        assert first is not second
        assert str(first) == str(second)

    @pytest.mark.parametrize(
        "error", [InvalidArgumentError("bad text"), UnavailableError("gone"), InternalError("broke")]
    )
    def test_statuses_of_the_model_are_kept(self, error: Exception) -> None:
        def refuse(inputs: dict[str, Array]) -> list[Array]:
            raise error

        (result,) = run(servable(refuse), whole(numbered(1))).results
        assert result.error is not error
        assert type(result.error) is type(error)
        assert str(result.error) == str(error)

    @pytest.mark.parametrize("kind", [MemoryError, StopIteration, ZeroDivisionError, AssertionError])
    def test_whatever_a_model_raises_is_a_status(self, kind: type[Exception]) -> None:
        def refuse(inputs: dict[str, Array]) -> list[Array]:
            raise kind("why")

        (result,) = run(servable(refuse), whole(numbered(1))).results
        assert result.error is not None
        assert result.error.code == StatusCode.INTERNAL
        assert kind.__name__ in result.error.message

    @pytest.mark.parametrize(
        ("result", "shape"),
        [(np.zeros((3, 2), np.float32), "[3, 2]"), (np.zeros((), np.float32), "[]")],
    )
    def test_the_wrong_number_of_rows(self, result: Array, shape: str) -> None:
        (answer,) = run(servable(lambda _: [result]), whole(numbered(1))).results
        assert answer.error is not None
        assert f"output 'y' has shape {shape} for 1 rows" in answer.error.message
        assert "enabled = false" in answer.error.message

    def test_a_sum_over_the_batch_is_found_out(self) -> None:
        """One row for two would otherwise be somebody else's answer."""
        model = servable(lambda inputs: [inputs["a"].sum(0, keepdims=True)])
        outcome = run(model, whole(numbered(1, 2)))
        assert answers(outcome) == {1: [1], 2: [2]}
        assert len(model.runs) == 3

    @pytest.mark.parametrize("batched", [True, False])
    @pytest.mark.parametrize("count", [0, 2])
    def test_the_wrong_number_of_outputs(self, batched: bool, count: int) -> None:
        model = servable(lambda inputs: [inputs["a"]] * count, batched=batched)
        (result,) = run(model, whole(numbered(1))).results
        assert result.error is not None
        assert result.error.code == StatusCode.INTERNAL

    def test_time_counts_the_second_runs_too(self) -> None:
        outcome = run(servable(poisonous), whole(numbered(1, 13)), clock=iter((10.0, 12.5)))
        assert outcome.compute_seconds == 2.5
