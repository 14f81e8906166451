"""tensorwire's client for greenlets: what a program that runs on gevent can copy.

``Client.predict`` waits in C, and with it would the whole hub. ``Client.submit`` does not wait: the greenlet
that called it sleeps in the hub until the answer is there, and all others go on.

The future is finished by the client's own thread. Without ``gevent.monkey.patch_all()`` that is a real
thread, which must not touch greenlets. With it, as in Locust, it is a greenlet of the same hub: its locks and
its poll are gevent's, so it cooperates. Either may signal an ``async`` watcher, the one thing of a loop that
any thread may use, and the hub does the rest; so the same code serves both.

Patch before the first import of pyzmq, as for every library.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any, Final, Self, TypeVar, cast

import gevent
from gevent.hub import Waiter

from ..client import Client
from ..client.requests import Inputs

_Result = TypeVar("_Result")


class FutureWaiter:
    """Lets the greenlets of one hub wait for futures that any thread may finish; made in its thread."""

    def __init__(self) -> None:
        self._hub: Final = cast(Any, gevent.get_hub())
        #: Appended to by any thread, emptied by the hub.
        self._finished: Final[deque[Any]] = deque()
        # Started once and for all: a signal to a watcher that is not started is lost.
        self._watcher: Final = self._hub.loop.async_()
        self._watcher.start(self._wake)

    def wait(self, future: Future[_Result]) -> _Result:
        """Sleep until ``future`` is finished; its result, or its exception. It is cancelled if the greenlet
        is killed, or its ``gevent.Timeout`` is over."""
        waiter: Waiter[None] = Waiter(self._hub)
        future.add_done_callback(lambda _: self._tell(waiter))
        try:
            waiter.get()
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def close(self) -> None:
        """Wake those whose futures are finished; nobody else waits any more."""
        self._watcher.stop()
        self._watcher.close()
        self._hub.loop.run_callback(self._wake)

    def _tell(self, waiter: Any) -> None:
        self._finished.append(waiter)
        self._watcher.send()

    def _wake(self) -> None:
        # Signals that come together may arrive as one.
        while self._finished:
            self._finished.popleft().switch(None)


class GeventClient:
    """A client whose calls block the greenlet that makes them, and no other; for all greenlets of a hub.

    Args:
        address, timeout: as of :class:`~tensorwire.client.Client`.
    """

    def __init__(self, address: str, *, timeout: float | None = 1.0) -> None:
        self._client = Client(address, timeout=timeout)
        self._waiter: FutureWaiter | None = None

    def __enter__(self) -> Self:
        self._waiter = FutureWaiter()
        self._client.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def predict(self, model: str, inputs: Inputs, **options: Any) -> dict[str, Any]:
        """As :meth:`tensorwire.client.Client.predict`, with its options and its errors."""
        assert self._waiter is not None, "enter the client first"
        return self._waiter.wait(self._client.submit(model, inputs, **options))

    def close(self) -> None:
        """As :meth:`tensorwire.client.Client.close`."""
        self._client.close()
        if self._waiter is not None:
            self._waiter.close()
            self._waiter = None
