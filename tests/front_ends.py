"""Servers with several front ends, and connections at the one that a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tensorwire.client import Client

LONG = 20.0
#: The kernel chooses by chance: so many connections at one of two front ends do not happen.
_TRIES = 64


def until(condition: Callable[[], Any], seconds: float = LONG) -> Any:
    """Wait for what comes by itself."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
    return found


def others(client: Client) -> list[dict[str, Any]]:
    """What the server says about its further front ends."""
    found: list[dict[str, Any]] = client.control("stats")["front_ends"]
    return found


def _at_another(client: Client) -> bool:
    def passed_on() -> int:
        return sum(each["pump"]["messages"] for each in others(client))

    # Who asks through another front end is counted there, before the server answers.
    return -passed_on() + passed_on() > 0


def connect(endpoint: str, *, at_server: bool, timeout: float = LONG, **options: Any) -> Client:
    """A client with a connection to the server process itself, or to another front end."""
    for _ in range(_TRIES):
        client = Client(endpoint, timeout=timeout, **options)
        if _at_another(client) != at_server:
            return client
        client.close()
    raise AssertionError("no connection came to the front end that was wanted")
