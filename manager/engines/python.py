"""Python servables: ``model.py`` with a ``class Model``.

class Model:
    inputs = [("x", "float32", (None, 16))]      # name, dtype, shape; None = any size
    outputs = [("y", "float32", (None,))]
    batched = True                               # first dimension of everything is the batch
    concurrent = False                           # predict() may be called by several threads

    def load(self, directory, config): ...       # optional: pathlib.Path, [engine.options] as a dict
    def predict(self, x): return {"y": x.sum(1)}
    def close(self): ...                         # optional
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from ...rpc.errors import FailedPreconditionError, InternalError, InvalidArgumentError, RpcError
from ...rpc.types import BYTES, STRING, ModelMetadata, TensorSpec, dtype_of, name_of_dtype
from ..config import ModelConfig
from .base import Array, directory_bytes, one_line, trim_heap, with_batching
from .python_module import ModelModule, place

FILE: Final = "model.py"

_MISSING: Final = object()
_ELEMENT_TYPES: Final[dict[str, frozenset[type]]] = {
    BYTES: frozenset((bytes,)),
    STRING: frozenset((str, np.str_)),
}


class PythonEngine:
    """Finds and loads ``model.py``."""

    name: Final = "python"
    file: Final = FILE
    #: It holds the interpreter's lock while it computes.
    worker_kind: Final = "process"

    def find(self, directory: Path) -> Path | None:
        """``model.py`` in the directory, if it is there."""
        path = directory / FILE
        return path if path.is_file() else None

    def estimate_ram(self, path: Path, config: ModelConfig) -> int:
        """Size of all files of the version: what the code loads from elsewhere is not known."""
        return directory_bytes(path.parent)

    def load(self, path: Path, config: ModelConfig, *, name: str, version: int) -> PythonServable:
        """Import ``model.py``, create its ``Model``, call its ``load()``, and check its declarations.

        Raises:
            InvalidArgumentError: no usable class ``Model``; names the file, and the line where there is one.
            FailedPreconditionError: a module that it imports is not installed, or ``load()`` failed.
        """
        module = ModelModule(path, name, version)
        model: object = None
        try:
            cls = _model_class(path, module.load())
            model = _start(path, cls, config)
            metadata = with_batching(_describe(path, cls, model, config, name, version), config)
            return PythonServable(path, module, model, metadata)
        except BaseException:
            if model is not None:
                _close(model)
            module.unload()
            raise


class PythonServable:
    """A ``Model`` object; its answers are checked, because clients and the batcher rely on them."""

    releases_gil: Final = False
    worker_kind: Final = "thread"

    def __init__(self, path: Path, module: ModelModule, model: object, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self.concurrent = bool(getattr(model, "concurrent", False))
        self._path = path
        self._module = module
        self._model: object = model
        self._predict: Callable[..., object] = getattr(model, "predict", _closed)
        self._specs = {spec.name: spec for spec in metadata.outputs}
        self._leading = metadata.inputs[0].name if metadata.batched else ""

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute one batch; see :class:`.base.Servable`."""
        try:
            results = self._predict(**inputs)
        except RpcError:
            raise
        except (Exception, SystemExit) as error:
            where = place(error, self._path.parent)
            raise self._failure(
                f"predict() raised {type(error).__name__}: {one_line(error)}{where}"
            ) from error
        if not isinstance(results, Mapping):
            raise self._failure(f"predict() returned {type(results).__name__}; expected a dict of arrays")
        arrays = cast("Mapping[str, object]", results)
        if arrays.keys() != self._specs.keys():
            raise self._failure(
                f"predict() returned the outputs {sorted(map(str, arrays))}; expected {sorted(self._specs)}"
            )
        rows = inputs[self._leading].shape[0] if self._leading else None
        return [self._check(self._wanted(name), arrays[name], rows) for name in outputs]

    def prepare(self, config: ModelConfig, batch_sizes: Sequence[int]) -> None:
        """Nothing is left to do; see :class:`.base.Servable`."""

    def close(self) -> None:
        """Call the model's ``close()``, if it has one, and forget its module.

        Raises:
            InternalError: ``close()`` raised; everything was forgotten nevertheless.
        """
        model, self._model, self._predict = self._model, None, _closed
        try:
            stop = getattr(model, "close", None)
            if stop is not None:
                stop()
        except Exception as error:
            where = place(error, self._path.parent)
            raise self._failure(f"close() raised {type(error).__name__}: {one_line(error)}{where}") from error
        finally:
            self._module.unload()
            trim_heap()

    def _wanted(self, name: str) -> TensorSpec:
        spec = self._specs.get(name)
        if spec is None:
            known = sorted(self._specs)
            raise InvalidArgumentError(
                f"model {self.metadata.name!r}: unknown output {name!r}; expected one of {known}"
            )
        return spec

    def _check(self, spec: TensorSpec, value: object, rows: int | None) -> Array:
        """One output as it goes to the clients: right dtype and shape, contiguous."""
        if not isinstance(value, np.ndarray | np.generic):
            raise self._failure(f"output {spec.name!r} is a {type(value).__name__}; expected a NumPy array")
        array: Array = np.asarray(cast("Array", value))  # a scalar such as x.sum() becomes 0-d
        expected = dtype_of(spec.dtype)
        if spec.dtype in _ELEMENT_TYPES:
            array = self._check_objects(spec, array)
        elif array.dtype != expected:
            raise self._failure(f"output {spec.name!r} is {array.dtype}; expected {spec}")
        if not _fits(array.shape, spec.shape):
            raise self._failure(f"output {spec.name!r} has the shape {list(array.shape)}; expected {spec}")
        if rows is not None and array.shape[0] != rows:
            raise self._failure(
                f"output {spec.name!r} has {array.shape[0]} rows for {rows} rows of input; a batched model "
                "gives one row of output for each row of input"
            )
        return array if array.flags.c_contiguous else array.copy(order="C")

    def _check_objects(self, spec: TensorSpec, array: Array) -> Array:
        if array.dtype.kind == ("U" if spec.dtype == STRING else "S"):
            return array.astype(object)
        allowed = _ELEMENT_TYPES[spec.dtype]
        if array.dtype != object or not allowed.issuperset(
            map(type, cast("list[object]", array.ravel().tolist()))
        ):
            wanted = "str" if spec.dtype == STRING else "bytes"
            raise self._failure(
                f"output {spec.name!r} is {array.dtype}; expected an object array of {wanted}"
            )
        return array

    def _failure(self, text: str) -> InternalError:
        return InternalError(f"model {self.metadata.name!r} version {self.metadata.version}: {text}")


