"""Mutated messages through the compiled pump: ``python -m tensorwire.bench.front.fuzzer SPEC``.

SPEC is a :class:`Salvo` as JSON. The process says a :class:`Tally` as a line now and then, with what it has
found so far, and ends after the last one, whose ``done`` is true; if it dies, the last tally tells how far it
came. Sockets are within the process (``inproc``): what is tested is what reads, sorts and answers messages,
not a network.

Every message is accounted for: the pump hands it out, answers it with an error or counts it as dropped.
Among the mutated ones are valid requests, over the same connection and over another one: each must be
answered with its own bytes, whatever stood before it.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil
import zmq

from ...rpc.errors import code_name
from ...rpc.pump import Bundle, Drained, Pump, ReplyTemplate, whole
from ...rpc.wire.header import ReplyHeader, TensorHeader, encode_header
from ..child import say
from ..malformed import valid_messages
from ..mutations import mutate
from ..raw import Frames, Kind, request

BURST: Final = 200
#: Valid requests in each burst, on the same connection and on the other one.
VALID: Final = 8
#: Bursts before the mutated messages come from a new peer.
_BURSTS_PER_PEER: Final = 250
_REPORT_SECONDS: Final = 1.0
#: Ids of the valid requests lie above any that a mutated message has been given.
_VALID_IDS: Final = 1 << 48
_MUTATED_IDS: Final = 1 << 32
_ROW: Final = 64
_SHOWN: Final = 5


class Salvo(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. ``vectors``: directory of the valid messages that are mutated."""

    vectors: str
    messages: int
    seed: int
    #: How many samples of the memory are taken.
    samples: int = 10


class Tally(msgspec.Struct, kw_only=True):
    """What has become of the messages so far.

    Attributes:
        sent: mutated messages; ``valid``: requests among them that were not mutated, ``right`` of which were
            answered rightly.
        taken: by kind, mutated messages that the pump has handed out: they came out valid.
        refused: by status, messages that it answered with an error by itself.
        dropped: messages that it counted as dropped.
        lost: messages of which it gave no account at all.
        wrong: answers to valid requests that were wrong, came twice or did not come.
    """

    sent: int = 0
    valid: int = 0
    right: int = 0
    taken: dict[str, int] = {}
    refused: dict[str, int] = {}
    dropped: int = 0
    lost: int = 0
    wrong: list[str] = []
    rss: list[int] = []
    seconds: float = 0.0
    done: bool = False


