"""What the blocking client's callers wait on: a waiter for :meth:`~.sync.Client.predict`, a future for
:meth:`~.sync.Client.submit`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import _base as states  # pyright: ignore[reportPrivateUsage]
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from .pending import Envelope


class Waiter:
    """What a blocked caller waits on; lighter than a future."""

    __slots__ = ("_error", "_lock", "_result", "finished")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._result: Any = None
        self._error: BaseException | None = None
        self.finished = False

    def done(self) -> bool:
        return self.finished

    def set_result(self, result: Any, /) -> None:
        self._result = result
        self.finished = True
        self._lock.release()

    def set_exception(self, exception: BaseException, /) -> None:
        self._error = exception
        self.finished = True
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Block until finished; whether it is."""
        return self._lock.acquire(timeout=timeout)

    def result(self) -> Any:
        if self._error is not None:
            try:
                raise self._error
            finally:
                # The traceback refers to this frame: without this they would keep each other alive.
                del self
        return self._result


class CallFuture(Future[Any]):
    """A future whose ``cancel()`` reaches the server, and whose callbacks run where they may do anything.

    The client sets results while it holds its lock, under which no code of the user may run.
    """

    def __init__(
        self, cancelled: Callable[[Envelope, CallFuture], None], callbacks: Callable[[], Callbacks]
    ) -> None:
        """``cancelled``: called, without locks, when the user has cancelled a call that was sent."""
        super().__init__()
        self._cancelled = cancelled
        self._callbacks = callbacks
        self._watched = False
        self.envelope: Envelope | None = None

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        # Before it is added: a result that comes in between takes the long way, which is always right.
        self._watched = True
        super().add_done_callback(fn)

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        with self._condition:
            if self._state == states.CANCELLED:
                # Only now do concurrent.futures.wait() and as_completed() take it for done.
                self.set_running_or_notify_cancel()
        if self.envelope is not None:
            self._cancelled(self.envelope, self)
        return True

    def set_result(self, result: Any) -> None:
        self._finish(partial(super().set_result, result))

    def set_exception(self, exception: BaseException | None) -> None:
        self._finish(partial(super().set_exception, exception))

    def _finish(self, finish: Callable[[], None]) -> None:
        with self._condition:
            if not self._watched:
                # The user may have cancelled it a moment ago.
                with suppress(InvalidStateError):
                    finish()
                return
        self._callbacks().put(finish)


class Callbacks:
    """A thread that completes the futures that have callbacks; made when there is one."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tensorwire-callbacks", daemon=True)
        self._thread.start()

    def put(self, finish: Callable[[], None]) -> None:
        """Complete a future soon."""
        self._inbox.put(finish)

    def stop(self) -> None:
        """Complete those that are queued, then end; may be called by a callback."""
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (finish := self._inbox.get()) is not None:
            with suppress(InvalidStateError):
                finish()
            del finish
