"""The front end: one thread that owns the ROUTER and the pump.

It admits or rejects, asks the schedulers what runs where, and sends what comes back. It never runs user
code; batches of engines that release the GIL and are known to take less than ``inline_budget`` run here,
because handing them over would take longer (docs/decisions/0001). So health and introspection are answered
even when every worker is busy.
"""

from __future__ import annotations

import logging
import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from ..manager.handle import ServableHandle
from ..manager.snapshot import Snapshot
from ..rpc.errors import CancelledError, DeadlineExceededError, InternalError, RpcError, UnavailableError
from ..rpc.pump import Bundle, ControlMessage, Drained, Pump, PythonPump, Slice
from ..rpc.transport import AnyContext, bind_router, descriptor, last_endpoint
from ..rpc.wire.message import build_control, build_error
from ..rpc.wire.prefix import Kind
from .admission import Admission
from .batch import Batch, Outcome
from .binding import Binding
from .config import ServingConfig
from .runtime import VersionRuntime

_log = logging.getLogger("tensorwire.server")

#: Messages read before anything is run: bounds how long the first waits for the last.
_DRAIN_LIMIT: Final = 1024
#: How often slow peers are tried again, in seconds.
_FLUSH_INTERVAL: Final = 0.002
_POLLIN: Final = int(zmq.POLLIN)

#: Called in the front-end thread for each control call; the answer goes through ``FrontEnd.answer``.
ControlHandler = Callable[[ControlMessage], None]