def _closed(**inputs: Array) -> dict[str, Array]:
    raise FailedPreconditionError("this version of the model is closed")


def _close(model: object) -> None:
    """Close a model whose load failed: the first error is the one to report."""
    with contextlib.suppress(Exception):
        stop = getattr(model, "close", None)
        if stop is not None:
            stop()


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(
        want is None or want == have for have, want in zip(shape, declared, strict=True)
    )


def _model_class(path: Path, module: object) -> type:
    cls = getattr(module, "Model", None)
    if not isinstance(cls, type):
        raise InvalidArgumentError(f"{path}: has no class Model; docs/engines.md shows what it looks like")
    predict = inspect.getattr_static(cls, "predict", None)
    if predict is None:
        raise InvalidArgumentError(f"{_at(path, cls)}: class Model has no method predict()")
    if inspect.iscoroutinefunction(predict):
        raise InvalidArgumentError(
            f"{_at(path, predict)}: predict() must not be async; workers call it in a thread"
        )
    return cls


def _start(path: Path, cls: type, config: ModelConfig) -> object:
    step = "Model()"
    try:
        model: Any = cls()
        step = "load()"
        load = getattr(model, "load", None)
        if load is not None:
            load(path.parent, dict(config.engine.options))
    except RpcError:
        raise
    except (Exception, SystemExit) as error:
        where = place(error, path.parent)
        raise FailedPreconditionError(
            f"{path}: {step} raised {type(error).__name__}: {one_line(error)}{where}"
        ) from error
    return model


def _at(path: Path, thing: object) -> str:
    """``file:line`` of a class or function, where Python knows the line."""
    try:
        return f"{path}:{inspect.getsourcelines(cast('Any', thing))[1]}"
    except (OSError, TypeError):
        return str(path)


