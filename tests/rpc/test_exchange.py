"""One request and its reply in one call: everything that can come instead of the reply, and with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zmq
from pumps import pump_named
from router import Router
from tensorwire.client.channel import Channel
from tensorwire.client.pending import ID_BITS, Envelope
from tensorwire.rpc.ends import make_exchange
from tensorwire.rpc.transport import connect, descriptor, new_dealer
from tensorwire.rpc.types import FIXED_DTYPES
from tensorwire.rpc.wire.header import (
    Interner,
    Layout,
    ReplyHeader,
    ReplySignature,
    RequestHeader,
    TensorHeader,
    encode_header,
)
from tensorwire.rpc.wire.message import build, build_control, build_error, payload_of
from tensorwire.rpc.wire.prefix import Kind

LONG = 30.0
AT_COUNT, AT_EXTRA_LEN, AT_LIMIT = 24, 32, 36
Array = np.ndarray[Any, Any]
X = np.array([[1, 2]], np.float32)


def tail_of(tensor: Array) -> bytes:
    """What stands between the id and the tensor."""
    tensors = (TensorHeader("x", tensor.dtype.name, tensor.shape[1:]),)
    head = build(
        Kind.REQUEST,
        first_id=0,
        layout=Layout(tensors, True),
        header=encode_header(RequestHeader("m", tensors)),
        rows=[len(tensor)],
        payloads=[payload_of(tensor)],
    )[0]
    return bytes(head[16:] if tensor.nbytes > 65_536 else head[16 : len(head) - tensor.nbytes])


def reply(
    number: int, outputs: dict[str, Array], *, shared: bool = True, limit: int = 65_536, extra: bytes = b""
) -> list[Any]:
    """The reply to the request of this number."""
    names = {dtype: name for name, dtype in FIXED_DTYPES.items()}
    tensors = tuple(
        TensorHeader(
            name,
            "string" if array.dtype == object else names[array.dtype],
            array.shape[1:] if shared else array.shape,
        )
        for name, array in outputs.items()
    )
    return build(
        Kind.REPLY,
        first_id=number << ID_BITS,
        layout=Layout(tensors, shared),
        header=encode_header(ReplyHeader("m", 1, tensors, shared)),
        extra=extra,
        rows=[len(next(iter(outputs.values())))] if shared else None,
        payloads=[payload_of(array) for array in outputs.values()],
        inline_limit=limit,
    )


class Rig:
    """A socket whose other end does what the test says."""

    def __init__(self, spin: float = 0.0) -> None:
        from tensorwire.rpc.pump import compiled

        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = Router()
        self.socket = new_dealer(self.context)
        connect(self.socket, self.router.endpoint)
        self.replies: Interner[ReplySignature] = Interner(ReplySignature)
        self.exchange = compiled.Exchange(self.socket, descriptor(self.socket), self.replies.known, spin)
        self.pool = ThreadPoolExecutor(1)
        self.number = 0
        self.peer = b""

    def begin(self, tensor: Array = X, timeout: float | None = LONG) -> Future[Any]:
        """A call that waits: its request has arrived."""
        self.number += 1
        call = self.pool.submit(self.exchange.call, self.number, tail_of(tensor), tensor, timeout)
        self.request = self.router.receive()
        self.peer = self.request.peer
        return call

    def meet(self) -> None:
        """Learn the address of this end."""
        call = self.begin()
        self.exchange.disturb()
        assert call.result(LONG) is None

    def call(self, timeout: float | None = LONG) -> Any:
        """A call in this thread; its answer must come by itself."""
        self.number += 1
        return self.exchange.call(self.number, tail_of(X), X, timeout)

    def send(self, *frames: Any) -> None:
        self.router.send(self.peer, *frames)

    def learn(self, *messages: Sequence[Any]) -> None:
        """Make the headers of these replies known."""
        for head, *_ in messages:
            length = int.from_bytes(head[28:32], "little")
            self.replies.get(bytes(head[48 : 48 + length]))

    def close(self) -> None:
        self.exchange.disturb()
        self.pool.shutdown()
        self.socket.close(linger=0)
        self.router.close()
        self.context.term()


@pytest.fixture
def make() -> Iterator[Callable[..., Rig]]:
    pump_named("compiled")  # skips what was not built
    rigs: list[Rig] = []

    def made(spin: float = 0.0) -> Rig:
        rigs.append(Rig(spin))
        return rigs[-1]

    yield made
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


def is_message(found: Any, frames: Sequence[Any]) -> bool:
    """Whether a message was returned as it was sent, and cannot be written to."""
    head, rest = found
    assert all(memoryview(frame).readonly for frame in (head, *rest))
    return [bytes(frame) for frame in (head, *rest)] == [bytes(frame) for frame in frames]


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize("tensor", [X, np.arange(64, dtype=np.int16).reshape(4, 16), np.zeros((0, 3), "f8")])
def test_the_request_is_what_the_codec_writes(rig: Rig, tensor: Array) -> None:
    call = rig.begin(tensor)
    assert (rig.request.kind, rig.request.count) == (Kind.REQUEST, 1)
    assert rig.request.first_id == rig.number << ID_BITS
    np.testing.assert_array_equal(rig.request.inputs["x"], tensor)
    rig.exchange.disturb()
    assert call.result(LONG) is None


def test_a_large_tensor_has_a_frame_of_its_own(rig: Rig) -> None:
    tensor = np.arange(50_000, dtype=np.float32).reshape(2, -1)
    rig.learn(message := reply(1, {"y": X}))
    call = rig.begin(tensor)
    np.testing.assert_array_equal(rig.request.inputs["x"], tensor)
    rig.send(*message)
    assert call.result(LONG)["y"].tolist() == X.tolist()


def test_a_tensor_in_pieces_is_not_sent(rig: Rig) -> None:
    pieces = np.zeros((4, 4), np.float32)[:, ::2]
    assert rig.exchange.call(1, tail_of(pieces), pieces, LONG) is None
    assert not rig.exchange.leave()
    rig.begin(X)
    assert rig.request.inputs["x"].tolist() == X.tolist()


# ---------------------------------------------------------------- the reply

REPLIES: dict[str, dict[str, Array]] = {
    "one row": {"y": X},
    "rows": {"y": np.arange(6, dtype=np.int64).reshape(3, 2)},
    "no rows": {"y": np.zeros((0, 2), np.float16)},
    "no elements": {"y": np.zeros((2, 0), np.float32)},
    "scalars": {"y": np.array([7], np.uint8)},
    "several": {"a": X, "b": np.array([[True]]), "c": np.array([[[1j]]]), "d": X[:, :1]},
    "large": {"y": np.arange(2000, dtype=np.float32).reshape(1, -1)},
    "large, several": {"a": X, "b": np.arange(6000, dtype=np.float64).reshape(1, -1), "c": X + 1},
    "of ml_dtypes": {"y": np.array([[1, 2]], FIXED_DTYPES["bfloat16"])},
}


@pytest.mark.parametrize("outputs", REPLIES.values(), ids=REPLIES)
def test_a_reply_is_its_outputs(rig: Rig, outputs: dict[str, Array]) -> None:
    message = reply(1, outputs)
    rig.learn(message)
    call = rig.begin()
    rig.send(*message)
    found = call.result(LONG)
    assert list(found) == list(outputs)
    for name, array in outputs.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert not found[name].flags.writeable
    assert not rig.exchange.leave()


def test_what_was_read_stays_as_it_was(rig: Rig) -> None:
    kept: list[Array] = []
    for value in range(4):
        message = reply(rig.number + 1, {"y": np.full((1, 2000), value, np.int32)})
        rig.learn(message)
        call = rig.begin()
        rig.send(*message)
        kept.append(call.result(LONG)["y"])
    rig.socket.close(linger=0)
    assert [array[0, [0, -1]].tolist() for array in kept] == [[value, value] for value in range(4)]


def test_a_header_is_read_when_it_is_known(rig: Rig) -> None:
    call = rig.begin()
    rig.send(*(message := reply(1, {"y": X})))
    assert is_message(call.result(LONG), message)
    assert rig.exchange.leave()
    rig.learn(message)
    call = rig.begin()
    rig.send(*reply(2, {"y": X + 1}))
    assert call.result(LONG)["y"].tolist() == [[2, 3]]
    assert not rig.exchange.leave()


def test_many_headers(rig: Rig) -> None:
    """More than are kept decoded."""
    rig.meet()
    for width in [*range(1, 150), *range(1, 150)]:
        message = reply(rig.number + 1, {"y": np.ones((1, width), np.uint8)})
        rig.learn(message)
        rig.send(*message)
        assert rig.call()["y"].shape == (1, width)
        rig.router.receive()


@pytest.mark.parametrize("spin", [0.0, 0.0005, 1.0])
def test_one_call_after_the_other(make: Callable[..., Rig], spin: float) -> None:
    rig = make(spin)
    for value in range(50):
        message = reply(rig.number + 1, {"y": np.full((1, 2), value, np.float32)})
        rig.learn(message)
        call = rig.begin()
        rig.send(*message)
        assert call.result(LONG)["y"].tolist() == [[value, value]]


# ---------------------------------------------------------------- anything else

ONE = 1 << ID_BITS
OTHERS: dict[str, list[Any]] = {
    "a stray reply": reply(9, {"y": X}),
    "a part of another message": [build_error(ONE + 1, 1, 5, "not this one")],
    "an error": [build_error(ONE, 1, 5, "no such model")],
    "a control reply": [build_control(Kind.CONTROL_REPLY, ONE, b"\xc0")],
    "an extra": reply(1, {"y": X}, extra=b"\x80"),
    "a frame": reply(1, {"y": X}, limit=0),
    "some in frames": reply(1, {"a": X, "b": np.zeros((1, 20))}, limit=16),
    "a frame too many": [*reply(1, {"y": X}), b""],
    "many frames": [*reply(1, {"y": X}), b"", b"x" * 100_000, b""],
    "large and in frames": reply(1, {"a": np.zeros((1, 3000)), "b": np.zeros((1, 9000))}),
    "no rows": reply(1, {"y": X}, shared=False),
    "text": reply(1, {"y": np.array([["ä"]], object)}),
    "nothing": [b""],
    "nothing, in frames": [b"", b"", b""],
    "garbage": [b"\0" * 100],
    "garbage with the right beginning": [b"TWIR" * 30],
    "a long one": [b"TWIR" + b"x" * 10_000],
}


@pytest.mark.parametrize("message", OTHERS.values(), ids=OTHERS)
def test_what_is_no_plain_reply_is_returned_as_it_is(rig: Rig, message: list[Any]) -> None:
    if message[0][4:6] == b"\1\2":
        rig.learn(message)
    rig.learn(reply(1, {"y": X}))
    call = rig.begin()
    rig.send(*message)
    assert is_message(call.result(LONG), message)
    assert rig.exchange.leave()
    call = rig.begin()
    rig.send(*reply(2, {"y": X}))
    assert call.result(LONG)["y"].tolist() == X.tolist()


def mutations(head: bytes) -> Iterator[bytes]:
    for at in range(len(head)):
        for value in {head[at] ^ 1, head[at] ^ 0x80, 0, 255} - {head[at]}:
            yield head[:at] + bytes([value]) + head[at + 1 :]
    for size in range(len(head)):
        yield head[:size]
    for size in (1, 4, 16):
        yield head + bytes(size)
    for at in (AT_COUNT, AT_EXTRA_LEN, AT_LIMIT, AT_COUNT + 4):
        for number in (0, 1, 7, 8, 1 << 16, (1 << 31) - 1, (1 << 32) - 1):
            yield head[:at] + number.to_bytes(4, "little") + head[at + 4 :]


class Judge:
    """What the client's other code says about a message."""

    def __init__(self) -> None:
        self.channel = Channel("tcp://server:1", True)

    def outputs(self, number: int, head: bytes) -> dict[str, Array] | None:
        pending = self.channel.pending
        envelope, call = Envelope(None, None), Future[Any]()
        envelope.calls.append(call)
        pending.adopt(envelope, number, float("inf"))
        self.channel.receive(head, ())
        pending.clear()
        return call.result() if call.done() and call.exception() is None else None


