"""Importing ``model.py`` under a name of its own, so that versions and models never share a module."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import re
import sys
import threading
import traceback
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Final

from ...rpc.errors import FailedPreconditionError, InvalidArgumentError, RpcError
from .base import one_line

_SERIAL: Final = itertools.count(1)
#: ``sys.dont_write_bytecode`` is global: one import at a time may change it.
_IMPORTING: Final = threading.Lock()


class ModelModule:
    """One import of one ``model.py``; ``from .sibling import x`` finds files beside it."""

    def __init__(self, path: Path, name: str, version: int) -> None:
        self._path = path
        # A number makes the name unique when a version is loaded again while the old one still runs.
        safe = re.sub(r"\W", "_", name)
        self.name: Final = f"tensorwire_model_{safe}_{version}_{next(_SERIAL)}"

    def load(self) -> ModuleType:
        """Execute the file.

        Raises:
            InvalidArgumentError: it does not compile, or raises.
            FailedPreconditionError: a module that it imports is not installed.
        """
        spec = importlib.util.spec_from_file_location(
            self.name, self._path, submodule_search_locations=[str(self._path.parent)]
        )
        if spec is None or spec.loader is None:
            raise InvalidArgumentError(f"{self._path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = module
        # The finder caches listings: a helper file that was written a moment ago must be seen.
        importlib.invalidate_caches()
        try:
            with _IMPORTING, _no_bytecode():
                spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            self.unload()
            raise self._translate(error) from error
        return module

    def unload(self) -> None:
        """Forget the module and what it imported from its own directory."""
        for name in [n for n in list(sys.modules) if n == self.name or n.startswith(self.name + ".")]:
            sys.modules.pop(name, None)
        sys.path_importer_cache.pop(str(self._path.parent), None)

    def _translate(self, error: BaseException) -> RpcError:
        if isinstance(error, RpcError):
            return error
        if isinstance(error, SyntaxError):
            file = error.filename or self._path
            return InvalidArgumentError(f"{file}:{error.lineno}: {type(error).__name__}: {error.msg}")
        where = place(error, self._path.parent)
        if isinstance(error, ModuleNotFoundError):
            text = f"{self._path}: {error}; install it where the server runs, or put it beside model.py and "
            return FailedPreconditionError(f"{text}write: from .name import ...{where}")
        return InvalidArgumentError(f"{self._path}: raised {type(error).__name__}: {one_line(error)}{where}")


def place(error: BaseException, directory: Path) -> str:
    """`` (model.py:12)``: the innermost line of the model's own code that ``error`` passed through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(directory):
            return f" ({Path(frame.filename).name}:{frame.lineno})"
    return ""


@contextlib.contextmanager
def _no_bytecode() -> Generator[None, None, None]:
    """Keep ``__pycache__`` out of the repository, which may be read-only and is watched for changes."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
