"""What the introspection calls return."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ..rpc.errors import ProtocolError
from ..rpc.types import ModelMetadata, VersionStatus

T = TypeVar("T")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a server."""

    #: Every wanted version is available or has definitively failed, and the server is not shutting down.
    ready: bool
    #: New requests are refused because the server is shutting down.
    draining: bool
    #: Names of the models that serve at least one version.
    models: tuple[str, ...] = ()
    #: Requests that wait or run.
    in_flight: int = 0
    #: Seconds since the server started.
    uptime: float = 0.0
    #: Server version and what it runs on: pump, engines.
    server: str = ""
    pump: str = ""


def converted(result: Any, kind: type[T]) -> T:
    """A control call's result as a typed value. Raises ProtocolError if it does not fit."""
    try:
        return msgspec.convert(result, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the server's answer is not understood: {error}") from None


__all__ = ["Health", "ModelMetadata", "VersionStatus", "converted"]