@pytest.mark.parametrize("name", ["one row", "several"])
def test_mutated_replies_are_never_misread(rig: Rig, name: str) -> None:
    """It gives outputs only where the general code gives the same, and leaves everything else to that."""
    judge, seen = Judge(), {"outputs": 0, "messages": 0}
    rig.meet()
    (valid,) = reply(rig.number, REPLIES[name])
    rig.learn([valid])
    for mutated in mutations(valid):
        head = mutated
        if valid[8:16] == mutated[8:16]:
            head = mutated[:8] + ((rig.number + 1) << ID_BITS).to_bytes(8, "little") + mutated[16:]
        rig.send(head)
        found = rig.call()
        rig.router.receive()
        wanted = judge.outputs(rig.number, head)
        if not isinstance(found, dict):
            assert is_message(found, [head])
            seen["messages"] += 1
            continue
        assert wanted is not None
        assert {key: (a.dtype, a.shape, a.tobytes()) for key, a in found.items()} == {
            key: (a.dtype, a.shape, a.tobytes()) for key, a in wanted.items()
        }
        seen["outputs"] += 1
    assert min(seen.values()) > 20


# ---------------------------------------------------------------- what ends the wait


@pytest.mark.parametrize("spin", [0.0, 1.0])
def test_another_thread_ends_it(make: Callable[..., Rig], spin: float) -> None:
    rig = make(spin)
    call = rig.begin(timeout=None)
    rig.exchange.disturb()
    assert call.result(LONG) is None
    assert rig.exchange.deadline == float("inf")
    assert rig.exchange.leave()
    assert not rig.exchange.leave()