class _Peer:
    """A DEALER of the pump's ROUTER."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(address)
        self._send = self._socket.send

    def close(self) -> None:
        self._socket.close()

    def send(self, frames: Frames) -> None:
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            self._send(frame, 0 if index == last else zmq.SNDMORE)

    def answers(self) -> list[bytes]:
        """Everything that has come, the frames of a message in one piece."""
        found: list[bytes] = []
        receive = self._socket.recv_multipart
        try:
            while True:
                found.append(b"".join(receive(zmq.NOBLOCK)))
        except zmq.Again:
            return found


class Fuzzer:
    """A pump, what is sent to it, and the account of it.

    Args:
        make: of the pump, for a bound ROUTER.
        messages: what is mutated.
    """

    def __init__(
        self, make: Callable[[zmq.Socket[bytes]], Pump], messages: Sequence[Frames], seed: int
    ) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._address = f"inproc://fuzzer-{id(self)}"
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.SNDHWM, 0)
        self._router.setsockopt(zmq.RCVHWM, 0)
        self._router.bind(self._address)
        self._pump = make(self._router)
        self._messages = messages
        self._draw = random.Random(seed)
        self._same, self._other = (_Peer(self._context, self._address) for _ in range(2))
        self._bursts = 0
        self._taken: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self.tally = Tally()

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)

    def burst(self, size: int = BURST) -> None:
        """Send so many mutated messages with valid ones among them, and account for all."""
        self._bursts += 1
        if self._bursts % _BURSTS_PER_PEER == 0:
            self._same.close()
            self._same = _Peer(self._context, self._address)
        expected = self._send(size)
        before = self._counts()
        handed = self._drain()
        received, dropped, answered = (now - then for now, then in zip(self._counts(), before, strict=True))
        tally = self.tally
        tally.sent += size
        tally.valid += len(expected)
        tally.dropped += dropped
        tally.lost += abs(size + len(expected) - received) + abs(received - handed - dropped - answered)
        self._check(expected, answered)

    def _counts(self) -> tuple[int, int, int]:
        counters = self._pump.counters
        return counters.messages, counters.malformed_dropped, counters.malformed_answered

    def _send(self, size: int) -> dict[int, bytes]:
        """Id -> row of the valid requests."""
        draw, first = self._draw, _VALID_IDS + self.tally.valid
        places = {size * number // VALID: number for number in range(VALID)}
        expected: dict[int, bytes] = {}
        for index in range(size):
            if index in places:
                request_id = first + len(expected)
                row = expected[request_id] = draw.randbytes(_ROW)
                peer = self._same if places[index] % 2 else self._other
                peer.send(request("valid", request_id, [("x", "uint8", (_ROW,), row)]))
            self._same.send(mutate(draw, self._messages, _MUTATED_IDS + self.tally.sent + index))
        return expected

    def _drain(self) -> int:
        """Read all, answer what is a request; messages that were handed out."""
        handed, more = 0, True
        while more:
            drained = self._pump.drain()
            more = drained.more
            handed += self._answer(drained)
        if self._pump.holding:
            self._pump.flush()
        return handed

    def _answer(self, drained: Drained) -> int:
        handed = 0
        for bundle in drained.bundles:
            handed += len(bundle.peers)
            self._taken["REQUEST"] += len(bundle.peers)
            self._pump.reply(whole(bundle), echo_template(bundle), bundle.inputs, 0, 0, 0)
        for control in drained.controls:
            self._taken[Kind(control.kind).name] += 1
        return handed + len(drained.controls)

    def _check(self, expected: dict[int, bytes], answered: int) -> None:
        """Every valid request is answered once, with its row; every malformed message that has an id, too."""
        tally, errors = self.tally, 0
        for answer in (*self._same.answers(), *self._other.answers()):
            if answer[5] == Kind.ERROR:
                errors += 1
                self._refused[code_name(answer[7])] += 1
            row = expected.pop(int.from_bytes(answer[8:16], "little"), None)
            if row is None:
                continue
            if answer[5] == Kind.REPLY and answer.endswith(row):
                tally.right += 1
            else:
                tally.wrong.append(answer.hex())
        tally.wrong += [f"no answer to {request_id}" for request_id in expected]
        tally.lost += abs(answered - errors)
        del tally.wrong[_SHOWN:]

    def result(self) -> Tally:
        """The tally, with what was counted by kind; a valid request is none of the mutated messages."""
        taken = self._taken - Counter(REQUEST=self.tally.right)
        self.tally.taken, self.tally.refused = dict(taken), dict(self._refused)
        return self.tally


def echo_template(bundle: Bundle) -> ReplyTemplate:
    """For an answer that gives the inputs back."""
    header, layout = bundle.signature.header, bundle.signature.layout
    tensors = tuple(
        TensorHeader(name, dtype, shape)
        for name, dtype, shape in zip(layout.names, layout.dtype_names, layout.shapes, strict=True)
    )
    return ReplyTemplate(encode_header(ReplyHeader(header.model, 1, tensors, header.rows)), layout)


def _main(salvo: Salvo) -> None:
    from ...rpc.pump.compiled import CompiledPump

    fuzzer = Fuzzer(CompiledPump, valid_messages(Path(salvo.vectors)), salvo.seed)
    process = psutil.Process()
    begun = reported = time.monotonic()
    tally = fuzzer.tally
    while tally.sent < salvo.messages:
        fuzzer.burst(min(BURST, salvo.messages - tally.sent))
        if tally.sent * salvo.samples // salvo.messages > len(tally.rss):
            tally.rss.append(process.memory_info().rss)
        now = time.monotonic()
        tally.seconds = now - begun
        if now - reported > _REPORT_SECONDS:
            reported = now
            say(fuzzer.result())
    fuzzer.close()
    fuzzer.result().done = True
    say(tally)


if __name__ == "__main__":
    _main(msgspec.json.decode(sys.argv[1], type=Salvo))
