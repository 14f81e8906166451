"""Opening an ONNX Runtime session: options, providers, and load errors that name the remedy."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from ...rpc.errors import FailedPreconditionError, InvalidArgumentError, RpcError
from ..config import EngineConfig
from ..decode import bad_value, decode
from .base import one_line

Scalar = str | int | float | bool

_QUIET: Final = 4  # "fatal": everything else comes back as an exception, and would be said twice
_NOISE: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|\S+\.(?:cc|h):\d+ "
)
_IR_VERSION: Final = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET: Final = re.compile(r"Opset (\d+) is under development.*?opset (?:version )?(?:is )?(\d+)", re.DOTALL)
_LEVELS: Final = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class OnnxOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``[engine.options]`` of a model that ONNX Runtime runs. ``docs/engines.md`` explains each."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    provider_options: dict[str, dict[str, Scalar]] = {}
    graph_optimization: Literal["disable", "basic", "extended", "all"] = "all"
    parallel: bool = False
    allow_spinning: bool = False
    memory_arena: bool = False
    memory_pattern: bool = False
    overridable_initializers: bool = True
    session_config: dict[str, str] = {}
    ram_factor: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 2.0

    def __post_init__(self) -> None:
        if not self.providers:
            raise bad_value("engine.options.providers", [], "at least one execution provider")
        for provider in self.provider_options:
            if provider not in self.providers:
                raise bad_value(
                    f"engine.options.provider_options.{provider}", provider, f"one of {list(self.providers)}"
                )


def read_options(config: EngineConfig, source: str | Path) -> OnnxOptions:
    """Check ``[engine.options]``; ``source`` starts the message.

    Raises:
        InvalidArgumentError: an unknown or bad option.
    """
    return decode(config.options, OnnxOptions, source=source, prefix="engine.options")


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module, which takes 0.1 s to import and is not part of the thin client.

    Raises:
        FailedPreconditionError: it is not installed, or does not load on this machine.
    """
    try:
        ort: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise FailedPreconditionError(
            f"ONNX models need onnxruntime: pip install 'tensorwire[server]' ({one_line(error)})"
        ) from error
    ort.set_default_logger_severity(_QUIET)
    return ort


def open_session(ort: Any, path: Path, config: EngineConfig, options: OnnxOptions) -> Any:
    """An ``InferenceSession`` on exactly the providers asked for.

    Raises:
        FailedPreconditionError: a provider is not there on this machine.
        InvalidArgumentError: the model cannot be loaded; names the file and the remedy.
    """
    _check_providers(ort, path, options)
    # ONNX Runtime's fallback would silently run a GPU model on the CPU.
    arguments: dict[str, Any] = {"enable_fallback": 0}
    providers = [(name, options.provider_options.get(name, {})) for name in options.providers]
    try:
        session = ort.InferenceSession(
            str(path), _session_options(ort, config, options), providers=providers, **arguments
        )
    except Exception as error:
        raise _load_error(ort, path, error) from error
    _check_active(path, session, options)
    return session


def _session_options(ort: Any, config: EngineConfig, options: OnnxOptions) -> Any:
    result = ort.SessionOptions()
    result.log_severity_level = _QUIET
    result.intra_op_num_threads = config.intra_op_threads or 1
    result.inter_op_num_threads = config.inter_op_threads or 1
    result.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[options.graph_optimization])
    if options.parallel:
        result.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    result.enable_cpu_mem_arena = options.memory_arena
    result.enable_mem_pattern = options.memory_pattern
    # Idle threads that spin take the cores from the other workers and the front end.
    spinning = "1" if options.allow_spinning else "0"
    result.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    result.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    for key, value in options.session_config.items():
        result.add_session_config_entry(key, value)
    return result


def _check_providers(ort: Any, path: Path, options: OnnxOptions) -> None:
    available: list[str] = ort.get_available_providers()
    for provider in options.providers:
        if provider not in available:
            raise FailedPreconditionError(
                f"{path}: engine.options.providers: {provider!r} is not in the installed onnxruntime "
                f"{ort.__version__}, which has {', '.join(available)}; install the build that has it"
            )


def _check_active(path: Path, session: Any, options: OnnxOptions) -> None:
    active: list[str] = session.get_providers()
    for provider in options.providers:
        if provider not in active:
            raise FailedPreconditionError(
                f"{path}: execution provider {provider!r} could not be started on this machine "
                f"(its device or a library that it needs is missing); active: {', '.join(active)}"
            )


def _load_error(ort: Any, path: Path, error: Exception) -> RpcError:
    text = str(error)
    kind = type(error).__name__
    if kind == "NoSuchFile":
        return FailedPreconditionError(f"{path}: does not exist or cannot be read")
    if kind == "InvalidProtobuf" or "No graph was found" in text:
        return InvalidArgumentError(f"{path}: not an ONNX model, or only a part of one; copy it again")
    match = _IR_VERSION.search(text)
    if match:
        return InvalidArgumentError(
            f"{path}: ONNX IR version {match[1]}, but onnxruntime {ort.__version__} reads up to {match[2]}; "
            "upgrade onnxruntime, or export the model again with an older onnx"
        )
    match = _OPSET.search(text)
    if match:
        return InvalidArgumentError(
            f"{path}: opset {match[1]}, but onnxruntime {ort.__version__} supports up to {match[2]}; "
            "upgrade onnxruntime, or export the model again with an older opset"
        )
    remedy = _remedy(kind, text)
    return InvalidArgumentError(
        f"{path}: onnxruntime {ort.__version__} cannot load it: {clean(text)}{remedy}"
    )


def _remedy(kind: str, text: str) -> str:
    if "xternal" in text:
        return "; copy the external data files that belong to the model beside it again"
    if kind == "NotImplemented":
        return (
            "; this provider lacks the operator: export with another opset or dtype, or use another provider"
        )
    if "No Op registered" in text or "No opset import" in text:
        return "; custom operators are not supported: export the model with standard ones"
    return ""


def clean(text: object) -> str:
    """ONNX Runtime's message on one line, without its prefixes and source positions."""
    return one_line(_NOISE.sub("", str(text)))
