"""Model lifecycle: from a repository on disk to versions that serve, swapped without a failed request."""

from __future__ import annotations

from .handle import ServableHandle
from .manager import Manager
from .settings import ManagerConfig
from .snapshot import Route, ServingModel, Snapshot

__all__ = ["Manager", "ManagerConfig", "Route", "ServableHandle", "ServingModel", "Snapshot"]