@pytest.mark.parametrize("spin", [0.0, 1.0])
def test_whoever_came_before_it_ends_it_once(make: Callable[..., Rig], spin: float) -> None:
    rig = make(spin)
    rig.exchange.disturb()
    rig.exchange.disturb()
    assert rig.begin(timeout=None).result(LONG) is None
    assert rig.exchange.leave()
    rig.learn(message := reply(2, {"y": X}))
    call = rig.begin(timeout=None)
    rig.send(*message)
    assert call.result(LONG)["y"].tolist() == X.tolist()


@pytest.mark.parametrize("spin", [0.0, 1.0])
@pytest.mark.parametrize("timeout", [0, 0.02])
def test_its_time_is_over(make: Callable[..., Rig], spin: float, timeout: float) -> None:
    rig = make(spin)
    before = time.monotonic()
    assert rig.begin(timeout=timeout).result(LONG) is None
    assert before + timeout <= rig.exchange.deadline <= time.monotonic()
    assert rig.exchange.leave()


def test_the_late_reply_is_not_that_of_the_next_call(rig: Rig) -> None:
    rig.learn(late := reply(1, {"y": X}))
    assert rig.begin(timeout=0).result(LONG) is None
    rig.send(*late)
    call = rig.begin()
    assert is_message(call.result(LONG), late)
    assert rig.exchange.leave()


