"""The inference server."""

from .config import ServingConfig
from .service import Server

__all__ = ["Server", "ServingConfig"]
