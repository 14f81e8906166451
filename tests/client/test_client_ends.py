"""Posters and receivers in C do what the client does in Python: the same messages, the same answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from pumps import pump_named
from tensorwire.client.channel import Channel
from tensorwire.client.encode import encode, tail_of
from tensorwire.client.pending import ID_BITS
from tensorwire.client.requests import Templates
from tensorwire.rpc.ends import PlainReceiver
from tensorwire.rpc.types import FIXED_DTYPES
from tensorwire.rpc.wire.header import Layout, ReplyHeader, TensorHeader, encode_header
from tensorwire.rpc.wire.message import build, build_error, payload_of
from tensorwire.rpc.wire.prefix import PREFIX_SIZE, Kind

Array = np.ndarray[Any, Any]
Socket = zmq.Socket[bytes]
X = np.zeros((1, 2), np.float32)


class Wire:
    """A client's socket, and its peer."""

    def __init__(self) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.near, self.far = self.context.socket(zmq.PAIR), self.context.socket(zmq.PAIR)
        for socket in (self.near, self.far):
            socket.linger = 0
        self.near.bind("inproc://client")
        self.far.connect("inproc://client")

    def close(self) -> None:
        self.near.close()
        self.far.close()
        self.context.term()


@pytest.fixture(scope="module")
def compiled() -> Any:
    pump_named("compiled")  # skips what was not built
    from tensorwire.rpc.pump import compiled

    return compiled


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


# ---------------------------------------------------------------- out


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    dtype=st.sampled_from(sorted(FIXED_DTYPES)),
    rows=st.sampled_from([0, 1, 1, 3]),
    width=st.sampled_from([0, 1, 3, 700, 4000]),
    count=st.integers(1, 40),
    timeout=st.sampled_from([None, 0.5]),
    extra=st.sampled_from([b"", b"\x84\x01\x02\x03"]),
)
def test_posted_is_what_is_encoded(
    compiled: Any, dtype: str, rows: int, width: int, count: int, timeout: float | None, extra: bytes
) -> None:
    wire, channel, templates = Wire(), Channel("tcp://nowhere", fuse=True), Templates()
    try:
        for call in range(count):
            array = np.full((rows, width), call % 100).astype(FIXED_DTYPES[dtype])
            template, arrays = templates.get("m", {"x": array}, None, None, None, extra)
            channel.enqueue(Future(), template, arrays, timeout)
        for envelope in channel.flush(0.0):
            tail = tail_of(envelope.template, timeout)
            if not tail:
                assert not envelope.template.plain
                continue
            expected = [bytes(memoryview(frame)) for frame in encode(envelope)]
            poster = compiled.Poster(wire.near)
            assert poster.post(envelope.number, tail, envelope.template.nbytes, envelope.arrays)
            assert wire.far.recv_multipart() == expected
    finally:
        wire.close()


def test_what_is_not_in_one_piece_is_not_posted(compiled: Any, wire: Wire) -> None:
    template, _ = Templates().get("m", {"x": np.zeros((1, 4))}, None, None, None, b"")
    tail, poster = tail_of(template, 1.0), compiled.Poster(wire.near)
    pieces, whole = np.zeros((1, 8))[:, ::2], np.zeros((1, 4))
    for arrays in ([pieces], [whole, pieces], [pieces, whole], [whole, np.zeros((1, 3))], []):
        assert not poster.post(1, tail, 32, arrays)
    assert not poster.post(1, tail, 40_000, [whole, whole])  # those that get a frame of their own
    for bad in (b"", tail[:20], tail[: PREFIX_SIZE - 16]):
        with pytest.raises(ValueError, match="tail"):
            poster.post(1, bad, 32, [whole, whole])
    assert not wire.far.poll(0)
    wire.near.close()
    with pytest.raises(zmq.ZMQError) as error:
        poster.post(1, tail, 32, [whole])
    assert error.value.errno == zmq.ENOTSOCK