class Interrupted(BaseException):
    pass


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets what this thread does on SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: (signal.signal(signal.SIGUSR1, lambda *_: handler()), None)[1]
    signal.signal(signal.SIGUSR1, before)


def signal_on_arrival(rig: Rig) -> threading.Thread:
    """Sends SIGUSR1 when the request has arrived."""

    def wait_and_kill() -> None:
        rig.request = rig.router.receive()
        rig.peer = rig.request.peer
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


@pytest.mark.parametrize("spin", [0.0, 1.0])
def test_a_signal_handler_raises(make: Callable[..., Rig], on_signal: Any, spin: float) -> None:
    def handler() -> None:
        raise Interrupted

    rig = make(spin)
    on_signal(handler)
    thread = signal_on_arrival(rig)
    with pytest.raises(Interrupted):
        rig.call()
    thread.join(LONG)
    assert rig.exchange.leave()
    assert not rig.exchange.handles_signal()


def test_a_signal_handler_returns(rig: Rig, on_signal: Any) -> None:
    rig.learn(message := reply(1, {"y": X}))
    handled: list[bool] = []

    def handler() -> None:
        handled.append(rig.exchange.handles_signal())
        rig.send(*message)

    on_signal(handler)
    thread = signal_on_arrival(rig)
    assert rig.call()["y"].tolist() == X.tolist()
    assert handled == [True]
    assert not rig.exchange.handles_signal()
    thread.join(LONG)


def test_a_signal_handler_ends_the_call(rig: Rig, on_signal: Any) -> None:
    left: list[bool] = []
    rig.learn(message := reply(1, {"y": X}))

    def handler() -> None:
        left.append(rig.exchange.leave())
        rig.send(*message)

    on_signal(handler)
    thread = signal_on_arrival(rig)
    assert rig.call() is None
    assert left == [True]
    assert not rig.exchange.leave()
    thread.join(LONG)


def test_a_closed_socket_says_so(rig: Rig) -> None:
    rig.socket.close(linger=0)
    with pytest.raises(zmq.ZMQError) as error:
        rig.call()
    assert error.value.errno == zmq.ENOTSOCK
    assert not rig.exchange.leave()


def test_a_socket_that_a_signal_handler_closes(rig: Rig, on_signal: Any) -> None:
    on_signal(lambda: rig.socket.close(linger=0))
    thread = signal_on_arrival(rig)
    with pytest.raises(zmq.ZMQError) as error:
        rig.call()
    thread.join(LONG)
    assert error.value.errno == zmq.ENOTSOCK
    assert rig.exchange.leave()


def test_a_context_that_ends(rig: Rig) -> None:
    call = rig.begin(timeout=None)
    end = threading.Thread(target=rig.context.term)
    end.start()
    assert isinstance(call.exception(LONG), zmq.ContextTerminated)
    rig.socket.close(linger=0)
    end.join(LONG)


def test_it_is_there_where_the_pump_is_compiled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORWIRE_PURE_PYTHON", raising=False)
    assert type(make_exchange(rig.socket, descriptor(rig.socket), rig.replies, 0)) is type(rig.exchange)
    monkeypatch.setenv("TENSORWIRE_PURE_PYTHON", "1")
    assert make_exchange(rig.socket, descriptor(rig.socket), rig.replies, 0) is None
