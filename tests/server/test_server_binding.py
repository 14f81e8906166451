"""Bindings: what a request is told that does not fit the model, and which requests may share a batch."""

from __future__ import annotations

import pytest
from bundles import signature
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.rpc.types import ModelMetadata, TensorSpec
from tensorwire.server.binding import Binding, Bindings

Tensor = tuple[str, str, tuple[int, ...]]

BATCHED = ModelMetadata(
    name="m",
    version=3,
    platform="fake",
    inputs=(
        TensorSpec("a", "float32", (None, 2)),
        TensorSpec("b", "int64", (None, None), optional=True),
    ),
    outputs=(TensorSpec("y", "float32", (None,)), TensorSpec("z", "float32", (None,))),
    batched=True,
)
FIXED = ModelMetadata(
    name="m",
    version=3,
    platform="fake",
    inputs=(TensorSpec("a", "float32", (2, 3)), TensorSpec("s", "float32", (), optional=True)),
    outputs=(TensorSpec("y", "float32", (3, 2)),),
    batched=False,
)
A: Tensor = ("a", "float32", (2,))
B: Tensor = ("b", "int64", (7,))


def binding(
    *tensors: Tensor,
    metadata: ModelMetadata = BATCHED,
    rows: bool = True,
    outputs: tuple[str, ...] | None = None,
) -> Binding:
    return Binding(signature(*tensors, rows=rows, outputs=outputs), metadata)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            binding(A, ("q", "float32", (2,))),
            "model 'm' version 3 has no input 'q'; its inputs: a: float32[?, 2]; b: int64[?, ?]",
        ),
        (binding(), "model 'm' version 3: input a: float32[?, 2] is missing"),
        (binding(B), "model 'm' version 3: input a: float32[?, 2] is missing"),
        (
            binding(("a", "float64", (2,))),
            "model 'm' version 3: input 'a' has dtype float64, expected float32",
        ),
        (
            binding(("a", "float32", (5,))),
            "model 'm' version 3: input 'a' has shape [rows, 5], expected a: float32[?, 2]",
        ),
        (
            binding(("a", "float32", ())),
            "model 'm' version 3: input 'a' has shape [rows], expected a: float32[?, 2]",
        ),
        (
            binding(("a", "float32", (4, 5)), rows=False),
            "model 'm' version 3: input 'a' has shape [4, 5], expected a: float32[?, 2]",
        ),
        (
            binding(("a", "float32", ()), rows=False),
            "model 'm' version 3: input 'a' has shape [], expected a: float32[?, 2]",
        ),
        (
            binding(("a", "float32", (4, 2)), ("b", "int64", (3, 1)), rows=False),
            "model 'm' version 3 is batched along the first axis, but the inputs have different numbers of "
            "rows (a: 4, b: 3)",
        ),
        (
            binding(A, outputs=("y", "q")),
            "model 'm' version 3 has no output 'q'; its outputs: y, z",
        ),
        (binding(A, outputs=("y", "y")), "outputs repeat: y, y"),
        (binding(A, outputs=()), "an empty list of outputs; leave it out to get all of them"),
        (
            binding(("a", "float32", (3, 2)), metadata=FIXED, rows=False),
            "model 'm' version 3: input 'a' has shape [3, 2], expected a: float32[2, 3]",
        ),
    ],
)
def test_refusals(made: Binding, message: str) -> None:
    assert isinstance(made.error, InvalidArgumentError)
    assert made.error.message == message


class TestWhatFits:
    def test_batched(self) -> None:
        made = binding(A)
        assert made.error is None
        assert made.batched
        assert made.outputs == ("y", "z")

    def test_optional_inputs_may_be_given(self) -> None:
        assert binding(A, B).error is None

    def test_outputs_in_the_order_asked_for(self) -> None:
        assert binding(A, outputs=("z", "y")).outputs == ("z", "y")

    def test_a_batched_model_takes_full_shapes_too(self) -> None:
        """As a client sends them that does not split off the rows; such a request runs alone."""
        made = binding(("a", "float32", (4, 2)), rows=False)
        assert made.error is None
        assert not made.batched

    def test_a_fixed_first_dimension(self) -> None:
        made = binding(("a", "float32", (2, 3)), metadata=FIXED, rows=False)
        assert made.error is None
        assert not made.batched

    def test_a_fixed_first_dimension_that_travelled_as_rows(self) -> None:
        """How many rows came is not in the signature: the engine checks it."""
        made = binding(("a", "float32", (3,)), metadata=FIXED)
        assert made.error is None
        assert not made.batched

    def test_tensors_without_common_rows(self) -> None:
        made = binding(("a", "float32", (2, 3)), ("s", "float32", ()), metadata=FIXED, rows=False)
        assert made.error is None


class TestKeys:
    def test_equal_for_requests_that_may_share_a_batch(self) -> None:
        assert binding(A, B).key == binding(B, A).key
        assert binding(A).key == binding(A, outputs=("y", "z")).key

    @pytest.mark.parametrize(
        "other",
        [
            binding(A, B),
            binding(A, ("b", "int64", (8,))),
            binding(A, outputs=("y",)),
            binding(A, outputs=("z", "y")),
            binding(("a", "float32", (4, 2)), rows=False),
        ],
    )
    def test_different_for_others(self, other: Binding) -> None:
        assert other.error is None
        assert other.key != binding(A).key

    def test_different_dynamic_lengths(self) -> None:
        short, long = (binding(A, ("b", "int64", (length,))) for length in (1, 2))
        assert short.key != long.key


class TestBindings:
    def test_a_signature_is_held_against_the_model_once(self) -> None:
        bindings = Bindings(BATCHED)
        assert bindings.get(signature(A)) is bindings.get(signature(A))
        assert bindings.get(signature(A, B)) is not bindings.get(signature(A))

    def test_ever_new_signatures_cost_no_memory(self) -> None:
        bindings = Bindings(BATCHED)
        for length in range(3000):
            assert bindings.get(signature(A, ("b", "int64", (length,)))).error is None
        assert len(bindings._known) <= 1024
