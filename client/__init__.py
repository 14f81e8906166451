"""Thin clients: :class:`Client` for threads, :class:`AsyncClient` for asyncio."""

from .aio import AsyncClient
from .results import Health, ModelMetadata, VersionStatus
from .sync import Client

__all__ = ["AsyncClient", "Client", "Health", "ModelMetadata", "VersionStatus"]
