"""The parent's side of one worker process."""

from __future__ import annotations

import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy.typing as npt

from ...rpc.errors import (
    AbortedError,
    InternalError,
    ProtocolError,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
)
from ...rpc.types import ModelMetadata
from ...rpc.wire.header import Interner, ReplySignature
from ...rpc.wire.prefix import Kind
from . import framing
from .cargo import Inbound, Outbound
from .framing import ChildSpec, Expired, Loaded, Message, Returned, Stop
from .link import Closed, Received
from .port import Answer, make_port
from .process import ChildProcess, WorkerLost
from .spawner import Spawner

Array = npt.NDArray[Any]

#: Seconds between two looks at whether a load is still wanted.
_TICK: Final = 0.05
#: Ids of the calls of :meth:`WorkerProcess.run`; what the owner counts up never gets here.
_OWN_IDS: Final = 1 << 63
#: Blocks of outputs that nobody uses any more are told of with the next call, or when they are so many.
_MANY: Final = 64
#: Something has come, which is no answer.
_NO_ANSWER: Final = Answer(0, None, None, 0.0)


class WorkerProcess:
    """One worker process with a loaded version, as its parent sees it.

    One owner at a time uses it, in one thread; :meth:`kill`, :meth:`join` and :meth:`resident_bytes` may be
    called by others as well. It is over with :class:`WorkerLost`, or after :meth:`stop`, and then needs
    :meth:`join` until that is true, which lets go of everything.

    Attributes:
        metadata, releases_gil, concurrent: of the servable in the child.
        device: the GPU that it sees; None: what the server sees.
    """

    def __init__(self, process: ChildProcess, spec: ChildSpec, loaded: Loaded) -> None:
        self.metadata: ModelMetadata = loaded.metadata
        self.releases_gil = loaded.releases_gil
        self.concurrent = loaded.concurrent
        self.device = spec.device
        self._process = process
        declared = {output.name: output.dtype for output in loaded.metadata.outputs}
        inputs = loaded.metadata.inputs
        self._outbound = Outbound(process.calls, spec.model, spec.version, inputs, Kind.REQUEST)
        self._inbound = Inbound(process.answers)
        self._signatures = Interner(partial(_read_signature, declared))
        #: Outputs that each call in hand has asked for.
        self._wanted: dict[int, tuple[str, ...]] = {}
        #: Messages that the socket had no room for. There is an answer to come then, and they go before it
        #: is looked for: who waits for answers need not wait for room as well.
        self._unsent: deque[tuple[bytes, int]] = deque()
        self._own_ids = itertools.count(_OWN_IDS)
        self._port = make_port(process.link, self._inbound, self._outbound, self._signatures, blocking=False)

    @classmethod
    def start(
        cls, spec: ChildSpec, *, stop: Callable[[], bool] = lambda: False, spawner: Spawner
    ) -> WorkerProcess:
        """Start a process and have it load and warm up; blocks until it can be called.

        Args:
            stop: asked every now and then; true gives up.

        Raises:
            RpcError: the version cannot be loaded: what a load in this process would have raised.
            InternalError, UnavailableError: the process died over it; says how, and what it wrote last.
            AbortedError: ``stop`` said so.
        """
        process = ChildProcess.start(spec, spawner)
        try:
            return cls(process, spec, _await_loaded(process, stop))
        except WorkerLost as lost:
            error = _lost_in_load(process, lost)
            process.end()
            raise error from None
        except BaseException:
            process.end()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def filenos(self) -> tuple[int, int]:
        """For poll: readable when :meth:`receive` has something; readable when the process is gone, which is
        to be told to :meth:`note_gone`."""
        return self._process.filenos()

    def note_gone(self) -> None:
        """The process has ended: :meth:`receive` says so once everything that it sent was received."""
        self._process.note_gone()

    @property
    def calls(self) -> int:
        """How many have been sent and not been answered."""
        return len(self._wanted)

    # ---------------------------------------------------------------- calls

    def send_call(
        self,
        call_id: int,
        inputs: Mapping[str, Sequence[Array]],
        padding: int,
        outputs: Sequence[str],
        deadline_us: int = 0,
    ) -> None:
        """Send a call; never blocks. Calls are run in the order in which they were sent.

        Args:
            call_id: comes back with the answer; below 2**63, and not in use.
            inputs: for each the pieces whose rows, one behind the other, make the block; a single piece may
                be a tensor without rows. They can be changed as soon as this returns.
            padding: times that the last row is repeated at the end.
            outputs: names wanted, at least one.
            deadline_us: the call is not begun at or after this time (of ``time.monotonic``, microseconds); 0:
                there is none.

        Raises:
            WorkerLost: the process is gone.
            RpcError: an input cannot be sent: it has no form, or there is no memory for it.
        """
        wanted = tuple(outputs)
        if self._port is not None and not self._unsent and not self._process.reason:
            try:
                sent = self._port.send_call(call_id, inputs, padding, wanted, deadline_us)
            except Closed:
                raise self._process.lost() from None
            if sent is not False:
                self._wanted[call_id] = wanted
                if sent is not True:
                    self._unsent.append((sent, -1))
                return
        self._send_call(call_id, inputs, padding, wanted, deadline_us)

    def _send_call(
        self,
        call_id: int,
        inputs: Mapping[str, Sequence[Array]],
        padding: int,
        wanted: tuple[str, ...],
        deadline_us: int,
    ) -> None:
        """The long way."""
        packed = self._outbound.pack(inputs.items(), padding, wanted)
        try:
            message = packed.message(
                Kind.REQUEST, call_id, self._inbound.take_returned(), deadline_us=deadline_us
            )
        except BaseException:
            self._outbound.discard(packed)
            raise
        self._send(message, packed.fd)
        self._wanted[call_id] = wanted

    def receive(self) -> Answer | None:
        """The next answer; None if there is none at the moment. Never blocks.

        Raises:
            WorkerLost: the process is gone, or what it sends is no answer; then it is killed.
        """
        while True:
            if self._unsent:
                self._flush()
            try:
                answer = self._receive()
            except Closed:
                raise self._process.lost() from None
            except RpcError as error:
                raise self._process.refuse(error.message) from error
            if answer is None:
                self._process.check_gone()
                return None
            # Only where a call has just been answered: so these can never fill the socket by themselves.
            if len(self._inbound.returned) >= _MANY:
                self._tell_returned()
            if answer is not _NO_ANSWER:
                return answer

    def _receive(self) -> Answer | None:
        """What came next; None if nothing has come."""
        if self._port is None:
            received = self._process.link.receive()
        else:
            came = self._port.receive_answer(self._wanted)
            if isinstance(came, Answer):
                return came
            received = came
        return None if received is None else self._read(received)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Send a call and wait for its answer; for the warm-up, when nobody else uses the worker.

        Raises:
            RpcError: the model failed.
            UnavailableError: the process is gone.
        """
        call_id = next(self._own_ids)
        try:
            self.send_call(call_id, {name: (array,) for name, array in inputs.items()}, 0, outputs)
            while (answer := self.receive()) is None or answer.call_id != call_id:
                self._process.wait()
        except WorkerLost as lost:
            metadata = self.metadata
            subject = f"model {metadata.name!r} version {metadata.version}"
            raise UnavailableError(f"{subject}: the worker process {lost.reason}") from lost
        if answer.error is not None:
            raise answer.error
        return answer.outputs or []

    # ---------------------------------------------------------------- end

    def kill(self, reason: str) -> None:
        """End the process at once. From then on it is lost, with this reason."""
        self._process.kill(reason)

    def stop(self) -> None:
        """Have the process end after the calls that it has; returns at once."""
        try:
            self._send(framing.encode_control(Stop()), -1)
        except WorkerLost:
            return

    def join(self, timeout: float) -> bool:
        """Wait for the end of the process, for so many seconds; whether it has come. Kills nothing."""
        if not self._process.join(timeout):
            return False
        while self._unsent:
            _close(self._unsent.popleft()[1])
        return True

    def resident_bytes(self) -> int:
        """Memory that the process has at the moment, with what it shares; 0 when it is gone."""
        return self._process.resident_bytes()

    # ---------------------------------------------------------------- messages

    def _send(self, message: bytes, fd: int) -> None:
        try:
            if self._unsent or not self._process.send(message, fd):
                self._unsent.append((message, fd))
                return
        except WorkerLost:
            _close(fd)
            raise
        _close(fd)

    def _flush(self) -> None:
        while self._unsent:
            message, fd = self._unsent[0]
            if not self._process.send(message, fd):
                return
            self._unsent.popleft()
            _close(fd)

    def _tell_returned(self) -> None:
        offsets = tuple(self._inbound.take_returned())
        self._send(framing.encode_control(Returned(offsets)), -1)

    def _read(self, received: Received) -> Answer:
        try:
            message = framing.read(received.head)
        except RpcError:
            _close(received.fd)
            raise
        kind = message.prefix.kind
        if kind == Kind.REPLY:
            return self._read_reply(message, received.fd)
        _close(received.fd)
        if kind == Kind.ERROR:
            self._answered(message.prefix.id)
            error = framing.read_error(message)
            return Answer(message.prefix.id, None, error, framing.compute_seconds(message))
        control = framing.read_control(message)
        if isinstance(control, Expired):
            self._answered(control.call_id)
            return Answer(control.call_id, None, None, 0.0, expired=True)
        if not isinstance(control, Returned):
            raise ProtocolError(f"{type(control).__name__} is nothing that a loaded worker says")
        self._take_back(control.offsets)
        return _NO_ANSWER

    def _read_reply(self, message: Message, fd: int) -> Answer:
        seconds = framing.compute_seconds(message)
        try:
            frames = self._inbound.frames(message.cargo, fd)
        except ResourceExhaustedError as error:
            self._answered(message.prefix.id)
            self._take_back(message.cargo.returned)
            return Answer(message.prefix.id, None, error, seconds)
        wanted = self._answered(message.prefix.id)
        signature = self._signatures.get(framing.raw_header(message))
        if signature.layout.names != wanted:
            raise ProtocolError(f"outputs {signature.layout.names}; expected {wanted}")
        outputs = framing.tensors(message, signature, frames)
        self._take_back(message.cargo.returned)
        return Answer(message.prefix.id, outputs, None, seconds)

    def _answered(self, call_id: int) -> tuple[str, ...]:
        wanted = self._wanted.pop(call_id, None)
        if wanted is None:
            raise ProtocolError(f"an answer to call {call_id}, which is not in hand")
        return wanted

    def _take_back(self, offsets: Sequence[int]) -> None:
        for offset in offsets:
            self._outbound.allocator.give_back(offset)


def _read_signature(declared: Mapping[str, str], raw: bytes) -> ReplySignature:
    """What a reply's header says, if it is what the model promises: dtypes by names of outputs."""
    signature = ReplySignature(raw)
    for name, dtype in zip(signature.layout.names, signature.layout.dtype_names, strict=True):
        if declared.get(name) != dtype:
            raise ProtocolError(f"output {name!r} of dtype {dtype}; expected {declared.get(name)}")
    return signature


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _await_loaded(process: ChildProcess, stop: Callable[[], bool]) -> Loaded:
    while True:
        if stop():
            raise AbortedError("the load was cancelled")
        process.wait(_TICK)
        process.forward_stderr()
        received = process.receive()
        if received is not None:
            _close(received.fd)
            return _read_loaded(process, received.head)


def _read_loaded(process: ChildProcess, head: bytes) -> Loaded:
    """The first thing that a child says.

    Raises:
        RpcError: it could not load.
        WorkerLost: it is neither that it could nor that it could not.
    """
    try:
        message = framing.read(head)
        if message.prefix.kind == Kind.ERROR:
            failure = framing.read_error(message)
        else:
            control = framing.read_control(message)
            if isinstance(control, Loaded):
                process.loaded()
                return control
            raise ProtocolError(f"{type(control).__name__} is nothing that a child says first")
    except ProtocolError as error:
        raise process.refuse(error.message) from error
    raise failure


def _lost_in_load(process: ChildProcess, lost: WorkerLost) -> RpcError:
    text = f"the worker process {lost.reason} while it loaded the model"
    if words := process.last_words():
        text = f"{text}; its last words: {words}"
    # Killed from outside, as where memory is short: that passes, unlike what the model does to itself.
    return UnavailableError(text) if lost.status == -signal.SIGKILL else InternalError(text)