def _describe(
    path: Path, cls: type, model: object, config: ModelConfig, name: str, version: int
) -> ModelMetadata:
    at = _at(path, cls)
    inputs = config.inputs or _declared(at, model, "inputs")
    outputs = config.outputs or _declared(at, model, "outputs")
    if not outputs:
        raise InvalidArgumentError(f"{at}: Model.outputs is empty; expected at least one output")
    batched = getattr(model, "batched", False)
    if not isinstance(batched, bool):
        raise InvalidArgumentError(f"{at}: Model.batched: found {batched!r}; expected True or False")
    for spec in (*inputs, *outputs) if batched else ():
        if not spec.shape or spec.shape[0] is not None:
            raise InvalidArgumentError(
                f"{at}: Model.batched is True, but {spec} does not start with a dimension of any size (None)"
            )
    if batched and not inputs:
        raise InvalidArgumentError(f"{at}: Model.batched is True, but there are no inputs")
    _check_parameters(path, model, inputs)
    return ModelMetadata(
        name=name, version=version, platform="python", inputs=inputs, outputs=outputs, batched=batched
    )


def _declared(at: str, model: object, key: str) -> tuple[TensorSpec, ...]:
    value = getattr(model, key, _MISSING)
    if value is _MISSING:
        raise InvalidArgumentError(
            f"{at}: class Model has no {key}; expected a list of (name, dtype, shape), here or as [[{key}]] "
            "in model.toml"
        )
    if not isinstance(value, list | tuple):
        raise InvalidArgumentError(
            f"{at}: Model.{key}: found {value!r}; expected a list of (name, dtype, shape)"
        )
    specs = tuple(_spec(at, f"Model.{key}[{i}]", item) for i, item in enumerate(cast("list[object]", value)))
    if len({spec.name for spec in specs}) != len(specs):
        raise InvalidArgumentError(
            f"{at}: Model.{key}: found {[s.name for s in specs]}; expected each name once"
        )
    return specs


def _spec(at: str, key: str, item: object) -> TensorSpec:
    if isinstance(item, TensorSpec):
        item = (item.name, item.dtype, item.shape, item.optional)
    form = "(name, dtype, shape) or (name, dtype, shape, optional)"
    if not isinstance(item, list | tuple) or not 3 <= len(cast("list[object]", item)) <= 4:
        raise InvalidArgumentError(f"{at}: {key}: found {item!r}; expected {form}")
    name, dtype, shape, *rest = cast("list[Any]", list(cast("list[object]", item)))
    optional = rest[0] if rest else False
    if not (isinstance(name, str) and name.isidentifier() and isinstance(optional, bool)):
        raise InvalidArgumentError(
            f"{at}: {key}: found {item!r}; expected {form}, where name is a Python identifier"
        )
    if not isinstance(shape, list | tuple) or not all(map(_is_dim, cast("list[object]", shape))):
        raise InvalidArgumentError(
            f"{at}: {key}: found the shape {shape!r}; expected a tuple of sizes or None"
        )
    try:
        wire = dtype if isinstance(dtype, str) else name_of_dtype(np.dtype(dtype))
        dtype_of(wire)
    except (InvalidArgumentError, TypeError) as error:
        text = error.message if isinstance(error, RpcError) else one_line(error)
        raise InvalidArgumentError(f"{at}: {key}: {text}") from error
    return TensorSpec(name, wire, tuple(cast("Sequence[int | None]", shape)), optional)


def _is_dim(dim: object) -> bool:
    return dim is None or (isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0)


def _check_parameters(path: Path, model: Any, inputs: tuple[TensorSpec, ...]) -> None:
    """Find out now, and not at the first request, that ``predict()`` does not take the inputs."""
    try:
        signature = inspect.signature(model.predict)
    except (TypeError, ValueError):  # compiled code may not tell
        return
    for chosen in (inputs, [spec for spec in inputs if not spec.optional]):
        try:
            signature.bind(**{spec.name: None for spec in chosen})
        except TypeError as error:
            names = ", ".join(spec.name for spec in chosen)
            raise InvalidArgumentError(
                f"{_at(path, model.predict)}: predict{signature} cannot take the inputs {names}: {error}"
            ) from error
