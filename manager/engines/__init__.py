"""Engines, by name: which one loads what lies in a version's directory."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Final, cast

from ...rpc.errors import FailedPreconditionError
from ..config import ModelConfig
from .base import Array, Engine, Servable

__all__ = ["ENGINES", "Array", "Engine", "Servable", "engine_for", "engine_named"]

#: ``engine.kind`` -> module and class. The order decides where a directory has files for several:
#: ``model.py`` first, because a Python model may well use the ``model.onnx`` beside it.
ENGINES: Final[dict[str, tuple[str, str]]] = {
    "python": (".python", "PythonEngine"),
    "onnxruntime": (".onnx", "OnnxRuntimeEngine"),
}


@cache
def engine_named(kind: str) -> Engine:
    """The engine for an ``engine.kind``; imported when it is first asked for."""
    module, cls = ENGINES[kind]
    return cast("Engine", getattr(importlib.import_module(module, __package__), cls)())


def engine_for(directory: Path, config: ModelConfig) -> tuple[Engine, Path]:
    """Find the engine, and the file it loads, for one version's directory.

    Raises:
        FailedPreconditionError: there is no file that the (configured, else any) engine can load.
    """
    kinds = [config.engine.kind] if config.engine.kind is not None else list(ENGINES)
    engines = [engine_named(kind) for kind in kinds]
    for engine in engines:
        path = engine.find(directory)
        if path is not None:
            return engine, path
    expected = " or ".join(f"{engine.file} (engine {engine.name})" for engine in engines)
    present = ", ".join(sorted(entry.name for entry in directory.iterdir())) if directory.is_dir() else ""
    raise FailedPreconditionError(f"{directory}: no {expected}; it contains: {present or 'nothing'}")
