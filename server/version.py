"""The installed version of tensorwire."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("tensorwire")
    except PackageNotFoundError:
        return "(not installed)"


VERSION = _version()
