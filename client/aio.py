"""The asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt
import zmq

from ..rpc.errors import UnavailableError
from ..rpc.transport import AnyContext
from .channel import Channel
from .link import Link
from .pending import Envelope
from .requests import Inputs, Templates, encode_extra
from .results import Health, ModelMetadata, VersionStatus, converted
from .sentinel import DEFAULT, DefaultTimeout, resolved

Outputs = dict[str, npt.NDArray[Any]]


class AsyncClient:
    """Calls models on a server from one asyncio event loop.

    Calls that are issued in the same pass of the loop travel in one message (*fused envelope*) where they
    are small and of one kind. Nothing waits for that: with nothing in flight a call is sent at once.

    Use it as an async context manager, or call :meth:`close`. It belongs to the loop of its first call.

    Args:
        address: ``tcp://HOST:PORT`` or ``ipc://PATH``.
        timeout: seconds a call may take unless it says otherwise; None: no limit.
        fuse: whether calls may share messages.
        context: a ZeroMQ context to share; default: the process's own.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 1.0,
        fuse: bool = True,
        context: AnyContext | None = None,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._context: AnyContext = context or zmq.Context.instance()
        self._channel = Channel(address, fuse)
        self._templates = Templates()
        self._fuse = fuse
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._flush_scheduled = False
        self._check_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False

    async def __aenter__(self) -> Self:
        self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---------------------------------------------------------------- calls

    async def predict(
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
        loop = self._loop or self._connect()
        limit = resolved(timeout, self._timeout)
        call: asyncio.Future[Outputs] = loop.create_future()
        channel = self._channel
        if self._fuse and template.fusable and channel.pending.envelopes:
            envelope = channel.enqueue(call, template, arrays, limit)
            if not self._flush_scheduled:
                self._flush_scheduled = True
                loop.call_soon(self._flush)
        else:
            link = self._link or self._ready_link()
            envelope = link.single(call, template, arrays, limit, time.monotonic())
            if not self._check_scheduled:
                self._check_scheduled = True
                loop.call_soon(self._after_send)
        try:
            return await call
        except asyncio.CancelledError:
            self._cancel(envelope, call)
            raise

    async def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None
    ) -> ModelMetadata:
        """Names, dtypes and shapes of a version's inputs and outputs.

        Raises:
            NotFoundError: no such model, version or label.
        """
        params = {"model": model, "version": version, "label": label}
        return converted(await self.control("metadata", params), ModelMetadata)

    async def status(self, model: str | None = None) -> list[VersionStatus]:
        """State of every version, or of those of one model.

        Raises:
            NotFoundError: no such model.
        """
        return converted(await self.control("status", {"model": model}), list[VersionStatus])

    async def health(self) -> Health:
        """State of the server."""
        return converted(await self.control("health"), Health)

    async def control(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | DefaultTimeout | None = DEFAULT,
    ) -> Any:
        """An administrative call (docs/protocol.md lists the methods); the result as msgpack types."""
        loop = self._loop or self._connect()
        call: asyncio.Future[Any] = loop.create_future()
        limit = resolved(timeout, self._timeout)
        self._ready_link().control(call, method, dict(params or {}), limit, time.monotonic())
        self._after_send()
        return await call

    async def close(self) -> None:
        """Fail what is pending with UNAVAILABLE and close the connection."""
        self._closed = True
        if self._link is None or self._loop is None:
            return
        self._loop.remove_reader(self._link.fd)
        self._loop.remove_reader(self._link.monitor_fd)
        if self._timer is not None:
            self._timer.cancel()
        self._channel.fail_all("the client was closed")
        self._link.close()
        self._link = None

    # ---------------------------------------------------------------- inside

    def _connect(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise UnavailableError("the client was closed")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._link = Link(self._context, self._address, self._channel)
            self._loop.add_reader(self._link.fd, self._on_readable)
            self._loop.add_reader(self._link.monitor_fd, self._on_monitor)
            # Its descriptor says nothing before it has been found empty once.
            self._on_monitor()
        return self._loop

    def _ready_link(self) -> Link:
        if self._link is None:
            raise UnavailableError("the client was closed")
        return self._link

    def _flush(self) -> None:
        self._flush_scheduled = False
        link = self._link
        if link is None:
            self._channel.fail_all("the client was closed")
            return
        link.flush(time.monotonic())
        self._after_send()

    def _after_send(self) -> None:
        self._check_scheduled = False
        if self._link is None:
            return
        # Sending can swallow the signal that something has arrived.
        self._link.receive()
        deadline = self._channel.pending.next_deadline()
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            self._arm_timer()

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._channel.pending.next_deadline()
        if deadline is None or self._loop is None:
            return
        self._timer_at = deadline
        delay = max(0.0, deadline - time.monotonic())
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._channel.expire(time.monotonic())
        self._arm_timer()

    def _on_readable(self) -> None:
        if self._link is not None:
            self._link.receive()

    def _on_monitor(self) -> None:
        if self._link is not None:
            self._link.observe()

    def _cancel(self, envelope: Envelope, call: asyncio.Future[Any]) -> None:
        if self._link is not None and self._link.cancel(envelope, call):
            self._after_send()
