"""The front end: one thread that owns the ROUTER and the pump, and has the dispatcher work.

It never runs user code; batches of engines that release the GIL and are known to take less than
``inline_budget`` run here, because handing them over would take longer (docs/decisions/0001). So health and
introspection are answered even when every worker is busy.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from ..manager.handle import ServableHandle
from ..manager.snapshot import Snapshot
from ..rpc.errors import InternalError, RpcError
from ..rpc.pump import ControlMessage, Drained, Pump, make_pump
from ..rpc.transport import AnyContext, bind_own, bind_router, descriptor, last_endpoint
from ..rpc.wire.message import build_control, build_error
from ..rpc.wire.prefix import Kind
from .acceptor.link import WAITING
from .acceptor.port import BACKLOG, claim, reserve
from .batch import Batch, Outcome
from .config import ServingConfig
from .dispatcher import Dispatcher
from .runtime import VersionRuntime

_log = logging.getLogger("tensorwire.server")

#: Messages read before anything is run: bounds how long the first waits for the last.
_DRAIN_LIMIT: Final = 1024
#: How often slow peers are tried again, in seconds.
_FLUSH_INTERVAL: Final = 0.002

#: Called in the front-end thread for each control call; the answer goes through ``FrontEnd.answer``.
ControlHandler = Callable[[ControlMessage], None]


def _ignore_broken(handle: ServableHandle, reason: str) -> None:
    del handle, reason


class FrontEnd:
    """Serves what a snapshot holds. ``start()`` binds and starts the thread, ``close()`` ends it."""

    def __init__(
        self,
        config: ServingConfig,
        snapshot: Callable[[], Snapshot],
        control: ControlHandler,
        *,
        broken: Callable[[ServableHandle, str], None] = _ignore_broken,
        context: AnyContext | None = None,
    ) -> None:
        """
        Args:
            snapshot: gives the newest snapshot; called for every bundle, so it must be cheap.
            broken: called in the front-end thread when a version's workers keep dying, with the reason.
        """
        self.config = config
        self._snapshot = snapshot
        self._control = control
        self._broken = broken
        self._context: AnyContext = context or zmq.Context.instance()
        self._posted: deque[Callable[[], None]] = deque()
        self._finished: deque[tuple[VersionRuntime, int, Batch, Outcome]] = deque()
        #: What else is listened to, by descriptor: the worker processes.
        self._watched: dict[int, Callable[[], None]] = {}
        #: For everything, and for all but the clients.
        self._poller, self._inner_poller = select.poll(), select.poll()
        self._wake_fd = -1
        #: Workers that the grace time did not see finish come to an end after the descriptor is closed.
        self._wake_lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None
        #: The thread's.
        self._ident = 0
        self._idle = threading.Event()
        self.pump: Pump | None = None
        self._started: Dispatcher | None = None
        #: Where clients connect; the port is the real one when the configuration says 0.
        self.endpoint = ""
        #: Where the acceptors connect; empty where there are none.
        self.inner_endpoint = ""

    # ---------------------------------------------------------------- lifecycle, any thread

    def start(self) -> None:
        """Bind and serve.

        Raises:
            FailedPreconditionError: the address cannot be bound; says why.
        """
        socket = self._bind()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.pump = make_pump(socket, max_peer_nbytes=self.config.max_peer_bytes)
        self._started = Dispatcher(self.config, self._snapshot, self.pump, self)
        self._thread = threading.Thread(
            target=self._run, args=(socket,), name="tensorwire-front-end", daemon=True
        )
        self._thread.start()

    def _bind(self) -> zmq.Socket[bytes]:
        config = self.config
        if config.front_ends == 1:
            socket = bind_router(self._context, config.bind, config.max_frame_bytes)
            self.endpoint = last_endpoint(socket)
            return socket
        self.endpoint = claim(config.bind)
        with reserve(self.endpoint) as listener:
            listener.listen(BACKLOG)
            socket = bind_router(self._context, self.endpoint, config.max_frame_bytes, listener)
        self.inner_endpoint = bind_own(socket, f"tensorwire-{secrets.token_hex(8)}", WAITING)
        return socket

    def drain(self, grace: float) -> bool:
        """Refuse new requests with UNAVAILABLE and wait until those in flight are answered.

        Returns:
            Whether all were answered within ``grace`` seconds.
        """
        self.post(self._begin_drain)
        return self._idle.wait(grace)

    def close(self) -> None:
        """End the thread; what is still in flight is answered with UNAVAILABLE."""
        if self._thread is None:
            return
        self.post(self._stop)
        self._thread.join()
        self._thread = None
        with self._wake_lock:
            wake_fd, self._wake_fd = self._wake_fd, -1
            os.close(wake_fd)

    def post(self, action: Callable[[], None]) -> None:
        """Have the front-end thread call ``action``."""
        self._posted.append(action)
        self._wake()

    def apply(self, config: ServingConfig) -> None:
        """Take over limits that have changed; any thread. Socket and pump keep theirs."""

        def replace() -> None:
            self.config = config
            self._dispatcher.apply(config)

        self.post(replace)

    def answer(self, peer: bytes, frame: bytes) -> None:
        """Send a ready-made frame, from any thread."""
        self.post(lambda: self._pump.send(peer, frame))

    def allow(self, peer: bytes, max_nbytes: int | None) -> None:
        """See :meth:`~tensorwire.rpc.pump.Pump.allow`; any thread."""
        self.post(lambda: self._pump.allow(peer, max_nbytes))

    def runtimes(self) -> list[VersionRuntime]:
        """What is served now (a snapshot for introspection)."""
        return [] if self._started is None else self._started.runtimes()

    @property
    def draining(self) -> bool:
        """New requests are refused."""
        return self._started is not None and self._started.draining

    @property
    def messages(self) -> int:
        """Messages so far, either way."""
        if self.pump is None:
            return 0
        counters = self.pump.counters
        return counters.messages + counters.replies

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return 0 if self._started is None else self._started.in_flight

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    # ---------------------------------------------------------------- what the dispatcher needs

    def completed(self, runtime: VersionRuntime, worker: int, batch: Batch, outcome: Outcome) -> None:
        """See :class:`~.desk.Desk`."""
        self._finished.append((runtime, worker, batch, outcome))
        if threading.get_ident() != self._ident:
            self._wake()

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """See :class:`~.desk.Desk`."""
        self._watched[fd] = action
        self._poller.register(fd, select.POLLIN)
        self._inner_poller.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """See :class:`~.desk.Desk`."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)
            self._inner_poller.unregister(fd)

    def broken(self, handle: ServableHandle, reason: str) -> None:
        """See :class:`~.desk.Desk`."""
        self._broken(handle, reason)

    # ---------------------------------------------------------------- the loop

    @property
    def _dispatcher(self) -> Dispatcher:
        assert self._started is not None
        return self._started

    @property
    def _pump(self) -> Pump:
        assert self.pump is not None
        return self.pump

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        self._ident = threading.get_ident()
        poller, inner = self._poller, self._inner_poller
        poller.register(descriptor(socket), select.POLLIN)
        poller.register(self._wake_fd, select.POLLIN)
        inner.register(self._wake_fd, select.POLLIN)
        pump = self._pump
        try:
            while not self._stopping:
                try:
                    # The socket's descriptor is edge-triggered: read until nothing is there before waiting.
                    while self._step(pump.drain(_DRAIN_LIMIT)):
                        if self._watched:
                            self._attend(inner.poll(0))
                except Exception:  # noqa: BLE001 - logged, see below
                    # Nothing that a peer or a model does may end the loop; what gets here is a bug.
                    _log.exception("front end: unexpected error; the loop goes on")
                    continue
                timeout_ms = self._timeout_ms()
                pause_ms = self._pause_ms()
                if pause_ms and (timeout_ms is None or timeout_ms > pause_ms):
                    # Peers are not listened to, workers and other threads are.
                    found = inner.poll(pause_ms)
                else:
                    found = poller.poll(timeout_ms)
                self._attend(found)
        finally:
            self._shut_down(socket)

    def _attend(self, found: list[tuple[int, int]]) -> None:
        """See to the descriptors that are not the clients' socket."""
        for fd, _ in found:
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd in self._watched:
                self._watched[fd]()

    def _step(self, drained: Drained) -> bool:
        """Handle what has arrived.

        Returns:
            Whether anything was done. Then look again before waiting: sending can swallow the signal that
            something has arrived.
        """
        busy = bool(drained.bundles or drained.controls or drained.more or self._finished or self._posted)
        dispatcher = self._dispatcher
        if drained.bundles:
            dispatcher.take(drained.bundles, time.monotonic())
        # After the bundles: a CANCEL may have come in together with its request.
        for message in drained.controls:
            self._on_control(message)
        while self._finished:
            dispatcher.complete(*self._finished.popleft())
        while self._posted:
            self._posted.popleft()()
        if dispatcher.touched:
            dispatcher.dispatch()
            busy = True
        if self._pump.holding:
            self._pump.flush()
        return busy

    def _timeout_ms(self) -> int | None:
        """How long to wait for the next event."""
        if self._finished or self._posted or self._stopping:
            return 0
        now = time.monotonic()
        wake_at = self._dispatcher.wake_at(now)
        if self._pump.holding:
            wake_at = min(wake_at or now + _FLUSH_INTERVAL, now + _FLUSH_INTERVAL)
        # Rounded up: waking early would mean spinning until the time has come.
        return None if wake_at is None else max(0, int((wake_at - now) * 1e3) + 1)

    def _pause_ms(self) -> int:
        """How long requests may gather because the last ones were refused for overload; 0: they may not."""
        overloaded, self._dispatcher.overloaded = self._dispatcher.overloaded, False
        return math.ceil(self.config.refusal_pause * 1e3) if overloaded else 0

    # ---------------------------------------------------------------- the manager's news, any thread

    def retire(self, handle: ServableHandle) -> None:
        """Let go of a version that is not published any more once its requests are answered; any thread."""
        if self._thread is not None:
            self.post(lambda: self._dispatcher.retire(handle))

    def reconfigure(self) -> None:
        """Take over settings that have changed on live versions; any thread."""
        if self._thread is not None:
            self.post(self._dispatcher.reconfigure)

    # ---------------------------------------------------------------- everything else

    def _on_control(self, message: ControlMessage) -> None:
        if message.kind == Kind.PING:
            self._pump.send(message.peer, build_control(Kind.PONG, message.id))
        elif message.kind == Kind.CANCEL:
            self._dispatcher.cancel(message.peer, message.id, message.count)
        else:
            try:
                self._control(message)
            except Exception as error:  # noqa: BLE001 - translated, and logged where it is not the caller's doing
                if not isinstance(error, RpcError):
                    _log.exception("control call failed")
                    error = InternalError(f"{type(error).__name__}: {error}")
                self._pump.send(message.peer, build_error(message.id, 1, error.code, error.message))

    def _begin_drain(self) -> None:
        self._dispatcher.draining = True
        self._check_idle()

    def _check_idle(self) -> None:
        if self._dispatcher.in_flight == 0 and not self._pump.holding:
            self._idle.set()
        elif not self._stopping:
            threading.Timer(0.005, self.post, (self._check_idle,)).start()

    def _stop(self) -> None:
        self._stopping = True

    def _shut_down(self, socket: zmq.Socket[bytes]) -> None:
        self._dispatcher.close()
        # One second for the last replies to leave.
        socket.close(linger=1000)