class FrontEnd:
    """Serves what a snapshot holds. ``start()`` binds and starts the thread, ``close()`` ends it."""

    def __init__(
        self,
        config: ServingConfig,
        snapshot: Callable[[], Snapshot],
        control: ControlHandler,
        *,
        context: AnyContext | None = None,
    ) -> None:
        """``snapshot``: gives the newest snapshot; called for every bundle, so it must be cheap."""
        self.config = config
        self._snapshot = snapshot
        self._control = control
        self._context: AnyContext = context or zmq.Context.instance()
        self._admission = Admission(config)
        self._runtimes: dict[ServableHandle, VersionRuntime] = {}
        self._touched: dict[VersionRuntime, None] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._finished: deque[tuple[VersionRuntime, int, Batch, Outcome]] = deque()
        self._wake_fd = -1
        #: Workers that the grace time did not see finish come to an end after the descriptor is closed.
        self._wake_lock = threading.Lock()
        self._draining = False
        #: One bundle has arrived, and no other together with it.
        self._alone = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self.pump: Pump | None = None
        #: Where clients connect; the port is the real one when the configuration says 0.
        self.endpoint = ""

    # ---------------------------------------------------------------- lifecycle, any thread

    def start(self) -> None:
        """Bind and serve.

        Raises:
            FailedPreconditionError: the address cannot be bound; says why.
        """
        socket = bind_router(self._context, self.config.bind, self.config.max_frame_bytes)
        self.endpoint = last_endpoint(socket)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.pump = PythonPump(socket, max_peer_nbytes=self.config.max_peer_bytes)
        self._thread = threading.Thread(
            target=self._run, args=(socket,), name="tensorwire-front-end", daemon=True
        )
        self._thread.start()

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
            self._admission.config = config

        self.post(replace)

    def answer(self, peer: bytes, frame: bytes) -> None:
        """Send a ready-made frame, from any thread."""
        self.post(lambda: self._pump.send(peer, frame))

    def runtimes(self) -> list[VersionRuntime]:
        """What is served now (a snapshot for introspection)."""
        return list(self._runtimes.values())

    @property
    def draining(self) -> bool:
        """New requests are refused."""
        return self._draining

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return self._admission.in_flight

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    # ---------------------------------------------------------------- the loop

    @property
    def _pump(self) -> Pump:
        assert self.pump is not None
        return self.pump

    def _run(self, socket: zmq.Socket[bytes]) -> None:
        poller = select.poll()
        poller.register(descriptor(socket), select.POLLIN)
        poller.register(self._wake_fd, select.POLLIN)
        pump = self._pump
        try:
            while not self._stopping:
                try:
                    # The socket's descriptor is edge-triggered: read until nothing is there before waiting.
                    while self._step(pump.drain(_DRAIN_LIMIT)):
                        pass
                except Exception:  # noqa: BLE001 - logged, see below
                    # Nothing that a peer or a model does may end the loop; what gets here is a bug.
                    _log.exception("front end: unexpected error; the loop goes on")
                for fd, _ in poller.poll(self._timeout_ms()):
                    if fd == self._wake_fd:
                        os.eventfd_read(fd)
        finally:
            self._shut_down(socket)

    def _step(self, drained: Drained) -> bool:
        """Handle what has arrived.

        Returns:
            Whether anything was done. Then look again before waiting: sending can swallow the signal that
            something has arrived.
        """
        busy = bool(drained.bundles or drained.controls or drained.more or self._finished or self._posted)
        if drained.bundles:
            now = time.monotonic()
            self._alone = len(drained.bundles) == 1
            for bundle in drained.bundles:
                self._route(bundle, now)
        # After the bundles: a CANCEL may have come in together with its request.
        for message in drained.controls:
            self._on_control(message)
        while self._finished:
            self._complete(*self._finished.popleft())
        while self._posted:
            self._posted.popleft()()
        if self._touched:
            self._dispatch()
            busy = True
        if self._pump.holding:
            self._pump.flush()
        return busy

    def _timeout_ms(self) -> int | None:
        """How long to wait for the next event; also puts schedulers whose time has come on the list."""
        if self._finished or self._posted or self._stopping:
            return 0
        now = time.monotonic()
        wake_at: float | None = now + _FLUSH_INTERVAL if self._pump.holding else None
        for runtime in self._runtimes.values():
            if runtime.wake_at is not None:
                if runtime.wake_at <= now:
                    self._touched[runtime] = None
                    return 0
                wake_at = runtime.wake_at if wake_at is None else min(wake_at, runtime.wake_at)
        # Rounded up: waking early would mean spinning until the time has come.
        return None if wake_at is None else int((wake_at - now) * 1e3) + 1

    # ---------------------------------------------------------------- requests in

    def _route(self, bundle: Bundle, now: float) -> None:
        header = bundle.signature.header
        if self._draining:
            self._refuse(Slice(bundle, 0, bundle.requests), UnavailableError("the server is shutting down"))
            return
        snapshot = self._snapshot()
        model = snapshot.models.get(header.model)
        route = (
            None if model is None or header.version is not None or header.label is not None else model.route
        )
        if route is None:
            self._admit(bundle, 0, bundle.requests, now, 0.0)
            return
        # Evenly spread draws from a random start: the requests of one bundle are split as the weights say.
        requests = bundle.requests
        sticky = route.sticky and bundle.routing_key is not None
        start = random.random()
        lo = 0
        while lo < requests:
            hi = lo + 1
            draw = (start + lo) / requests
            if sticky:
                hi = requests
            else:
                target = route.pick(None, draw % 1.0)
                while hi < requests and route.pick(None, ((start + hi) / requests) % 1.0) is target:
                    hi += 1
            self._admit(bundle, lo, hi, now, draw % 1.0)
            lo = hi
        if route.shadow is not None:
            mirrored = int(requests * route.shadow_fraction + random.random())
            if mirrored:
                self._admit_to(route.shadow, bundle.mirror(), 0, mirrored, now)

    def _admit(self, bundle: Bundle, lo: int, hi: int, now: float, draw: float) -> None:
        header = bundle.signature.header
        # A version can begin to unload between the look-up and the acquisition; the newest snapshot then
        # has another.
        for _ in range(3):
            try:
                handle = self._snapshot().resolve(
                    header.model, header.version, header.label, bundle.routing_key, draw
                )
            except RpcError as error:
                self._refuse(Slice(bundle, lo, hi), error)
                return
            if self._admit_to(handle, bundle, lo, hi, now):
                return
        self._refuse(
            Slice(bundle, lo, hi), UnavailableError(f"model {header.model!r} is being unloaded; try again")
        )

    def _admit_to(self, handle: ServableHandle, bundle: Bundle, lo: int, hi: int, now: float) -> bool:
        """Queue requests for a version, or refuse them. False: the version is being unloaded."""
        runtime = self._runtimes.get(handle)
        if runtime is None:
            if handle.closing:
                return False
            runtime = self._add_runtime(handle)
        if runtime.idle and not handle.acquire():
            return False
        binding = runtime.bindings.get(bundle.signature)
        if self._alone and runtime.idle and runtime.runs_at_once(binding, bundle, lo, hi, now):
            runtime.counters.requests += hi - lo
            batch = runtime.batch(binding, [Slice(bundle, lo, hi)], bundle.row_span(lo, hi), now)
            self._answer(runtime, batch, runtime.run_inline(batch))
            handle.release()
            return True
        while lo < hi:
            end, error = lo, binding.error
            if error is None:
                end, error = self._admission.admit(bundle, lo, hi, runtime.load, now)
            if end > lo:
                self._enqueue(runtime, binding, Slice(bundle, lo, end), now)
            lo = end
            if error is not None:
                # The others may have more time, or ask for less.
                lo = hi if binding.error else bundle.deadline_run(end, hi)[0]
                runtime.counters.rejected += lo - end
                self._refuse(Slice(bundle, end, lo), error)
        if runtime.idle:
            handle.release()
        return True

    def _enqueue(self, runtime: VersionRuntime, binding: Binding, part: Slice, now: float) -> None:
        runtime.remember(binding)
        self._admission.enter(part, runtime.load)
        runtime.scheduler.add(part, binding.key, now, together=binding.batched)
        runtime.counters.requests += part.requests
        self._touched[runtime] = None

    def _add_runtime(self, handle: ServableHandle) -> VersionRuntime:
        runtime: VersionRuntime

        def finished(worker: int, batch: Batch, outcome: Outcome) -> None:
            self._finished.append((runtime, worker, batch, outcome))
            self._wake()

        runtime = VersionRuntime(handle, finished, self.config.inline_budget)
        self._runtimes[handle] = runtime
        handle.slot = runtime
        return runtime

    def retire(self, handle: ServableHandle) -> None:
        """Let go of a version that is not published any more once its requests are answered; any thread."""
        if self._thread is not None:
            self.post(lambda: self._retire(handle))

    def reconfigure(self) -> None:
        """Take over settings that have changed on live versions; any thread."""
        if self._thread is not None:
            self.post(self._reconfigure)

    def _reconfigure(self) -> None:
        for runtime in self._runtimes.values():
            if runtime.reconfigure():
                self._touched[runtime] = None

    def _retire(self, handle: ServableHandle) -> None:
        runtime = self._runtimes.get(handle)
        if runtime is not None:
            runtime.retired = True
            self._drop_if_retired(runtime)

    def _drop_if_retired(self, runtime: VersionRuntime) -> None:
        if runtime.retired and runtime.idle:
            self._runtimes.pop(runtime.handle, None)
            runtime.stop()

    def _refuse(self, part: Slice, error: RpcError) -> None:
        if not part.bundle.mirrored:
            self._pump.fail(part, error.code, error.message)

    # ---------------------------------------------------------------- batches

    def _dispatch(self) -> None:
        # Each once: what runs here must not hold back the messages that arrive meanwhile, and refusals.
        touched, self._touched = self._touched, {}
        for runtime in touched:
            now = time.monotonic()
            decision = runtime.scheduler.decide(now)
            runtime.wake_at = decision.wake_at
            for part in decision.expired:
                self._expire(runtime, part)
            for run in decision.runs:
                batch = runtime.batch(runtime.binding_of(run), run.parts, run.rows, now)
                self._admission.start(run.rows, runtime.load)
                if runtime.runs_inline(run, now):
                    self._complete(runtime, run.worker, batch, runtime.run_inline(batch))
                else:
                    runtime.submit(run.worker, batch)

    def _expire(self, runtime: VersionRuntime, part: Slice) -> None:
        runtime.counters.expired += part.requests
        self._admission.start(part.rows, runtime.load)
        waited = time.monotonic() - part.bundle.received
        message = f"the deadline passed after {waited * 1e3:.0f} ms in the queue; the request was not run"
        self._refuse(part, DeadlineExceededError(message))
        self._leave(runtime, part)

    def _complete(self, runtime: VersionRuntime, worker: int, batch: Batch, outcome: Outcome) -> None:
        runtime.worker_done(worker)
        if runtime.scheduler.queued_requests:
            self._touched[runtime] = None
        self._answer(runtime, batch, outcome)
        for part in batch.parts:
            self._leave(runtime, part)

    def _answer(self, runtime: VersionRuntime, batch: Batch, outcome: Outcome) -> None:
        runtime.account(batch, outcome)
        compute_us = int(outcome.compute_seconds * 1e6)
        pump = self._pump
        for result in outcome.results:
            error = result.error
            try:
                template = None if error else runtime.template(batch.binding, result.outputs)
            except RpcError as refusal:
                template, error = None, InternalError(f"the outputs cannot be sent: {refusal.message}")
            row = 0
            for part in result.parts:
                if template is None:
                    assert error is not None
                    runtime.counters.failed += part.requests
                    self._refuse(part, error)
                elif not part.bundle.mirrored:
                    queue_us = int((batch.started - part.bundle.received) * 1e6)
                    pump.reply(part, template, result.outputs, row, queue_us, compute_us)
                row += part.rows

    def _leave(self, runtime: VersionRuntime, part: Slice) -> None:
        self._admission.leave(part, runtime.load)
        if runtime.idle:
            runtime.handle.release()
            self._drop_if_retired(runtime)

    # ---------------------------------------------------------------- everything else

    def _on_control(self, message: ControlMessage) -> None:
        if message.kind == Kind.PING:
            self._pump.send(message.peer, build_control(Kind.PONG, message.id))
        elif message.kind == Kind.CANCEL:
            self._cancel(message)
        else:
            try:
                self._control(message)
            except Exception as error:  # noqa: BLE001 - translated, and logged where it is not the caller's doing
                if not isinstance(error, RpcError):
                    _log.exception("control call failed")
                    error = InternalError(f"{type(error).__name__}: {error}")
                self._pump.send(message.peer, build_error(message.id, 1, error.code, error.message))

    def _cancel(self, message: ControlMessage) -> None:
        for runtime in self.runtimes():
            if not runtime.scheduler.queued_requests:
                continue
            for part in runtime.scheduler.cancel(message.peer, message.id, message.count):
                runtime.counters.cancelled += part.requests
                self._admission.start(part.rows, runtime.load)
                self._refuse(part, CancelledError("cancelled by the client"))
                self._leave(runtime, part)

    def _begin_drain(self) -> None:
        self._draining = True
        self._check_idle()

    def _check_idle(self) -> None:
        if self._admission.in_flight == 0 and not self._pump.holding:
            self._idle.set()
        elif not self._stopping:
            threading.Timer(0.005, self.post, (self._check_idle,)).start()

    def _stop(self) -> None:
        self._stopping = True

    def _shut_down(self, socket: zmq.Socket[bytes]) -> None:
        for runtime in self.runtimes():
            for part in runtime.scheduler.clear():
                self._refuse(part, UnavailableError("the server shut down before the request was run"))
                self._leave(runtime, part)
            runtime.stop()
        # One second for the last replies to leave.
        socket.close(linger=1000)