# ---------------------------------------------------------------- in


def reply(first_id: int, y: Array, count: int, rows: list[int] | None = None, **options: Any) -> list[bytes]:
    names = {np.dtype(dtype): name for name, dtype in FIXED_DTYPES.items()}
    headers = (
        TensorHeader("y", names[y.dtype], y.shape[1:]),
        TensorHeader("z", "int8", ()),
    )
    frames = build(
        Kind.REPLY,
        first_id=first_id,
        count=count,
        layout=Layout(headers, True),
        header=encode_header(ReplyHeader("m", 1, headers, True)),
        rows=rows or [1] * count,
        payloads=[payload_of(y), payload_of(np.arange(len(y), dtype=np.int8))],
        **options,
    )
    return [bytes(memoryview(frame)) for frame in frames]


class End:
    """A client with calls in flight, that reads in C or in Python."""

    def __init__(self, compiled: Any) -> None:
        self.wire = Wire()
        self.channel = Channel("tcp://server:1", fuse=True)
        pending, replies = self.channel.pending, self.channel.replies
        self.receiver = (
            PlainReceiver(self.wire.near)
            if compiled is None
            else compiled.Receiver(self.wire.near, replies.known, pending)
        )
        self.templates = Templates()

    def call(self, count: int) -> tuple[int, list[Future[Any]]]:
        calls: list[Future[Any]] = [Future() for _ in range(count)]
        template, arrays = self.templates.get("m", {"x": X}, None, None, None, b"")
        for call in calls:
            self.channel.enqueue(call, template, arrays, 1.0)
        (envelope,) = self.channel.flush(0.0)
        return envelope.number << ID_BITS, calls

    def read(self, *messages: list[bytes]) -> None:
        for message in messages:
            self.wire.far.send_multipart(message)
        self.receiver.all(self.channel.receive)

    def learn(self, *outputs: Array) -> None:
        """Headers are known from the first reply on."""
        for y in outputs:
            first_id, _ = self.call(1)
            self.read(reply(first_id, y[:1], 1))


def outcome(call: Future[Any]) -> Any:
    if not call.done():
        return "waits"
    if call.cancelled():
        return "cancelled"
    error = call.exception(0)
    if error is not None:
        return type(error).__name__
    return {name: (repr(array.tolist()), array.dtype, array.shape) for name, array in call.result(0).items()}


def state(end: End, calls: list[Future[Any]]) -> Any:
    left = {
        number: (envelope.open, [call is None for call in envelope.calls])
        for number, envelope in end.channel.pending.envelopes.items()
    }
    return [outcome(call) for call in calls], left, end.channel.stray


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    dtype=st.sampled_from(sorted(FIXED_DTYPES)),
    width=st.sampled_from([0, 1, 3, 50, 1500]),
    count=st.sampled_from([1, 1, 2, 7]),
    cuts=st.lists(st.integers(0, 7), max_size=2),
    gone=st.sets(st.integers(0, 6), max_size=2),
    damage=st.one_of(
        st.none(),
        st.tuples(st.integers(0, 400), st.integers(0, 255)),
        st.sampled_from(["short", "long", "framed", "rows", "twice", "nobody", "many", "error"]),
    ),
)
def test_answers_are_the_same(
    compiled: Any, dtype: str, width: int, count: int, cuts: list[int], gone: set[int], damage: Any
) -> None:
    """Whole, in parts, in any order, damaged, too many, for calls that nobody waits for any more."""
    y = (np.arange(count * width).reshape(count, width) % 100).astype(FIXED_DTYPES[dtype])
    found: list[Any] = []
    for ends in (None, compiled):
        end = End(ends)
        try:
            end.learn(y)
            first_id, calls = end.call(count)
            for index in gone:
                if index < count:
                    calls[index].cancel()
            bounds = sorted({0, count, *(cut for cut in cuts if cut < count)})
            parts = list(pairwise(bounds))
            messages = [reply(first_id + lo, y[lo:hi], hi - lo) for lo, hi in reversed(parts)]
            messages[0] = damaged(messages[0], damage)
            if damage == "framed":
                messages[0] = reply(first_id, y, count, inline_limit=0)
            elif damage == "rows":
                messages[0] = reply(first_id, np.repeat(y, 2, axis=0), count, [2] * count)
            elif damage == "twice":
                messages.append(messages[0])
            elif damage == "nobody":
                messages.append(reply(99 << ID_BITS, y, count))
            elif damage == "many":
                more = np.concatenate([y, y])
                messages.insert(0, reply(first_id, more, 2 * count))
            elif damage == "error":
                messages[0] = [build_error(first_id, 1, 5, "no")]
            end.read(*messages)
            found.append(state(end, calls))
        finally:
            end.wire.close()
    assert found[0] == found[1]


