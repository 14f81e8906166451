"""ONNX Runtime: ``model.onnx`` on the CPU, or on any execution provider that is installed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from ...rpc.errors import FailedPreconditionError, InternalError, InvalidArgumentError, RpcError
from ...rpc.types import STRING, ModelMetadata, TensorSpec, dtype_of
from ..config import ModelConfig
from ..decode import bad_value
from .base import Array, directory_bytes, trim_heap, with_batching
from .onnx_session import clean, import_onnxruntime, open_session, read_options
from .onnx_values import ONNX_ONLY, OrtValueRunner

FILE: Final = "model.onnx"

#: ONNX Runtime's type names -> wire names. It has neither complex tensors nor raw bytes.
_WIRE_NAMES: Final[dict[str, str]] = {
    "float": "float32",
    "double": "float64",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    **{
        name: name
        for name in (
            *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
            *("float16", "bfloat16", "string"),
        )
    },
}
#: Dimension names that exporters make up, different for each tensor: they say nothing.
_MADE_UP: Final = re.compile(r"unk__\d+|.*_dim_\d+|\?|")
#: An io_binding reports these without ONNX Runtime's status code.
_BAD_INPUT: Final = re.compile(
    r"Invalid rank for input|Got invalid dimensions for input|Unexpected input data type"
)
_STR_ONLY: Final = frozenset((str,))

#: Names wanted, inputs, and ONNX Runtime's run options, of which there are none.
_Run = Callable[[Sequence[str], dict[str, Array], None], list[Array]]


class OnnxRuntimeEngine:
    """Finds, sizes and loads ``model.onnx``."""

    name: Final = "onnxruntime"
    file: Final = FILE
    worker_kind: Final = "thread"

    def find(self, directory: Path) -> Path | None:
        """``model.onnx`` in the directory, if it is there."""
        path = directory / FILE
        return path if path.is_file() else None

    def estimate_ram(self, path: Path, config: ModelConfig) -> int:
        """Size of all files of the version, times ``engine.options.ram_factor``.

        The default of 2 covers the copy of the weights that exists for a moment while ONNX Runtime packs
        them (measured: ``docs/engines.md``); afterwards about one size remains.
        """
        return int(directory_bytes(path.parent) * read_options(config.engine, path).ram_factor)

    def load(self, path: Path, config: ModelConfig, *, name: str, version: int) -> OnnxServable:
        """Open a session on ``model.onnx`` and describe it.

        Raises:
            InvalidArgumentError: the file is no model that ONNX Runtime can load, its tensors have no
                wire form, or its configuration is wrong.
            FailedPreconditionError: onnxruntime or the execution provider is missing.
        """
        options = read_options(config.engine, path)
        ort = import_onnxruntime()
        session = open_session(ort, path, config.engine, options)
        try:
            metadata = _describe(path, session, config, options.overridable_initializers, name, version)
            return OnnxServable(ort, session, with_batching(metadata, config))
        finally:
            trim_heap()


class OnnxServable:
    """One session. ONNX Runtime computes without the GIL and takes any number of calls at once."""

    releases_gil: Final = True
    concurrent: Final = True
    worker_kind: Final = "thread"

    def __init__(self, ort: Any, session: Any, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self._errors = ort.capi.onnxruntime_pybind11_state
        self._dtypes = {spec.name: dtype_of(spec.dtype) for spec in metadata.inputs}
        self._required = tuple(
            (spec.name, self._dtypes[spec.name]) for spec in metadata.inputs if not spec.optional
        )
        self._strings = tuple(spec.name for spec in metadata.inputs if spec.dtype == STRING)
        self._run = _runner(ort, session, metadata)

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute one batch; see :class:`.base.Servable`."""
        # ONNX Runtime reads swapped bytes as they are, turns bytes into "b'...'", and finds a missing input
        # only in the operator that needs it, as a failure of the model: so these are checked here.
        try:
            for name, dtype in self._required:
                if inputs[name].dtype != dtype:
                    raise self._refuse(inputs)
        except KeyError:
            raise self._refuse(inputs) from None
        if len(inputs) != len(self._required):
            self._check_optional(inputs)
        if self._strings:
            self._check_strings(inputs)
        try:
            return self._run(outputs, inputs, None)
        except RpcError:
            raise
        except Exception as error:
            raise self._translate(error) from error

    def prepare(self, config: ModelConfig, batch_sizes: Sequence[int]) -> None:
        """Nothing is left to do; see :class:`.base.Servable`."""

    def close(self) -> None:
        """Drop the session and give its memory back to the operating system."""
        self._run = _closed
        trim_heap()

    @property
    def _title(self) -> str:
        return f"model {self.metadata.name!r} version {self.metadata.version}"

    def _refuse(self, inputs: dict[str, Array]) -> InvalidArgumentError:
        """Say which of the inputs is wrong."""
        expected = "; expected " + ", ".join(str(spec) for spec in self.metadata.inputs)
        for name, array in inputs.items():
            if name not in self._dtypes:
                return InvalidArgumentError(f"{self._title}: unknown input {name!r}{expected}")
            if array.dtype != self._dtypes[name]:
                return InvalidArgumentError(f"{self._title}: input {name!r} is {array.dtype}{expected}")
        missing = ", ".join(repr(name) for name, _ in self._required if name not in inputs)
        return InvalidArgumentError(f"{self._title}: missing input {missing}{expected}")

    def _check_optional(self, inputs: dict[str, Array]) -> None:
        for name, array in inputs.items():
            if name not in self._dtypes or array.dtype != self._dtypes[name]:
                raise self._refuse(inputs)

    def _check_strings(self, inputs: dict[str, Array]) -> None:
        for name in self._strings:
            array = inputs.get(name)
            elements = [] if array is None else cast("list[object]", array.ravel().tolist())
            if not _STR_ONLY.issuperset(map(type, elements)):
                raise InvalidArgumentError(f"{self._title}: input {name!r} has elements that are not str")

    def _translate(self, error: Exception) -> RpcError:
        text = f"{self._title}: {clean(error)}"
        if isinstance(error, self._errors.InvalidArgument | UnicodeEncodeError) or _BAD_INPUT.search(text):
            return InvalidArgumentError(text)
        return InternalError(text)


