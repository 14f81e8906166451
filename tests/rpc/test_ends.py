"""What a client reads and sends with: the plain ends and the compiled ones do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import zmq
from pumps import NAMES, pump_named
from tensorwire.rpc.ends import PlainReceiver, PlainSender, Receiver, Sender, make_receiver, make_sender
from tensorwire.rpc.pump import pump_kind

LARGE = 200_000
Socket = zmq.Socket[bytes]
Message = list[bytes]


class Pair:
    """Two connected sockets."""

    def __init__(self, kind: str) -> None:
        self.context: zmq.Context[Socket] = zmq.Context()
        self.near, self.far = self.context.socket(zmq.PAIR), self.context.socket(zmq.PAIR)
        for socket in (self.near, self.far):
            socket.linger = 0
        self.near.bind("inproc://ends")
        self.far.connect("inproc://ends")
        self.receiver, self.sender = self._ends(kind)
        self.got: list[Message] = []

    def _ends(self, kind: str) -> tuple[Receiver, Sender]:
        if kind == "python":
            return PlainReceiver(self.near), PlainSender(self.near)
        from tensorwire.rpc.pump import compiled

        return compiled.Receiver(self.near), compiled.Sender(self.near)

    def deliver(self, head: bytes | memoryview, frames: Sequence[memoryview]) -> None:
        assert all(memoryview(frame).readonly for frame in (head, *frames))
        self.got.append([bytes(frame) for frame in (head, *frames)])


@pytest.fixture(params=NAMES)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pump_named(request.param)  # skips what was not built
    made = Pair(request.param)
    yield made
    made.near.close()
    made.far.close()
    made.context.term()


@pytest.mark.parametrize(
    "message",
    [[b"head"], [b""], [b"h" * 4096], [b"h" * 4097], [b"head", b"", b"x" * LARGE], [b"h" * LARGE, b"x"]],
    ids=lambda message: "+".join(str(len(frame)) for frame in message),
)
def test_messages_arrive_as_they_are(pair: Pair, message: Message) -> None:
    assert pair.receiver.one(pair.deliver) is False
    pair.far.send_multipart(message)
    pair.far.send_multipart([b"next"])
    assert pair.receiver.one(pair.deliver) is True
    assert pair.got == [message]
    pair.receiver.all(pair.deliver)
    assert pair.got == [message, [b"next"]]
    assert pair.receiver.one(pair.deliver) is False


def test_all_reads_all(pair: Pair) -> None:
    messages = [[str(number).encode()] * (1 + number % 3) for number in range(20)]
    for message in messages:
        pair.far.send_multipart(message)
    pair.receiver.all(pair.deliver)
    assert pair.got == messages


def test_what_was_delivered_stays_as_it_was(pair: Pair) -> None:
    kept: list[Any] = []
    for value in range(4):
        pair.far.send_multipart([b"head", bytes([value]) * LARGE])
    pair.receiver.all(lambda _, frames: kept.append(np.frombuffer(frames[0], np.uint8)))
    pair.near.close()
    assert [array[[0, -1]].tolist() for array in kept] == [[value, value] for value in range(4)]


def test_an_error_of_the_reader_loses_one_message(pair: Pair) -> None:
    def refuse(head: bytes | memoryview, frames: Sequence[memoryview]) -> None:
        raise ValueError(len(frames))

    pair.far.send_multipart([b"a", b"b"])
    pair.far.send_multipart([b"c"])
    with pytest.raises(ValueError, match="1"):
        pair.receiver.all(refuse)
    pair.receiver.all(pair.deliver)
    assert pair.got == [[b"c"]]


def test_large_frames_are_sent_whole(pair: Pair) -> None:
    array = np.arange(LARGE, dtype=np.uint8)
    pair.near.send(b"head", zmq.SNDMORE)
    pair.sender.send(memoryview(array), 0)
    head, body = pair.far.recv_multipart()
    assert (head, body) == (b"head", array.tobytes())


@pytest.mark.parametrize(
    "use", [lambda p: p.receiver.one(p.deliver), lambda p: p.sender.send(b"x" * LARGE, 0)]
)
def test_a_closed_socket_says_so(pair: Pair, use: Callable[[Pair], None]) -> None:
    pair.near.close()
    with pytest.raises(zmq.ZMQError) as error:
        use(pair)
    assert error.value.errno == zmq.ENOTSOCK


def test_what_was_built_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair("python")
    try:
        plain = pump_kind() == "python"
        assert isinstance(make_sender(pair.near), PlainSender) is plain
        assert isinstance(make_receiver(pair.near), PlainReceiver) is plain
        monkeypatch.setenv("TENSORWIRE_PURE_PYTHON", "1")
        assert isinstance(make_sender(pair.near), PlainSender)
        assert isinstance(make_receiver(pair.near), PlainReceiver)
    finally:
        pair.near.close()
        pair.far.close()
        pair.context.term()
