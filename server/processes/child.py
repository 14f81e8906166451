"""A worker process: ``python -m tensorwire.server.processes.child``. It loads one version, then runs one call
after the other, until its parent says so or is gone.

Its parent starts it (:class:`.parent.WorkerProcess`); the arguments are descriptors that it inherits.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from ...manager.loader import Loader
from ...manager.memory import use_one_heap
from ...manager.warmup import WarmUp, load_samples
from ...rpc.errors import (
    InternalError,
    InvalidArgumentError,
    ProtocolError,
    ResourceExhaustedError,
    RpcError,
    error_from_code,
)
from ...rpc.wire.header import Interner, Signature
from ...rpc.wire.prefix import Kind
from ..interpreter import tune_interpreter
from ..logs import set_up_logging
from . import framing
from .arena import Mapping
from .cargo import Inbound, Outbound, Packed
from .framing import ChildSpec, Expired, Load, Loaded, Message, Returned, Stop
from .lifeline import end_with_parent, leave_signals_to_parent
from .link import Closed, Link, Received
from .port import Port, make_port
from .priority import lower_priority

if TYPE_CHECKING:
    from ...manager.engines.base import Array, Servable

_log = logging.getLogger("tensorwire.server")

_STDERR: Final = 2
_REQUEST: Final = int(Kind.REQUEST)

#: Runs a call; gives the answer, if the port does not have it, and what the model took.
Compute = Callable[[], "tuple[Packed | None, float]"]


class Inherited(NamedTuple):
    """Arguments of a child, behind the name that ``ps`` shows: the parent's process id, and descriptors."""

    parent: int
    link: int
    calls: int
    answers: int
    stderr: int