def _closed(outputs: Sequence[str], inputs: dict[str, Array], options: None) -> list[Array]:
    raise FailedPreconditionError("this version of the model is closed")


def _runner(ort: Any, session: Any, metadata: ModelMetadata) -> _Run:
    """The fastest way to call this session: ``docs/engines.md`` has the figures."""
    if any(spec.dtype in ONNX_ONLY for spec in (*metadata.inputs, *metadata.outputs)):
        return OrtValueRunner(ort, session, metadata)
    inner = getattr(session, "_sess", None)
    # The private session skips checks in Python that C++ or OnnxServable.run make again.
    return inner.run if inner is not None and _takes_three(inner) else session.run


def _takes_three(inner: Any) -> bool:
    """Whether the private session still has ``run(output names, feed, options)``; nothing is computed."""
    try:
        inner.run([], {}, None)
    except (TypeError, AttributeError):
        return False
    except Exception:  # noqa: BLE001  "At least one output should be requested": the signature is right
        return True
    return True


def _describe(
    path: Path, session: Any, config: ModelConfig, overridable: bool, name: str, version: int
) -> ModelMetadata:
    optional: list[Any] = session.get_overridable_initializers() if overridable else []
    inputs = [_spec(path, node) for node in session.get_inputs()]
    inputs += [_spec(path, node, optional=True) for node in optional]
    outputs = [_spec(path, node) for node in session.get_outputs()]
    metadata = ModelMetadata(
        name=name,
        version=version,
        platform="onnxruntime",
        inputs=_declare(path, "inputs", inputs, config.inputs),
        outputs=_declare(path, "outputs", outputs, config.outputs),
        batched=False,
    )
    declared = {spec.name for spec in (*config.inputs, *config.outputs)}
    first = {
        node.shape[0]
        for node in (*session.get_inputs(), *optional, *session.get_outputs())
        if node.shape and node.name not in declared
    }
    return msgspec.structs.replace(metadata, batched=_is_batched(metadata, first))


def _spec(path: Path, node: Any, *, optional: bool = False) -> TensorSpec:
    kind: str = node.type
    dtype = _WIRE_NAMES.get(kind.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise InvalidArgumentError(
            f"{path}: {node.name!r} is a {kind}, which has no wire form; export the model with plain tensors "
            f"of {', '.join(sorted(set(_WIRE_NAMES.values())))}"
        )
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in node.shape)
    return TensorSpec(node.name, dtype, shape, optional)


def _declare(
    path: Path, key: str, found: list[TensorSpec], declared: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Shapes from ``model.toml`` replace those of the model, e.g. where an exporter wrote none."""
    by_name = {spec.name: spec for spec in declared}
    known = {spec.name: spec for spec in found}
    for spec in declared:
        if spec.name not in known:
            raise InvalidArgumentError(
                f"{path}: {bad_value(key, spec.name, f'one of {sorted(known)}').message}"
            )
        if spec.dtype != known[spec.name].dtype:
            raise InvalidArgumentError(
                f"{path}: {bad_value(f'{key}.{spec.name}.dtype', spec.dtype, known[spec.name].dtype).message}"
            )
    return tuple(
        msgspec.structs.replace(spec, shape=by_name[spec.name].shape) if spec.name in by_name else spec
        for spec in found
    )


def _is_batched(metadata: ModelMetadata, first: set[object]) -> bool:
    """Whether every tensor starts with a dimension of any size, and as far as named, the same one.

    ``first`` holds the first dimensions as the model writes them: a name, a size, or ``None``.
    """
    specs = (*metadata.inputs, *metadata.outputs)
    if not metadata.inputs or not all(spec.shape and spec.shape[0] is None for spec in specs):
        return False
    return len({dim for dim in first if isinstance(dim, str) and not _MADE_UP.fullmatch(dim)}) <= 1
