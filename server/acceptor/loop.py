"""An acceptor's loop: one thread that owns the ROUTER of its clients and the DEALER towards the server."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Sequence
from typing import Final

import zmq

from ...rpc.pump import Pump
from ...rpc.transport import descriptor
from .link import Link
from .proxy import Proxy
from .tally import Tally

_log = logging.getLogger("tensorwire.server")

#: Messages read before they are passed on: bounds how long the first waits for the last.
_DRAIN_LIMIT: Final = 1024
#: How often slow peers are tried again, in milliseconds.
_FLUSH_MS: Final = 2


class Acceptor:
    """Passes on what comes until the connection to the server is gone."""

    def __init__(self, link: Link, router: zmq.Socket[bytes], pump: Pump, tally: Tally) -> None:
        self._link = link
        self._pump = pump
        self._proxy = Proxy(pump, link.send)
        self._tally = tally
        self._heard = False
        self._poller = select.poll()
        for fd in (descriptor(router), link.fd, link.monitor_fd):
            self._poller.register(fd, select.POLLIN)

    def run(self) -> None:
        """Until the server is gone and everything that it has answered was sent."""
        while True:
            try:
                self._until_silent()
            except Exception:  # noqa: BLE001 - logged, see below
                # Nothing that a peer does may end the loop; what gets here is a bug.
                _log.exception("front end: unexpected error; the loop goes on")
                continue
            if self._proxy.down and not self._pump.holding:
                return
            self._poller.poll(_FLUSH_MS if self._pump.holding else None)

    def _until_silent(self) -> None:
        # The descriptors are edge-triggered: read until nothing is there, at both, before waiting.
        while self._step():
            pass
        self._tally.write(self._pump.counters)
        self._link.observe()
        if self._link.lost and not self._proxy.down:
            # What it has sent before is here: it was passed on with the connection's end still to come.
            self._link.receive(self._proxy.receive)
            self._proxy.give_up("the server is shutting down, or was lost")

    def _step(self) -> bool:
        """Handle what has arrived; whether there was anything."""
        self._heard = False
        self._link.receive(self._deliver)
        kept = self._link.kept
        room = self._proxy.down or self._link.flush()
        busy = self._heard or self._link.kept != kept
        if room:
            drained = self._pump.drain(_DRAIN_LIMIT)
            if drained.bundles or drained.controls or drained.more:
                busy = True
                # Before it is passed on: who asks the server for the counters is among what they count.
                self._tally.write(self._pump.counters)
                self._proxy.take(drained, time.monotonic())
        if self._pump.holding:
            self._pump.flush()
        return busy

    def _deliver(self, head: bytes | memoryview, frames: Sequence[memoryview]) -> None:
        self._heard = True
        self._proxy.receive(head, frames)
