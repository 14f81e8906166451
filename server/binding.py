"""A request signature held against one model version: checked once, then a dictionary look-up."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from ..rpc.errors import InvalidArgumentError, RpcError
from ..rpc.types import ModelMetadata, TensorSpec
from ..rpc.wire.header import Signature

#: A client that varies its shapes costs checking, never memory.
_KEPT: Final = 1024


class Binding:
    """How requests of one signature are run by one model version.

    Attributes:
        names: input names, sorted, with the index of each in the signature.
        outputs: names of the outputs to compute, in the order of the reply.
        key: equal keys may share a batch.
        batched: whether requests run together with others.
        error: why they cannot be run at all; then nothing else counts.
    """

    __slots__ = ("batched", "error", "key", "names", "outputs")

    def __init__(self, signature: Signature, metadata: ModelMetadata) -> None:
        layout = signature.layout
        self.error: RpcError | None = None
        self.names = tuple(sorted((name, index) for index, name in enumerate(layout.names)))
        self.outputs: tuple[str, ...] = ()
        self.batched = metadata.batched and layout.rows
        try:
            self.outputs = _outputs(signature, metadata)
            _check_inputs(signature, metadata)
        except RpcError as error:
            self.error = error
        self.key: Hashable = (
            self.outputs,
            self.batched,
            tuple((name, layout.dtype_names[index], layout.shapes[index]) for name, index in self.names),
        )


def describe(signature: Signature) -> str:
    """A signature's tensors for people, such as ``x float32[16]``."""
    layout = signature.layout
    return ", ".join(
        f"{name} {dtype}{list(shape)}"
        for name, dtype, shape in zip(layout.names, layout.dtype_names, layout.shapes, strict=True)
    )


class Bindings:
    """The bindings of one model version, by header bytes."""

    def __init__(self, metadata: ModelMetadata) -> None:
        self._metadata = metadata
        self._known: dict[bytes, Binding] = {}

    def get(self, signature: Signature) -> Binding:
        """The binding of a signature, made when it is seen for the first time."""
        found = self._known.get(signature.raw)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[signature.raw] = Binding(signature, self._metadata)
        return found


def _subject(metadata: ModelMetadata) -> str:
    return f"model {metadata.name!r} version {metadata.version}"


def _outputs(signature: Signature, metadata: ModelMetadata) -> tuple[str, ...]:
    known = tuple(spec.name for spec in metadata.outputs)
    wanted = signature.header.outputs
    if wanted is None:
        return known
    for name in wanted:
        if name not in known:
            raise InvalidArgumentError(
                f"{_subject(metadata)} has no output {name!r}; its outputs: {', '.join(known)}"
            )
    if len(set(wanted)) != len(wanted):
        raise InvalidArgumentError(f"outputs repeat: {', '.join(wanted)}")
    if not wanted:
        raise InvalidArgumentError("an empty list of outputs; leave it out to get all of them")
    return wanted


def _check_inputs(signature: Signature, metadata: ModelMetadata) -> None:
    layout = signature.layout
    given = set(layout.names)
    specs = {spec.name: spec for spec in metadata.inputs}
    for name in layout.names:
        if name not in specs:
            known = "; ".join(map(str, metadata.inputs))
            raise InvalidArgumentError(f"{_subject(metadata)} has no input {name!r}; its inputs: {known}")
    missing = [str(spec) for spec in metadata.inputs if spec.name not in given and not spec.optional]
    if missing:
        raise InvalidArgumentError(f"{_subject(metadata)}: input {'; '.join(missing)} is missing")
    for index, name in enumerate(layout.names):
        spec = specs[name]
        if layout.dtype_names[index] != spec.dtype:
            raise InvalidArgumentError(
                f"{_subject(metadata)}: input {name!r} has dtype {layout.dtype_names[index]}, "
                f"expected {spec.dtype}"
            )
        shape: tuple[int | None, ...] = layout.shapes[index]
        _check_shape(spec, (None, *shape) if layout.rows else shape, metadata)
    if metadata.batched and not layout.rows:
        _check_leading(signature, metadata)


def _check_shape(spec: TensorSpec, shape: tuple[int | None, ...], metadata: ModelMetadata) -> None:
    """``None`` in ``shape``: the row count, which differs from request to request."""
    fits = len(shape) == len(spec.shape) and all(
        found is None or wanted is None or found == wanted
        for found, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        dims = ", ".join("rows" if dim is None else str(dim) for dim in shape)
        raise InvalidArgumentError(
            f"{_subject(metadata)}: input {spec.name!r} has shape [{dims}], expected {spec}"
        )


def _check_leading(signature: Signature, metadata: ModelMetadata) -> None:
    layout = signature.layout
    leading = {name: shape[0] for name, shape in zip(layout.names, layout.shapes, strict=True)}
    if len(set(leading.values())) > 1:
        found = ", ".join(f"{name}: {rows}" for name, rows in leading.items())
        raise InvalidArgumentError(
            f"{_subject(metadata)} is batched along the first axis, but the inputs have different numbers "
            f"of rows ({found})"
        )
