"""Workers that are processes: the parent's side, and the child's."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .framing import ChildSpec
    from .parent import Answer, WorkerProcess
    from .process import WorkerLost
    from .spawner import Spawner

__all__ = ["Answer", "ChildSpec", "Spawner", "WorkerLost", "WorkerProcess"]

_HOMES: Final = {
    "Answer": "parent",
    "ChildSpec": "framing",
    "Spawner": "spawner",
    "WorkerLost": "process",
    "WorkerProcess": "parent",
}


def __getattr__(name: str) -> Any:
    # Not imported before they are asked for: the child lives in this package, and needs none of the parent's.
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
