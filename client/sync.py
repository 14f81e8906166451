"""The blocking client, for any number of threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Self, cast

import zmq

from ..rpc.errors import InvalidArgumentError, RpcError, UnavailableError, error_from_code
from ..rpc.transport import AnyContext
from .background import Background
from .channel import Channel
from .futures import Callbacks, CallFuture, Waiter
from .gate import Gate
from .lead import Lead
from .link import Link
from .lone import Lone, Outputs
from .pending import Call, Envelope
from .requests import Inputs, Template, Templates, encode_extra
from .results import Health, ModelMetadata, VersionStatus, converted
from .sentinel import DEFAULT, DefaultTimeout, resolved
from .sleeper import Sleeper

#: Nobody gains from looking longer than this, in seconds.
_LONGEST_SPIN: Final = 1.0


class Client:
    """Calls models on a server; thread-safe.

    A caller that is alone reads its answer from the socket itself, so no thread switch lies between it and
    the server. When several are at it, a background thread reads for all of them, and calls that queue up
    while another thread is sending travel in one message (*fused envelope*).

    Use it as a context manager, or call :meth:`close`. The connection is made at the first call.

    Args:
        address: ``tcp://HOST:PORT`` or ``ipc://PATH``.
        timeout: seconds a call may take unless it says otherwise; None: no limit.
        fuse: whether calls may share messages.
        spin: seconds that a caller looks for its answer before it sleeps, at the price of a core: 0.0005 is
            more than most small models take. For a few callers on a machine with idle cores.
        context: a ZeroMQ context to share; default: the process's own.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 1.0,
        fuse: bool = True,
        spin: float = 0.0,
        context: AnyContext | None = None,
    ) -> None:
        if not 0 <= spin <= _LONGEST_SPIN:
            raise InvalidArgumentError(f"spin is {spin!r}; expected seconds from 0 to {_LONGEST_SPIN}")
        self._spin = spin
        self._address = address
        self._timeout = timeout
        self._context: AnyContext = context or zmq.Context.instance()
        self._channel = Channel(address, fuse)
        self._templates = Templates()
        #: Guards link, channel and lead. Held for the time of a send or a receive, and for longer by a lone
        #: caller only, who lets go when somebody else comes.
        self._gate = Gate()
        self._lead = Lead(self._channel.pending)
        self._outbox: deque[tuple[Call, Template, list[Any], float | None]] = deque()
        self._link: Link | None = None
        self._lone: Lone | None = None
        self._background: Background | None = None
        self._callbacks: Callbacks | None = None
        self._closed = False

    def __enter__(self) -> Self:
        with self._gate:
            self._connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---------------------------------------------------------------- calls

    def predict(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | DefaultTimeout | None = DEFAULT,
        outputs: Sequence[str] | None = None,
        routing_key: bytes | str | None = None,
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Outputs:
        """Run a model.

        Args:
            model: its name.
            inputs: input name -> array or nested list. Not copied before they are sent: do not change them
                until the call has returned.
            version, label: which version; neither: the default one.
            timeout: seconds; None: no limit. The server drops what it could not start in time.
            outputs: names of the outputs wanted, in this order; None: all.
            routing_key: requests with equal keys go to the same version of a sticky route.
            priority: 0 normal, 1 high.
            metadata: free key-value pairs that travel with the request.

        Returns:
            Output name -> array. The arrays are read-only views of the message that they came in.

        Raises:
            RpcError: one of its subclasses, within the timeout: InvalidArgumentError (wrong name, dtype or
                shape), NotFoundError, ResourceExhaustedError (overload), DeadlineExceededError,
                UnavailableError (no server, or it is shutting down), InternalError (the model failed).
        """
        extra = b""
        if routing_key is not None or priority or metadata is not None:
            extra = encode_extra(routing_key, priority, metadata)
        template, arrays = self._templates.get(model, inputs, version, label, outputs, extra)
        lone = self._lone
        if lone is not None:
            found = lone.call(template, arrays, self._timeout if timeout is DEFAULT else timeout)
            if found is not None:
                return found if isinstance(found, dict) else self._wait(found)
        return self._call(template, arrays, resolved(timeout, self._timeout))

    def submit(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float | DefaultTimeout | None = DEFAULT,
        outputs: Sequence[str] | None = None,
        routing_key: bytes | str | None = None,
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
    ) -> Future[Outputs]:
        """Like :meth:`predict`, without waiting: a future of its result.

        Cancelling the future takes the request out of the server's queue if it does not run yet.
        """
        extra = encode_extra(routing_key, priority, metadata)
        template, arrays = self._templates.get(model, inputs, version, label, outputs, extra)
        future = CallFuture(self._cancel, self._completer)
        self._submit(future, template, arrays, resolved(timeout, self._timeout))
        self._lead_in_background()
        return cast("Future[Outputs]", future)

    def metadata(self, model: str, *, version: int | None = None, label: str | None = None) -> ModelMetadata:
        """Names, dtypes and shapes of a version's inputs and outputs.

        Raises:
            NotFoundError: no such model, version or label.
        """
        params = {"model": model, "version": version, "label": label}
        return converted(self.control("metadata", params), ModelMetadata)

    def status(self, model: str | None = None) -> list[VersionStatus]:
        """State of every version, or of those of one model.

        Raises:
            NotFoundError: no such model.
        """
        return converted(self.control("status", {"model": model}), list[VersionStatus])

    def health(self) -> Health:
        """State of the server."""
        return converted(self.control("health"), Health)

    def control(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | DefaultTimeout | None = DEFAULT,
    ) -> Any:
        """An administrative call (docs/protocol.md lists the methods); the result as msgpack types."""
        waiter, limit = Waiter(), resolved(timeout, self._timeout)
        with self._gate:
            link = self._connect()
            link.control(waiter, method, dict(params or {}), limit, time.monotonic())
            self._deliver(link)
        return self._wait(waiter)

    def close(self) -> None:
        """Fail what is pending with UNAVAILABLE, close the connection, end the background threads."""
        with self._gate:
            self._closed = True
            lone, self._lone = self._lone, None
            if lone is not None:
                lone.close()
            self._send_outbox()
            self._channel.fail_all("the client was closed")
            background, self._background = self._background, None
            callbacks, self._callbacks = self._callbacks, None
            leading = self._lead.dismiss()
        if background is not None:
            background.stop()
        if leading:
            # Its poll must not find the descriptors of somebody else in the place of closed ones.
            self._lead.depart()
        with self._gate:
            link, self._link = self._link, None
            if link is not None:
                link.close()
            self._lead.close()
        if callbacks is not None:
            callbacks.stop()

    # ---------------------------------------------------------------- inside

    def _connect(self) -> Link:
        """The link, made at the first call. Called under the mutex."""
        if self._closed:
            raise UnavailableError("the client was closed")
        if self._link is None:
            self._link = Link(self._context, self._address, self._channel)
            self._lead.sleeper = Sleeper(self._link.fd, self._spin)
            exchange = self._link.exchange(self._spin)
            if exchange is not None:
                self._lone = Lone(
                    exchange, self._link, self._channel, self._gate, self._lead, self._outbox, self._give_up
                )
            self._background = Background(self._link, self._watch, self._sleep_ms)
            self._background.start()
        return self._link

    def _call(self, template: Template, arrays: list[Any], timeout: float | None) -> Outputs:
        waiter = Waiter()
        try:
            if not self._outbox and self._gate.lock.acquire(blocking=False):
                self._send_single(waiter, template, arrays, timeout)
            else:
                self._submit(waiter, template, arrays, timeout)
        except BaseException:
            self._give_up(waiter)
            raise
        return self._wait(waiter)

    def _send_single(
        self, waiter: Waiter, template: Template, arrays: list[Any], timeout: float | None
    ) -> None:
        """Send one call at once. Called with the mutex held, releases it."""
        try:
            # While it is being closed, the link is still there.
            link = self._connect() if self._closed or self._link is None else self._link
            link.single(waiter, template, arrays, timeout, time.monotonic())
            if self._lead.taken:
                self._deliver(link)
            else:
                self._lead.take(waiter)
        finally:
            self._gate.lock.release()

    def _submit(self, call: Call, template: Template, arrays: list[Any], timeout: float | None) -> None:
        self._outbox.append((call, template, arrays, timeout))
        # Without waiting, so that calls queue up while another thread is sending. The caller looks into the
        # outbox again before it waits for its answer.
        if self._gate.lock.acquire(blocking=False):
            try:
                self._send_outbox()
            finally:
                self._gate.lock.release()

    def _send_outbox(self) -> None:
        """Send what has queued up. Called under the mutex."""
        outbox, channel = self._outbox, self._channel
        if not outbox:
            return
        try:
            link = self._connect()
        except RpcError as error:
            while outbox:
                outbox.popleft()[0].set_exception(error_from_code(error.code, error.message))
            return
        while outbox:
            call, template, arrays, timeout = outbox.popleft()
            if type(call) is not CallFuture:
                channel.enqueue(call, template, arrays, timeout)
            elif not call.done():
                call.envelope = channel.enqueue(call, template, arrays, timeout)
        link.flush(time.monotonic())
        self._deliver(link)

    def _deliver(self, link: Link) -> None:
        """Read what has arrived, as somebody who does not lead. Called under the mutex, after every send:
        sending can swallow the signal that something has arrived."""
        link.receive()
        self._lead.nudge()

    def _wait(self, waiter: Waiter) -> Any:
        lead = self._lead
        try:
            if lead.caller is not waiter and not waiter.finished:
                with self._gate:
                    self._send_outbox()
                    if not lead.taken and not waiter.finished:
                        lead.take(waiter)
            if lead.caller is waiter:
                self._deliver_all(waiter)
            elif not waiter.finished:
                self._follow(waiter)
        except BaseException:
            self._give_up(waiter)
            raise
        return waiter.result()

    def _give_up(self, waiter: Waiter) -> None:
        """After a KeyboardInterrupt, say: nobody will ask for the answer."""
        with self._gate:
            try:
                for envelope in list(self._channel.pending.envelopes.values()):
                    if waiter in envelope.calls:
                        self._send_cancel(envelope, waiter)
            finally:
                self._lead.step_down(waiter, self._background)

    def _deliver_all(self, waiter: Waiter) -> None:
        """Lead: deliver what arrives until the own answer is there."""
        gate, lead, channel = self._gate, self._lead, self._channel
        while not waiter.finished:
            with gate:
                # What queued up while the mutex was held for the caller's own message.
                if self._outbox:
                    self._send_outbox()
                arrived = self._link is not None and self._link.receive_one()
                if not waiter.finished:
                    # However much arrives for others: nobody's timeout waits for that.
                    channel.expire(time.monotonic())
                if arrived or waiter.finished:
                    continue
                sleep_ms, sleeper = lead.sleep_ms(), lead.sleeper
            # There as long as somebody leads: close() waits for his departure.
            assert sleeper is not None
            sleeper.sleep(sleep_ms)
        with gate:
            lead.step_down(waiter, self._background)

    def _follow(self, waiter: Waiter) -> None:
        """Wait for somebody else to deliver the answer."""
        with self._gate:
            seconds = self._lead.seconds_to_deadline()
        while not waiter.wait(seconds):
            with self._gate:
                if self._link is not None:
                    self._link.receive()
                    self._channel.expire(time.monotonic())
                self._lead.nudge()
                seconds = self._lead.seconds_to_deadline()

    def _lead_in_background(self) -> None:
        with self._gate:
            self._send_outbox()
            if self._background is not None:
                self._lead.entrust(self._background)

    def _sleep_ms(self) -> int:
        with self._gate:
            return self._lead.sleep_ms()

    def _watch(self) -> None:
        """What the background thread does whenever it is woken."""
        with self._gate:
            link, background, channel = self._link, self._background, self._channel
            if link is None or background is None:
                return
            link.observe()
            if background.leading:
                link.receive()
                channel.expire(time.monotonic())
                self._lead.rest(background)
            self._lead.nudge()

    def _completer(self) -> Callbacks:
        """Called under the mutex."""
        if self._callbacks is None:
            self._callbacks = Callbacks()
        return self._callbacks

    def _cancel(self, envelope: Envelope, call: Call) -> None:
        with self._gate:
            self._send_cancel(envelope, call)

    def _send_cancel(self, envelope: Envelope, call: Call) -> None:
        if self._link is not None and self._link.cancel(envelope, call):
            self._deliver(self._link)