def damaged(message: list[bytes], damage: Any) -> list[bytes]:
    head = bytearray(message[0])
    if isinstance(damage, tuple):
        at, value = damage
        head[at % len(head)] = value
    elif damage == "short":
        del head[-1:]
    elif damage == "long":
        head += b"\0"
    return [bytes(head), *message[1:]]


@pytest.mark.parametrize("count", [1, 5])
def test_outputs_are_views_that_stay(compiled: Any, count: int) -> None:
    end = End(compiled)
    try:
        y = np.arange(count * 3000, dtype=np.float32).reshape(count, 3000)
        end.learn(y)
        first_id, calls = end.call(count)
        end.read(reply(first_id, y, count))
        outputs = [call.result(0)["y"] for call in calls]
        assert all(not output.flags.writeable for output in outputs)
        if count > 1:
            assert len({id(memoryview(output.base).obj) for output in outputs}) == 1
        end.learn(y + 1)
    finally:
        end.wire.close()
    assert np.array_equal(np.concatenate(outputs), y)


def test_a_count_without_end_takes_no_memory(compiled: Any) -> None:
    end = End(compiled)
    try:
        end.learn(X)
        first_id, (call,) = end.call(1)
        (head,) = reply(first_id, X, 1)
        end.read([head[:24] + struct.pack("<I", 0xFFFFFFFF) + head[28:]])
        assert end.channel.stray == 1
        assert outcome(call) in ("waits", "RpcError")
    finally:
        end.wire.close()


@pytest.mark.parametrize("counts", [[1], [6], [1, 3, 2]])
def test_plain_answers_are_not_handed_to_python(compiled: Any, counts: list[int]) -> None:
    end = End(compiled)
    try:
        end.learn(X)
        total = sum(counts)
        y = np.arange(2 * total, dtype=np.float32).reshape(total, 2)
        first_id, calls = end.call(total)
        lo = 0
        for count in counts:
            end.wire.far.send_multipart(reply(first_id + lo, y[lo : lo + count], count))
            lo += count
        end.receiver.all(lambda head, frames: pytest.fail(f"{len(head)} bytes were delivered"))
        assert [call.result(0)["y"].tolist() for call in calls] == [[row.tolist()] for row in y]
        assert not end.channel.pending.envelopes
    finally:
        end.wire.close()


def test_an_error_that_the_reader_meets_leaves_nobody_waiting(compiled: Any) -> None:
    class Refusing(Future[Any]):
        def set_result(self, result: Any) -> None:
            raise MemoryError

    end = End(compiled)
    try:
        end.learn(X)
        first_id, calls = end.call(3)
        (envelope,) = end.channel.pending.envelopes.values()
        envelope.calls[1] = calls[1] = Refusing()
        with pytest.raises(MemoryError):
            end.read(reply(first_id, np.repeat(X, 3, axis=0), 3))
        assert [outcome(call) == "MemoryError" for call in calls] == [False, True, True]
    finally:
        end.wire.close()
