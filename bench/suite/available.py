"""Which systems can run here, and how they are set."""

from __future__ import annotations

from ..systems import SYSTEMS


def unavailable(system: str) -> str:
    """Why a system cannot run here; empty where it can."""
    return "" if system in SYSTEMS else "this version does not have it"


def options_of(system: str) -> str:
    """The settings of a system that matter, for people."""
    del system
    return ""
