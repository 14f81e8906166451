"""How a route splits the requests of a bundle."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..manager.snapshot import Route
from ..rpc.pump import Bundle


def shares(route: Route, bundle: Bundle) -> Iterator[tuple[int, int, float]]:
    """Ranges of a bundle's requests that go to one target each, with a draw that leads there.

    Draws are spread evenly from a random start, so that each bundle is split as the weights say.
    """
    requests = bundle.requests
    start = random.random()
    if route.sticky and bundle.routing_key is not None:
        yield 0, requests, start
        return
    lo = 0
    while lo < requests:
        hi = lo + 1
        draw = (start + lo) / requests % 1.0
        target = route.pick(None, draw)
        while hi < requests and route.pick(None, (start + hi) / requests % 1.0) is target:
            hi += 1
        yield lo, hi, draw
        lo = hi
