"""The inference server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ServingConfig
    from .service import Server

__all__ = ["Server", "ServingConfig"]


def __getattr__(name: str) -> Any:
    # Not imported before they are asked for: the command line lives in this package, and
    # `tensorwire --help` needs neither ZeroMQ nor NumPy.
    if name == "Server":
        from .service import Server

        return Server
    if name == "ServingConfig":
        from .config import ServingConfig

        return ServingConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
