"""What every pump does, over real sockets. A new implementation is added to ``pumps.NAMES``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pumps
import pytest
import zmq
from tensorwire.rpc.errors import StatusCode
from tensorwire.rpc.pump import Bundle, ControlMessage, Pump, ReplyTemplate, Slice, whole
from tensorwire.rpc.pump.interface import DRAIN_NBYTES
from tensorwire.rpc.wire.extra import ControlCall, Extra, decode_error, encode_body
from tensorwire.rpc.wire.header import (
    Layout,
    ReplyHeader,
    RequestHeader,
    Signature,
    TensorHeader,
    encode_header,
)
from tensorwire.rpc.wire.message import (
    INLINE_LIMIT,
    build,
    build_control,
    build_error,
    payload_of,
    read_prefix,
)
from tensorwire.rpc.wire.prefix import MAX_COUNT, PREFIX_SIZE, Kind, Prefix
from vectors.read import load

WAIT_MS = 10_000
MALFORMED = [vector for vector in load("malformed") if vector["receiver"] == "server"]
Array = np.ndarray[Any, Any]


class Rig:
    """A ROUTER with a pump, and any number of DEALERs."""

    def __init__(self, make: Callable[..., Pump], transport: str, **options: Any) -> None:
        self.now = 100.0
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.LINGER, 0)
        self.router.setsockopt(zmq.SNDHWM, options.pop("sndhwm", 1000))
        if transport == "tcp":
            self.address = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        else:
            self.address = "inproc://pump"
            self.router.bind(self.address)
        self.pump = make(self.router, clock=lambda: self.now, **options)
        self.dealers: list[zmq.Socket[bytes]] = []

    def dealer(self, identity: bytes, **options: int) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, identity)
        socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        socket.connect(self.address)
        self.dealers.append(socket)
        return socket

    def drain(self, messages: int) -> tuple[list[Bundle], list[ControlMessage]]:
        """Drain until this many messages have been read."""
        bundles: list[Bundle] = []
        controls: list[ControlMessage] = []
        wanted = self.pump.counters.messages + messages
        while self.pump.counters.messages < wanted:
            assert self.router.poll(WAIT_MS), "nothing arrived"
            drained = self.pump.drain()
            bundles += drained.bundles
            controls += drained.controls
        return bundles, controls

    def drain_once(self) -> list[Bundle]:
        """What one drain finds; over inproc that is all that was sent."""
        assert self.router.poll(WAIT_MS)
        return self.pump.drain().bundles

    def close(self) -> None:
        for dealer in self.dealers:
            dealer.close()
        self.router.close()
        self.context.term()


@pytest.fixture(params=pumps.NAMES)
def make_pump(request: pytest.FixtureRequest) -> Callable[..., Pump]:
    return pumps.pump_named(request.param)


@pytest.fixture
def rig(make_pump: Callable[..., Pump]) -> Iterator[Rig]:
    made = Rig(make_pump, "inproc")
    yield made
    made.close()


@pytest.fixture
def tcp(make_pump: Callable[..., Pump]) -> Iterator[Rig]:
    made = Rig(make_pump, "tcp")
    yield made
    made.close()


def receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    assert socket.poll(WAIT_MS), "no answer"
    return socket.recv_multipart()


class Sender:
    """Requests with inputs of given names, dtypes and row shapes."""

    def __init__(
        self, *inputs: tuple[str, str, tuple[int, ...]], model: str = "m", rows: bool = True
    ) -> None:
        entries = tuple(TensorHeader(*item) for item in inputs)
        self.header = encode_header(RequestHeader(model, entries, rows=rows))
        self.layout = Signature(self.header).layout
        self.rows = rows

    def frames(
        self,
        first_id: int,
        arrays: Sequence[Array],
        rows: Sequence[int] = (1,),
        *,
        extra: Extra | None = None,
        timeout_us: int = 0,
        limit: int = INLINE_LIMIT,
    ) -> list[bytes]:
        frames = build(
            Kind.REQUEST,
            first_id=first_id,
            count=len(rows) if self.rows else 1,
            layout=self.layout,
            header=self.header,
            extra=b"" if extra is None else encode_body(extra),
            rows=rows if self.rows else None,
            payloads=[payload_of(array) for array in arrays],
            timeout_us=timeout_us,
            inline_limit=limit,
        )
        return [bytes(frame) for frame in frames]


X = Sender(("x", "float32", (2,)))


def x(*values: float) -> list[Array]:
    """One input of rows ``[v, -v]``."""
    return [np.array([[value, -value] for value in values], dtype="<f4").reshape(-1, 2)]


class Template:
    """Replies with outputs of given names, dtypes and row shapes."""

    def __init__(self, *outputs: tuple[str, str, tuple[int, ...]], rows: bool = True) -> None:
        entries = tuple(TensorHeader(*item) for item in outputs)
        self.header = encode_header(ReplyHeader("m", 3, entries, rows))
        self.layout = Layout(entries, rows)
        self.template = ReplyTemplate(self.header, self.layout)
        self.rows = rows

    def frames(
        self, first_id: int, rows: Sequence[int], arrays: Sequence[Array], queue_us: int, compute_us: int
    ) -> list[bytes]:
        frames = build(
            Kind.REPLY,
            first_id=first_id,
            count=len(rows),
            layout=self.layout,
            header=self.header,
            rows=rows if self.rows else None,
            payloads=[payload_of(array) for array in arrays],
            queue_us=queue_us,
            compute_us=compute_us,
        )
        return [bytes(frame) for frame in frames]


Y = Template(("y", "float32", (2,)))


class TestGrouping:
    def test_single_requests_of_many_peers_become_one_bundle(self, rig: Rig) -> None:
        peers = [b"p%d" % index for index in range(5)]
        dealers = [rig.dealer(peer) for peer in peers]
        for number in range(20):
            dealers[number % 5].send_multipart(X.frames(number, x(number), timeout_us=number * 1000))
        (bundle,) = rig.drain_once()
        assert (bundle.requests, bundle.total_rows) == (20, 20)
        assert bundle.counts is None
        assert bundle.rows is None
        found = {
            (peer, first_id): (deadline, row)
            for peer, first_id, deadline, row in zip(
                bundle.peers, bundle.first_ids, bundle.deadlines, bundle.inputs[0].tolist(), strict=True
            )
        }
        assert found == {
            (peers[n % 5], n): (100.0 + n / 1000 if n else float("inf"), [n, -n]) for n in range(20)
        }
        assert bundle.inputs[0].dtype == np.float32
        assert bundle.received == 100.0
        assert bundle.nbytes == 160
        assert bundle.earliest_deadline == 100.001
        assert bundle.signature.header.model == "m"

    def test_order_within_a_peer_is_kept(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        for number in range(50):
            dealer.send_multipart(X.frames(number, x(number)))
        (bundle,) = rig.drain_once()
        assert bundle.first_ids == list(range(50))
        assert bundle.inputs[0][:, 0].tolist() == list(range(50))

    def test_envelopes_and_uneven_rows_share_a_bundle(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        dealer.send_multipart(X.frames(10, x(1, 2, 3), [1, 1, 1]))
        dealer.send_multipart(X.frames(20, x(4)))
        dealer.send_multipart(X.frames(30, x(5, 6), [0, 2]))
        (bundle,) = rig.drain_once()
        assert bundle.counts == [3, 1, 2]
        assert bundle.rows == [1, 1, 1, 1, 0, 2]
        assert bundle.first_ids == [10, 20, 30]
        assert bundle.inputs[0][:, 0].tolist() == [1, 2, 3, 4, 5, 6]
        found = [bundle.overlaps(0, bundle.requests, b"p", i, 1) for i in (12, 20, 30, 31, 32)]
        assert found == [[(2, 3)], [(3, 4)], [(4, 5)], [(5, 6)], []]

    def test_signatures_priorities_and_routing_keys_are_kept_apart(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        extras = [
            None, Extra(priority=1), Extra(routing_key=b"k"), Extra(routing_key=b""),
            Extra(priority=1, routing_key=b"k"), Extra(metadata={"a": 1}), Extra(trace={"traceparent": "t"}),
        ]  # fmt: skip
        for number, extra in enumerate(extras * 2):
            dealer.send_multipart(X.frames(number, x(number), extra=extra))
        dealer.send_multipart(Sender(("x", "float32", (2,)), model="other").frames(90, x(0)))
        dealer.send_multipart(Sender(("x", "float32", (1, 2))).frames(91, x(0)))
        found: dict[tuple[Any, ...], list[int]] = {}
        for bundle in rig.drain_once():
            signature = bundle.signature
            key = (signature.header.model, signature.layout.shapes, bundle.priority, bundle.routing_key)
            found[key] = bundle.first_ids
        assert found == {
            # Metadata and trace context make no group of their own.
            ("m", ((2,),), 0, None): [0, 5, 6, 7, 12, 13],
            ("m", ((2,),), 1, None): [1, 8],
            ("m", ((2,),), 0, b"k"): [2, 9],
            ("m", ((2,),), 0, b""): [3, 10],
            ("m", ((2,),), 1, b"k"): [4, 11],
            ("other", ((2,),), 0, None): [90],
            ("m", ((1, 2),), 0, None): [91],
        }

    def test_large_tensors_are_bundles_of_their_own(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        wide = Sender(("a", "uint8", (50_000,)), ("b", "uint8", (3,)))
        block = np.arange(100_000, dtype=np.uint8).reshape(2, 50_000)
        small = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
        for first_id in (1, 11):
            dealer.send_multipart(wide.frames(first_id, [block, small], [1, 1]))
        bundles = rig.drain_once()
        assert [bundle.first_ids for bundle in bundles] == [[1], [11]]
        for bundle in bundles:
            assert bundle.requests == 2
            assert bundle.nbytes >= 100_006
            np.testing.assert_array_equal(bundle.inputs[0], block)
            np.testing.assert_array_equal(bundle.inputs[1], small)

    def test_without_rows_and_with_text(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        scalar = Sender(("a", "float64", ()), ("b", "int8", (2, 2)), rows=False)
        matrix = np.array([[1, 2], [3, 4]], dtype=np.int8)
        text = Sender(("s", "string", (2,)))
        words = np.array([["a", "\u00e9"], ["", "b"]], dtype=object)
        dealer.send_multipart(scalar.frames(1, [np.array(0.5), matrix]))
        dealer.send_multipart(text.frames(2, [words], [1, 1]))
        first, second = rig.drain_once()
        assert first.inputs[0].shape == ()
        assert first.inputs[0].tolist() == 0.5
        np.testing.assert_array_equal(first.inputs[1], matrix)
        assert (first.requests, first.row_span(0, 1)) == (1, 1)
        assert second.inputs[0].tolist() == words.tolist()
        assert second.requests == 2

    def test_blocks_can_be_computed_with(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        many = Sender(("a", "uint8", ()), ("b", "float64", (1,)), ("c", "complex128", ()))
        for number in range(3):
            arrays = [np.array([number], "u1"), np.array([[number]], "f8"), np.array([number], "c16")]
            dealer.send_multipart(many.frames(number, arrays))
        (bundle,) = rig.drain_once()
        for block in bundle.inputs:
            assert block.flags.aligned
            assert block.flags.c_contiguous
            assert block.sum() == 3

    def test_as_long_as_one_with_an_extra_is_not_as_it_should_be(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        (with_extra,) = X.frames(1, x(1), extra=Extra(metadata={"trace": "0123456789"}))
        dealer.send_multipart([with_extra])
        assert [bundle.first_ids for bundle in rig.drain_once()] == [[1]]
        without = bytearray(with_extra)
        without[32:36] = bytes(4)  # the extra's length
        at = PREFIX_SIZE + int.from_bytes(without[28:32], "little")
        without[at : at + 4] = (1).to_bytes(4, "little")  # rows
        dealer.send_multipart([bytes(without)])
        assert rig.drain_once() == []
        assert rig.pump.counters.malformed_answered == 1

    def test_a_limit_leaves_the_rest(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        for number in range(7):
            dealer.send_multipart(X.frames(number, x(number)))
        assert rig.router.poll(WAIT_MS)
        drains = [rig.pump.drain(3) for _ in range(4)]
        assert [[b.first_ids for b in drained.bundles] for drained in drains] == [
            [[0, 1, 2]], [[3, 4, 5]], [[6]], []
        ]  # fmt: skip
        assert [drained.more for drained in drains] == [True, True, False, False]
        assert rig.pump.counters.messages == 7
        assert rig.pump.counters.requests == 7

    def test_so_many_bytes_are_enough(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        large = np.ones((1, DRAIN_NBYTES // 14), np.float32)  # three are less than enough, four are more
        sender = Sender(("x", "float32", large.shape[1:]))
        for number in range(6):
            dealer.send_multipart(sender.frames(number, [large]))
        assert rig.router.poll(WAIT_MS)
        drains = [rig.pump.drain() for _ in range(3)]
        assert [[b.first_ids for b in drained.bundles] for drained in drains] == [
            [[0], [1], [2], [3]], [[4], [5]], []
        ]  # fmt: skip
        assert [drained.more for drained in drains] == [True, False, False]

    def test_nothing_there(self, rig: Rig) -> None:
        drained = rig.pump.drain()
        assert (drained.bundles, drained.controls, drained.more) == ([], [], False)
        assert not rig.pump.holding
        assert rig.pump.flush() is False

    def test_a_block_outlives_later_drains(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        kept: list[Bundle] = []
        for number in range(20):
            dealer.send_multipart(X.frames(number, x(number)))
            dealer.send_multipart(X.frames(number, x(number, number), [2], limit=0))
            kept += rig.drain_once()
        assert [bundle.inputs[0][:, 0].tolist() for bundle in kept] == [
            [n] * k for n in range(20) for k in kept_rows(kept[2 * n : 2 * n + 2])
        ]

    def test_counters(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        messages = [X.frames(1, x(1, 2), [1, 1]), X.frames(3, x(1), limit=0), [build_control(Kind.PING, 9)]]
        for frames in messages:
            dealer.send_multipart(frames)
        rig.drain(3)
        counters = rig.pump.counters
        assert (counters.messages, counters.requests) == (3, 3)
        assert counters.bytes_received == sum(len(frame) for frames in messages for frame in frames)


def kept_rows(bundles: list[Bundle]) -> list[int]:
    return [bundle.total_rows for bundle in bundles]


class TestControls:
    def test_controls_are_handed_on(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        body = encode_body(ControlCall("health"))
        for frame in (
            build_control(Kind.PING, 1),
            build_control(Kind.CANCEL, 7, count=3),
            build_control(Kind.CONTROL, 8, body, timeout_us=5),
        ):
            dealer.send(frame)
        bundles, controls = rig.drain(3)
        assert bundles == []
        assert controls == [
            ControlMessage(b"p", Kind.PING, 1, 1, 0, b""),
            ControlMessage(b"p", Kind.CANCEL, 7, 3, 0, b""),
            ControlMessage(b"p", Kind.CONTROL, 8, 1, 5, body),
        ]

    def test_a_control_call_may_be_longer_than_a_header(self, rig: Rig) -> None:
        body = encode_body({"method": "x", "params": {"a": "b" * 200_000}})
        rig.dealer(b"p").send(build_control(Kind.CONTROL, 1, body))
        _, (control,) = rig.drain(1)
        assert control.body == body

    def test_controls_between_requests(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        for number in range(6):
            dealer.send_multipart(X.frames(number, x(number)))
            dealer.send(build_control(Kind.PING, 100 + number))
        bundles, controls = rig.drain(12)
        assert sum(bundle.requests for bundle in bundles) == 6
        assert [control.id for control in controls] == list(range(100, 106))


class TestMalformed:
    """A vector each: the outcome, and that the messages before and behind it are read as they are."""

    def test_every_vector(self, tcp: Rig) -> None:
        dealer = tcp.dealer(b"p")
        counters = tcp.pump.counters
        for number, vector in enumerate(MALFORMED):
            frames, outcome = vector["frames"], vector["outcome"]
            if vector["name"].startswith("control_") and vector["name"] != "control_short":
                continue  # the call is decoded by whoever runs it
            before = (counters.malformed_dropped, counters.malformed_answered)
            dealer.send_multipart(X.frames(number, x(number)))
            dealer.send_multipart(frames)
            dealer.send_multipart(X.frames(number, x(number, -number), [2]))
            bundles, controls = tcp.drain(3)
            assert controls == []
            assert [row for b in bundles for row in b.inputs[0][:, 0].tolist()] == [number, number, -number]
            dropped = outcome["error"] == "dropped"
            after = (counters.malformed_dropped, counters.malformed_answered)
            assert after == (before[0] + dropped, before[1] + (not dropped)), vector["name"]
            if not dropped:
                (answer,) = receive(dealer)
                prefix = read_prefix(answer)
                assert prefix.kind == Kind.ERROR
                assert StatusCode(prefix.status).name == outcome["error"], vector["name"]
                assert (str(prefix.id), prefix.count) == (outcome["id"], outcome["count"]), vector["name"]
                assert decode_error(answer[PREFIX_SIZE:]), "an error says what was wrong"
        assert not dealer.poll(0)

    @pytest.mark.parametrize("transport", ["inproc", "tcp"])
    @pytest.mark.parametrize("extra_frames", [-2, -1, 1, 2, 255, 300])
    def test_too_few_or_too_many_frames_shift_nothing(
        self, make_pump: Callable[..., Pump], transport: str, extra_frames: int
    ) -> None:
        rig = Rig(make_pump, transport)
        try:
            dealer, other = rig.dealer(b"p"), rig.dealer(b"q")
            wide = Sender(("a", "uint8", (4,)), ("b", "uint8", (4,)))
            arrays = [np.full((1, 4), value, dtype=np.uint8) for value in (1, 2)]
            good = wide.frames(1, arrays, limit=0)
            assert len(good) == 3
            bad = good[:extra_frames] if extra_frames < 0 else good + [b"\3" * 4] * extra_frames
            for _ in range(3):
                dealer.send_multipart(bad)
                dealer.send_multipart(good)
                other.send_multipart(good)
            bundles, _ = rig.drain(9)
            assert sorted(peer for bundle in bundles for peer in bundle.peers) == [b"p"] * 3 + [b"q"] * 3
            for bundle in bundles:
                assert [block[0].tolist() for block in bundle.inputs] == [[1] * 4, [2] * 4]
            assert rig.pump.counters.malformed_answered == 3
        finally:
            rig.close()

    @pytest.mark.parametrize("drains", [1, 2])
    def test_an_extra_shifts_nothing_in_the_next_message(self, rig: Rig, drains: int) -> None:
        """As long as one with an extra, but without one: bytes too many, and not tensors that lie further
        back."""
        dealer = rig.dealer(b"p")
        (long,) = X.frames(1, x(1), extra=Extra(metadata={"k": "v" * 12}))
        (short,) = X.frames(2, x(2))
        assert len(long) > len(short)
        messages = [long, short + bytes(len(long) - len(short)), short]
        bundles: list[Bundle] = []
        for burst in (messages[:1], messages[1:]) if drains == 2 else (messages,):
            for message in burst:
                dealer.send(message)
            bundles += rig.drain(len(burst))[0]
        assert [first_id for bundle in bundles for first_id in bundle.first_ids] == [1, 2]
        assert [row for bundle in bundles for row in bundle.inputs[0].tolist()] == [[1, -1], [2, -2]]
        (answer,) = receive(dealer)
        assert read_prefix(answer).status == StatusCode.INVALID_ARGUMENT

    def test_other_peers_are_not_harmed(self, rig: Rig) -> None:
        good, evil = rig.dealer(b"good"), rig.dealer(b"evil")
        for number, vector in enumerate(MALFORMED):
            evil.send_multipart(vector["frames"])
            good.send_multipart(X.frames(number, x(number)))
        bundles, _ = rig.drain(2 * len(MALFORMED))
        assert sum(bundle.requests for bundle in bundles) == len(MALFORMED)
        assert {peer for bundle in bundles for peer in bundle.peers} == {b"good"}
        assert not good.poll(0)

    def test_the_answer_to_a_peer_that_is_gone_is_dropped(self, rig: Rig) -> None:
        rig.pump.send(b"nobody", b"anything")
        assert rig.pump.counters.peer_gone == 1
        assert not rig.pump.holding


def random_array(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=int))
    if dtype == "string":
        flat = np.empty(size, dtype=object)
        flat[:] = ["\u00e9" * int(length) for length in random.integers(0, 4, size)]
        return flat.reshape(shape)
    return random.integers(0, 2, size).astype(dtype).reshape(shape)


class TestReplies:
    def check(
        self,
        rig: Rig,
        dealer: zmq.Socket[bytes],
        part: Slice,
        template: Template,
        outputs: Sequence[Array],
        row: int = 0,
        times: tuple[int, int] = (7, 9),
    ) -> None:
        """Reply, and compare what arrives with :func:`build`."""
        before = rig.pump.counters.replies
        rig.pump.reply(part, template.template, outputs, row, *times)
        bundle = part.bundle
        for message in bundle.messages(part.lo, part.hi):
            span = range(message.start, message.start + message.requests)
            rows = [bundle.row_span(index, index + 1) for index in span]
            end = row + sum(rows)
            arrays = [output[row:end] if template.rows else output for output in outputs]
            row = end
            assert receive(dealer) == template.frames(message.first_id, rows, arrays, *times)
        assert rig.pump.counters.replies == before + part.requests
        assert not dealer.poll(0)

    def bundle(self, rig: Rig, dealer: zmq.Socket[bytes], *rows: Sequence[int]) -> Bundle:
        """A bundle of one message per argument."""
        first_id = 1000
        for counts in rows:
            dealer.send_multipart(X.frames(first_id, x(*range(sum(counts))), counts))
            first_id += 100
        (bundle,) = rig.drain_once()
        return bundle

    def test_singles(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1], [1], [1])
        output = np.arange(12, dtype=np.float32).reshape(6, 2)
        self.check(rig, dealer, whole(bundle), Y, [output[:3]])
        self.check(rig, dealer, Slice(bundle, 1, 3), Y, [output], row=4)
        self.check(rig, dealer, Slice(bundle, 2, 2), Y, [output])

    def test_each_peer_gets_its_own(self, rig: Rig) -> None:
        dealers = {b"p%d" % n: rig.dealer(b"p%d" % n) for n in range(4)}
        for number, dealer in enumerate(dealers.values()):
            dealer.send_multipart(X.frames(number, x(number)))
        (bundle,) = rig.drain_once()
        rig.pump.reply(whole(bundle), Y.template, bundle.inputs, 0, 0, 0)
        for number, dealer in enumerate(dealers.values()):
            assert receive(dealer) == Y.frames(number, [1], x(number), 0, 0)

    def test_envelopes_whole_and_in_parts(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1] * 3, [1], [1] * 4)
        output = np.arange(16, dtype=np.float32).reshape(8, 2)
        for lo in range(9):
            for hi in range(lo, 9):
                self.check(rig, dealer, Slice(bundle, lo, hi), Y, [output[lo:hi]])

    def test_uneven_rows(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [2, 0, 1], [3], [1, 1])
        output = np.arange(20, dtype=np.float32).reshape(10, 2)
        for lo, hi in ((0, 6), (0, 1), (1, 2), (1, 5), (3, 6)):
            self.check(rig, dealer, Slice(bundle, lo, hi), Y, [output], row=1)

    def test_times_saturate(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1], [1, 1])
        output = np.zeros((3, 2), np.float32)
        self.check(rig, dealer, whole(bundle), Y, [output], times=(2**32 + 5, 2**40))
        self.check(rig, dealer, whole(bundle), Y, [output], times=(2**32 - 1, 0))

    @pytest.mark.parametrize("size", [INLINE_LIMIT - 1, INLINE_LIMIT, INLINE_LIMIT + 1, 70_000])
    @pytest.mark.parametrize("counts", [[[1], [1]], [[1, 1]], [[2], [1, 0]]])
    def test_around_the_inline_limit(self, rig: Rig, size: int, counts: list[list[int]]) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, *counts)
        template = Template(("a", "uint8", (size,)), ("b", "int16", ()))
        rows = sum(map(sum, counts))
        outputs = [
            np.arange(rows * size, dtype=np.uint8).reshape(rows, size),
            np.arange(rows, dtype=np.int16),
        ]
        self.check(rig, dealer, whole(bundle), template, outputs)

    def test_arrays_of_every_kind(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1], [1, 1])
        base = np.arange(12, dtype=np.float32).reshape(3, 4)
        read_only = base[:, :2].copy()
        read_only.flags.writeable = False
        for output in (base[:, ::2], base[:, 1:3], base[::-1, :2], np.asfortranarray(base[:, :2]), read_only):
            self.check(rig, dealer, whole(bundle), Y, [output])
        self.check(rig, dealer, whole(bundle), Y, [base[:, :2].astype(">f4")])
        self.check(rig, dealer, whole(bundle), Template(("y", "float32", (0,))), [base[:, :0]])
        self.check(rig, dealer, whole(bundle), Template(), [])

    def test_without_rows(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        template = Template(("a", "float64", ()), ("b", "uint8", (3, 2)), rows=False)
        outputs = [np.array(1.5), np.arange(6, dtype=np.uint8).reshape(3, 2)]
        self.check(rig, dealer, whole(self.bundle(rig, dealer, [1])), template, outputs)
        dealer.send_multipart(
            Sender(("x", "float32", ()), rows=False).frames(5, [np.float32([1]).reshape(())])
        )
        (bundle,) = rig.drain_once()
        self.check(rig, dealer, whole(bundle), template, outputs)
        # A model without a batch axis answers requests of several rows, too; its outputs are sent whole.
        dealer.send_multipart(X.frames(6, x(1, 2), [2]))
        (bundle,) = rig.drain_once()
        rig.pump.reply(whole(bundle), template.template, outputs, 0, 1, 2)
        assert receive(dealer) == template.frames(6, [2], outputs, 1, 2)

    def test_text(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1], [1, 1])
        template = Template(("s", "string", (2,)), ("n", "int8", ()))
        words = np.array([["a", ""], ["\u00e9", "bb"], ["c", "d"]], dtype=object)
        self.check(rig, dealer, whole(bundle), template, [words, np.arange(3, dtype=np.int8)])

    def test_text_that_cannot_be_sent_fails_alone(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1], [1, 1], [1])
        template = Template(("s", "string", ()))
        words = np.empty(4, dtype=object)
        words[:] = ["a", "b", 3, "\ud800"]
        rig.pump.reply(whole(bundle), template.template, [words], 0, 0, 0)
        assert receive(dealer) == template.frames(1000, [1], [words[:1]], 0, 0)
        for first_id, count in ((1100, 2), (1200, 1)):
            (answer,) = receive(dealer)
            prefix = read_prefix(answer)
            assert (prefix.id, prefix.count, prefix.status) == (first_id, count, StatusCode.INTERNAL)
            assert "output cannot be sent" in decode_error(answer[PREFIX_SIZE:])
        assert (rig.pump.counters.replies, rig.pump.counters.errors) == (1, 3)

    def test_random_replies_equal_the_codec(self, rig: Rig) -> None:
        random = np.random.default_rng(1)
        dealer = rig.dealer(b"p")
        dtypes = ("uint8", "int16", "float32", "complex128", "bool", "string")
        for _ in range(60):
            uneven = random.random() < 0.3
            messages = [
                random.integers(0, 4, random.integers(1, 5)).tolist()
                if uneven
                else [1] * int(random.integers(1, 5))
                for _ in range(random.integers(1, 5))
            ]
            bundle = self.bundle(rig, dealer, *messages)
            specs = [
                (
                    f"t{n}",
                    str(random.choice(dtypes)),
                    tuple(random.integers(0, 4, random.integers(0, 3)).tolist()),
                )
                for n in range(random.integers(0, 4))
            ]
            lo = int(random.integers(0, bundle.requests))
            hi = int(random.integers(lo, bundle.requests + 1))
            row = int(random.integers(0, 3))
            rows = row + bundle.row_span(lo, hi) + int(random.integers(0, 2))
            outputs = [random_array(random, dtype, (rows, *shape)) for _, dtype, shape in specs]
            self.check(rig, dealer, Slice(bundle, lo, hi), Template(*specs), outputs, row)

    def test_failures(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        bundle = self.bundle(rig, dealer, [1], [1] * 4)
        rig.pump.fail(Slice(bundle, 0, 4), StatusCode.UNAVAILABLE, "gone")
        assert receive(dealer) == [build_error(1000, 1, 14, "gone")]
        assert receive(dealer) == [build_error(1100, 3, 14, "gone")]
        rig.pump.fail(Slice(bundle, 4, 5), 99, "later \ud800")
        assert receive(dealer) == [build_error(1103, 1, 99, "later ?")]
        assert rig.pump.counters.errors == 5

    def test_ids_to_the_last(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        last = 2**64 - 1
        dealer.send_multipart(X.frames(last - 2, x(1, 2, 3), [1, 1, 1]))
        dealer.send_multipart(X.frames(last, x(4)))
        (bundle,) = rig.drain_once()
        self.check(rig, dealer, Slice(bundle, 1, 4), Y, [np.zeros((3, 2), np.float32)])

    def test_the_largest_envelope(self, rig: Rig) -> None:
        dealer = rig.dealer(b"p")
        tiny = Sender(("x", "uint8", ()))
        block = np.arange(MAX_COUNT).astype(np.uint8)
        dealer.send_multipart(tiny.frames(0, [block], [1] * MAX_COUNT))
        (bundle,) = rig.drain_once()
        assert bundle.requests == MAX_COUNT
        self.check(rig, dealer, whole(bundle), Template(("y", "uint8", ())), [block])


class TestPeers:
    def test_a_peer_that_left(self, tcp: Rig) -> None:
        staying, leaving = tcp.dealer(b"stay"), tcp.dealer(b"leave")
        for dealer in (staying, leaving):
            dealer.send_multipart(X.frames(1, x(1)))
        bundles, _ = tcp.drain(2)
        leaving.close()
        tcp.dealers.remove(leaving)
        for _ in range(1000):
            for bundle in bundles:
                tcp.pump.reply(whole(bundle), Y.template, bundle.inputs, 0, 0, 0)
            if tcp.pump.counters.peer_gone:
                break
            tcp.router.poll(10)  # lets libzmq notice
        assert tcp.pump.counters.peer_gone
        assert receive(staying) == Y.frames(1, [1], x(1), 0, 0)
        assert not tcp.pump.holding

    @pytest.mark.parametrize("transport", ["inproc", "tcp"])
    def test_a_peer_that_does_not_read(self, make_pump: Callable[..., Pump], transport: str) -> None:
        """What is kept for it is bounded in bytes; the rest is refused, in order, and it can recover."""
        rig = Rig(make_pump, transport, max_peer_nbytes=4_000_000, sndhwm=2)
        try:
            self.check_stuck(rig)
        finally:
            rig.close()

    def check_stuck(self, rig: Rig) -> None:
        stuck, healthy = rig.dealer(b"stuck", RCVHWM=2, RCVBUF=8192), rig.dealer(b"healthy")
        requests = 100
        template = Template(("y", "uint8", (200_000,)))
        for dealer, count in ((stuck, requests), (healthy, 1)):
            for number in range(count):
                dealer.send_multipart(X.frames(number, x(number)))
        bundles, _ = rig.drain(requests + 1)
        output = np.zeros((1, 200_000), np.uint8)
        parts = [
            Slice(bundle, index, index + 1)
            for bundle in bundles
            for index, peer in enumerate(bundle.peers)
            if peer == b"stuck"
        ]
        for part in parts:
            rig.pump.reply(part, template.template, [output], 0, 0, 0)
        counters = rig.pump.counters
        assert rig.pump.holding
        assert rig.pump.flush() is True
        # Another peer does not wait for it.
        (bundle,) = [b for b in bundles if b"healthy" in b.peers]
        index = bundle.peers.index(b"healthy")
        rig.pump.reply(Slice(bundle, index, index + 1), Y.template, bundle.inputs, index, 0, 0)
        assert len(receive(healthy)) == 1
        # 20 replies of 200 kB are kept; over TCP the network's buffers take some more.
        assert counters.peer_stuck >= (requests - 20 if transport_of(rig) == "inproc" else 1)
        answered: dict[int, int] = {}
        for _ in range(2000):
            if len(answered) == requests:
                break
            rig.pump.flush()
            if stuck.poll(20):
                frames = stuck.recv_multipart()
                prefix = read_prefix(frames[0])
                assert prefix.id not in answered
                answered[prefix.id] = prefix.status
                if prefix.kind == Kind.REPLY:
                    assert len(frames[1]) == 200_000
        assert sorted(answered) == list(range(requests))
        refused = [status for status in answered.values() if status]
        assert len(refused) == counters.peer_stuck
        assert set(refused) == {StatusCode.RESOURCE_EXHAUSTED}
        self.wait_until_nothing_is_held(rig, stuck)
        rig.pump.reply(parts[0], template.template, [output], 0, 0, 0)
        assert len(self.receive_late(rig, stuck)[1]) == 200_000

    @staticmethod
    def wait_until_nothing_is_held(rig: Rig, socket: zmq.Socket[bytes]) -> None:
        """pyzmq learns in a thread of its own that a frame was let go of."""
        for _ in range(1000):
            rig.pump.flush()
            if not rig.pump.holding:
                return
            socket.poll(10)
        pytest.fail("frames are still held")

    @staticmethod
    def receive_late(rig: Rig, socket: zmq.Socket[bytes]) -> list[bytes]:
        """libzmq learns with a delay, and in a later call, that a pipe has room again."""
        for _ in range(1000):
            rig.pump.flush()
            if socket.poll(10):
                return socket.recv_multipart()
        pytest.fail("no answer")

    def test_small_answers_to_a_peer_that_does_not_read(self, make_pump: Callable[..., Pump]) -> None:
        rig = Rig(make_pump, "inproc", max_peer_nbytes=10_000, sndhwm=2)
        try:
            dealer = rig.dealer(b"p", RCVHWM=2)
            dealer.send(build_control(Kind.PING, 0))
            rig.drain(1)
            pongs = [build_control(Kind.PONG, number) for number in range(5000)]
            for pong in pongs:
                rig.pump.send(b"p", pong)
            assert rig.pump.counters.peer_stuck > 4000
            found: list[Prefix] = []
            while rig.pump.holding or dealer.poll(0):
                rig.pump.flush()
                while dealer.poll(0):
                    found.append(read_prefix(dealer.recv()))
            kinds = [prefix.kind for prefix in found]
            good = kinds.count(Kind.PONG)
            # The first are delivered, a bounded number of the others is refused, the rest is dropped.
            assert [prefix.id for prefix in found] == list(range(len(found)))
            assert 10_000 // 48 <= good <= 10_000 // 48 + 10
            assert kinds == [Kind.PONG] * good + [Kind.ERROR] * 1024
            rig.pump.send(b"p", pongs[0])
            assert self.receive_late(rig, dealer) == [pongs[0]]
        finally:
            rig.close()

    def test_more_may_be_kept_for_some(self, make_pump: Callable[..., Pump]) -> None:
        rig = Rig(make_pump, "inproc", max_peer_nbytes=10_000, sndhwm=2)
        try:
            dealer = rig.dealer(b"p", RCVHWM=2)
            dealer.send(build_control(Kind.PING, 0))
            rig.drain(1)
            rig.pump.allow(b"p", 1 << 20)
            pong = build_control(Kind.PONG, 1)
            for _ in range(5000):
                rig.pump.send(b"p", pong)
            assert rig.pump.counters.peer_stuck == 0
            found: list[bytes] = []
            while rig.pump.holding or dealer.poll(0):
                rig.pump.flush()
                while dealer.poll(0):
                    found.append(dealer.recv())
            assert found == [pong] * 5000
            rig.pump.allow(b"p", None)
            for _ in range(5000):
                rig.pump.send(b"p", pong)
            assert rig.pump.counters.peer_stuck > 4000
        finally:
            rig.close()

    def test_one_reply_may_be_larger_than_the_bound(self, make_pump: Callable[..., Pump]) -> None:
        rig = Rig(make_pump, "inproc", max_peer_nbytes=1000)
        try:
            dealer = rig.dealer(b"p")
            dealer.send_multipart(X.frames(1, x(1)))
            (bundle,) = rig.drain_once()
            template = Template(("y", "uint8", (100_000,)))
            for _ in range(3):
                rig.pump.reply(whole(bundle), template.template, [np.zeros((1, 100_000), np.uint8)], 0, 0, 0)
                assert len(receive(dealer)[1]) == 100_000
                self.wait_until_nothing_is_held(rig, dealer)
            assert rig.pump.counters.peer_stuck == 0
        finally:
            rig.close()

    def test_a_stuck_peer_that_leaves_is_forgotten(self, make_pump: Callable[..., Pump]) -> None:
        rig = Rig(make_pump, "inproc", sndhwm=1)
        try:
            dealer = rig.dealer(b"p", RCVHWM=1)
            dealer.send(build_control(Kind.PING, 0))
            rig.drain(1)
            for _ in range(50):
                rig.pump.send(b"p", build_control(Kind.PONG, 0))
            assert rig.pump.holding
            dealer.close()
            rig.dealers.clear()
            for _ in range(1000):
                rig.pump.flush()
                if not rig.pump.holding:
                    break
                rig.router.poll(10)
            assert not rig.pump.holding
            assert rig.pump.counters.peer_gone == 1
        finally:
            rig.close()


def transport_of(rig: Rig) -> str:
    return rig.address.partition(":")[0]


class TestVectors:
    def test_every_request_vector(self, tcp: Rig) -> None:
        dealer = tcp.dealer(b"p")
        vectors = load("requests")
        for _ in range(2):
            for vector in vectors:
                dealer.send_multipart(vector["frames"])
                (bundle,), _ = tcp.drain(1)
                assert bundle.first_ids == [int(vector["message"]["id"])]
                for block, tensor in zip(bundle.inputs, vector["message"]["tensors"], strict=True):
                    assert list(block.shape) == tensor["shape"]
                    assert bytes(payload_of(block)).hex() == tensor["payload"]
        assert tcp.pump.counters.malformed_answered == 0