class _Leave(BaseException):
    """The model's code wants the process to end."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Child:
    """The process: loads, then serves. Use it from the main thread."""

    def __init__(self, link: Link, calls: Mapping, answers: Mapping, stderr: int) -> None:
        self._link = link
        self._answers = answers
        self._inbound = Inbound(calls)
        self._stderr = stderr
        self._signatures = Interner(Signature)

    def run(self) -> None:
        """Until the parent does not want it any more."""
        servable = self._begin()
        if servable is None:
            return
        self._serve(servable)
        try:
            servable.close()
        except RpcError as error:
            _log.warning("%s", error.message)

    # ---------------------------------------------------------------- load

    def _begin(self) -> Servable | None:
        """Load what the first message says and tell how it went."""
        first, _ = self._next(None)
        load = framing.read_control(first)
        if not isinstance(load, Load):
            raise ProtocolError(f"the first message is a {type(load).__name__}")
        spec = load.spec
        sys.path[:] = load.sys_path or sys.path
        logging.getLogger("tensorwire").setLevel(spec.log_level)
        try:
            servable = _loaded(spec)
            loaded = Loaded(servable.metadata, servable.releases_gil, servable.concurrent)
            message = framing.encode_control(loaded)
        except RpcError as error:
            self._link.send(framing.encode_error(0, error))
            return None
        self._outbound = Outbound(
            self._answers, spec.model, spec.version, servable.metadata.outputs, Kind.REPLY
        )
        self._port = make_port(self._link, self._inbound, self._outbound, self._signatures, blocking=True)
        tune_interpreter()
        # Until here the parent has kept what was said, in case that it was the last.
        os.dup2(self._stderr, _STDERR)
        os.close(self._stderr)
        self._link.send(message)
        return servable

    # ---------------------------------------------------------------- serve

    def _next(self, received: Received | None) -> tuple[Message, int]:
        """Read what was received, or what is to be received now."""
        received = received or self._link.receive()
        if received is None:
            raise ProtocolError("a socket that blocks had nothing")
        return framing.read(received.head), received.fd

    def _serve(self, servable: Servable) -> None:
        port = self._port
        received: Received | None = None
        while True:
            if port is not None:
                received = port.receive_call()
                if received is None:
                    self._call(servable, port.call_id, partial(self._compute_plain, servable, port))
                    continue
            message, fd = self._next(received)
            if message.prefix.kind == _REQUEST:
                self._take_back(message.cargo.returned)
                if framing.has_expired(message, time.monotonic_ns() // 1000):
                    self._expire(message, fd)
                else:
                    compute = partial(self._compute, servable, message, fd)
                    self._call(servable, message.prefix.id, compute)
                continue
            control = framing.read_control(message)
            if isinstance(control, Stop):
                return
            if isinstance(control, Returned):
                self._take_back(control.offsets)

    def _take_back(self, offsets: tuple[int, ...]) -> None:
        for offset in offsets:
            self._outbound.allocator.give_back(offset)

    def _expire(self, message: Message, fd: int) -> None:
        """Do not run a call, and say so."""
        self._inbound.frames(message.cargo, fd)
        if returned := self._inbound.take_returned():
            self._link.send(framing.encode_control(Returned(tuple(returned))))
        self._link.send(framing.encode_control(Expired(message.prefix.id)))

    def _call(self, servable: Servable, call_id: int, compute: Compute) -> None:
        begun = time.perf_counter()
        try:
            packed, seconds = compute()
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises becomes a status here, once
            _leave_if_asked(error)
            failure = _translated(error, servable)
        else:
            # Only now that nobody here has the inputs any more.
            self._reply(call_id, packed, seconds)
            return
        # As above: behind the end of the exception, whose traceback has the inputs.
        self._fail(call_id, failure, time.perf_counter() - begun)

    def _reply(self, call_id: int, packed: Packed | None, seconds: float) -> None:
        if packed is None:
            assert self._port is not None
            self._port.post(call_id, seconds)
            return
        reply = packed.message(Kind.REPLY, call_id, self._inbound.take_returned(), compute_seconds=seconds)
        self._link.send(reply, packed.fd)
        if packed.fd >= 0:
            os.close(packed.fd)

    def _compute_plain(self, servable: Servable, port: Port) -> tuple[Packed | None, float]:
        """As :meth:`_compute`, of the call that the port has; None: it has the outputs."""
        wanted = port.wanted
        begun = time.perf_counter()
        try:
            outputs = servable.run(port.take_inputs(), wanted)
        except SystemExit as error:
            raise _Leave(_status(error)) from error
        seconds = time.perf_counter() - begun
        return (None if port.pack(wanted, outputs) else self._pack(wanted, outputs)), seconds

    def _compute(self, servable: Servable, message: Message, fd: int) -> tuple[Packed, float]:
        """Run the model; its outputs lie where the parent reads them, and nothing else of it is kept."""
        signature = self._signatures.get(framing.raw_header(message))
        frames = self._inbound.frames(message.cargo, fd)
        arrays = framing.tensors(message, signature, frames)
        wanted = signature.header.outputs or ()
        inputs = dict(zip(signature.layout.names, arrays, strict=True))
        begun = time.perf_counter()
        try:
            outputs = servable.run(inputs, wanted)
        except SystemExit as error:
            raise _Leave(_status(error)) from error
        seconds = time.perf_counter() - begun
        return self._pack(wanted, outputs), seconds

    def _pack(self, wanted: tuple[str, ...], outputs: list[Array]) -> Packed:
        if len(outputs) != len(wanted):
            raise InternalError(f"the model gave {len(outputs)} outputs; expected {', '.join(wanted)}")
        named = [(name, (output,)) for name, output in zip(wanted, outputs, strict=True)]
        try:
            return self._outbound.pack(named)
        except InvalidArgumentError as error:
            # Not the caller's fault, who has sent nothing of it.
            raise InternalError(f"the model's outputs cannot be sent: {error.message}") from error

    def _fail(self, call_id: int, error: RpcError, seconds: float) -> None:
        """An ERROR has no room for what is free again."""
        if returned := self._inbound.take_returned():
            self._link.send(framing.encode_control(Returned(tuple(returned))))
        self._link.send(framing.encode_error(call_id, error, seconds))


def _loaded(spec: ChildSpec) -> Servable:
    """Load and warm up in a thread of less priority; calls run in this one.

    Raises:
        RpcError: it cannot be loaded.
    """
    results: list[Servable] = []
    failures: list[RpcError] = []

    def load() -> None:
        try:
            with lower_priority(spec.config.engine):
                results.append(_load(spec))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - engines and models: translated here
            failures.append(_load_error(error))

    thread = threading.Thread(target=load, name="load")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _load(spec: ChildSpec) -> Servable:
    directory = Path(spec.directory)
    servable = Loader(spec.model, spec.version, directory, spec.config).load()
    try:
        if spec.batch_sizes:
            metadata = servable.metadata
            warm_up = WarmUp(servable, load_samples(directory, metadata))
            if metadata.batched:
                warm_up.run_batches(spec.batch_sizes)
            else:
                warm_up.run_single()
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to report
            servable.close()
        raise
    return servable


def _load_error(error: Exception | SystemExit) -> RpcError:
    if isinstance(error, RpcError):
        return error
    if isinstance(error, MemoryError):
        return ResourceExhaustedError(f"out of memory while loading: {error}")
    _log.error("unexpected error while loading", exc_info=error)
    return InternalError(f"{type(error).__name__}: {error}")


def _translated(error: Exception, servable: Servable) -> RpcError:
    if isinstance(error, RpcError):
        return error_from_code(error.code, error.message)  # a copy, without what the call has left in it
    metadata = servable.metadata
    subject = f"model {metadata.name!r} version {metadata.version}"
    if isinstance(error, MemoryError):
        return ResourceExhaustedError(f"{subject} is out of memory: {error}")
    return InternalError(f"{subject} failed: {type(error).__name__}: {error}")


def _leave_if_asked(error: BaseException) -> None:
    """An engine makes an error of the call even of ``sys.exit()``; here it ends the process, as anywhere."""
    cause = error.__cause__
    if isinstance(cause, SystemExit):
        raise _Leave(_status(cause)) from error


def _status(error: SystemExit) -> int:
    """The exit status that Python gives it."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


# -------------------------------------------------------------------- process


def _prepare() -> None:
    leave_signals_to_parent()
    faulthandler.enable()
    use_one_heap()
    # What a model prints is seen when it prints it, also if it crashes afterwards.
    cast("Any", sys.stdout).reconfigure(line_buffering=True)


def _exit(status: int) -> NoReturn:
    """End at once, also with threads that the model has left running."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def main(arguments: list[str]) -> int:
    """What the process does; its exit status."""
    inherited = Inherited(*map(int, arguments[1:]))
    for fd in inherited[1:]:
        os.set_inheritable(fd, False)
    end_with_parent(inherited.parent, inherited.link)
    _prepare()
    set_up_logging()
    calls = Mapping(inherited.calls, writable=False)
    answers = Mapping(inherited.answers, writable=True)
    os.close(inherited.calls)
    os.close(inherited.answers)
    link = Link(socket.socket(fileno=inherited.link), blocking=True)
    # Processes that the model's code forks must not keep the connection open.
    os.register_at_fork(after_in_child=link.close)
    try:
        Child(link, calls, answers, inherited.stderr).run()
    except Closed:
        return 0
    except _Leave as leave:
        _exit(leave.status)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
