"""The proxy between an acceptor's pump and the server: every request is passed on once and answered once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from bundles import NEVER, Name, bundle, names, signature
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tensorwire.rpc.errors import StatusCode
from tensorwire.rpc.pump import Bundle, ControlMessage, Drained, Slice
from tensorwire.rpc.wire.extra import ControlCall, decode_extra, encode_body
from tensorwire.rpc.wire.header import (
    MAX_TENSOR_NBYTES,
    Layout,
    ReplyHeader,
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
    read_rows,
    read_tensors,
)
from tensorwire.rpc.wire.prefix import MAX_COUNT, PREFIX_SIZE, Kind
from tensorwire.server.acceptor import envelopes
from tensorwire.server.acceptor.proxy import Proxy

Array = np.ndarray[Any, Any]
NOW = 100.0
X = signature(("x", "int64", ()))
CALL = encode_body(ControlCall("health"))
PEERS = (b"a", b"b", b"c")


class Sent(NamedTuple):
    """A message to the server, read as the server does."""

    kind: int
    first_id: int
    count: int
    timeout_us: int
    body: bytes
    priority: int
    routing_key: bytes | None
    rows: list[int] | None
    tensors: list[Array]
    frames: int


def read(frames: Sequence[Any]) -> Sent:
    head, *rest = frames
    prefix = read_prefix(head)
    end = PREFIX_SIZE + prefix.header_len
    body, extra = bytes(head[PREFIX_SIZE:end]), decode_extra(bytes(head[end : end + prefix.extra_len]))
    rows, tensors = None, list[Array]()
    if prefix.kind == Kind.REQUEST:
        layout = Signature(body).layout
        rows, total, start = read_rows(head, prefix, layout)
        tensors = read_tensors(head, rest, layout, total, start, prefix.inline_limit)
    return Sent(
        prefix.kind,
        prefix.id,
        prefix.count,
        prefix.timeout_us,
        body,
        extra.priority,
        extra.routing_key,
        rows,
        tensors,
        len(rest),
    )


class FakePump:
    """Notes who was answered, and with what."""

    def __init__(self) -> None:
        self.replies: list[tuple[Slice, list[Array], int, int]] = []
        self.failures: list[tuple[Slice, int, str]] = []
        self.frames: list[tuple[bytes, bytes]] = []

    def reply(
        self, part: Slice, template: Any, outputs: list[Array], row: int, queue_us: int, compute_us: int
    ) -> None:
        assert row == 0
        assert template.layout.names == ("y",)
        self.replies.append((part, outputs, queue_us, compute_us))

    def fail(self, part: Slice, code: int, message: str) -> None:
        self.failures.append((part, code, message))

    def send(self, peer: bytes, frame: bytes) -> None:
        self.frames.append((peer, frame))


class Rig:
    def __init__(self) -> None:
        self.pump = FakePump()
        self.out: list[Sequence[Any]] = []
        self.proxy = Proxy(self.pump, self.out.append)  # type: ignore[arg-type]

    def take(self, *bundles: Bundle, controls: Sequence[ControlMessage] = ()) -> list[Sent]:
        """What is passed on of this."""
        self.out.clear()
        self.proxy.take(Drained(list(bundles), list(controls), False), NOW)
        return [read(frames) for frames in self.out]

    def control(self, kind: Kind, peer: bytes, number: int, count: int = 1, body: bytes = b"") -> list[Sent]:
        return self.take(controls=[ControlMessage(peer, kind, number, count, 77, body)])

    def answer(self, first_id: int, rows: list[int] | None, y: Array, count: int = 1) -> None:
        self.proxy.receive(*reply(first_id, rows, y, count))

    def waits(self) -> int:
        return len(self.proxy.pending)


def reply(first_id: int, rows: list[int] | None, y: Array, count: int = 1) -> tuple[bytes, list[memoryview]]:
    tensors = (TensorHeader("y", y.dtype.name, y.shape if rows is None else y.shape[1:]),)
    head, *frames = build(
        Kind.REPLY,
        first_id=first_id,
        count=count if rows is None else len(rows),
        layout=Layout(tensors, rows is not None),
        header=encode_header(ReplyHeader("m", 1, tensors, rows is not None)),
        rows=rows,
        payloads=[payload_of(y)],
        queue_us=5,
        compute_us=6,
    )
    return bytes(head), [memoryview(frame) for frame in frames]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def rows_of(*values: int) -> list[Array]:
    return [np.array(values, np.int64)]


# ---------------------------------------------------------------- there


def test_requests_of_many_peers_travel_together(rig: Rig) -> None:
    many = bundle(7, 9, 12, of=X, inputs=rows_of(1, 2, 3), deadline=NOW + 0.25)
    many.peers = [b"a", b"b", b"a"]
    (sent,) = rig.take(many)
    assert (sent.kind, sent.count, sent.timeout_us, sent.body) == (Kind.REQUEST, 3, 250_000, X.raw)
    assert (sent.priority, sent.routing_key, sent.rows) == (0, None, [1, 1, 1])
    assert sent.tensors[0].tolist() == [1, 2, 3]
    assert many.inputs == []  # not kept until they are answered
    rig.answer(sent.first_id, [1, 1, 1], np.array([10, 20, 30]))
    ((part, outputs, queue_us, compute_us),) = rig.pump.replies
    assert names([part]) == [(b"a", 7), (b"b", 9), (b"a", 12)]
    assert (outputs[0].tolist(), queue_us, compute_us) == ([10, 20, 30], 5, 6)
    assert not rig.waits()


def test_the_plain_way_writes_what_the_general_one_does() -> None:
    for count in (1, 3, 9000):
        values = np.arange(count, dtype=np.int64)
        plain = bundle(*range(count), of=X, inputs=[values], deadline=NOW + 1)
        (run,) = envelopes.runs(plain)
        general = build(
            Kind.REQUEST,
            first_id=1 << 16,
            count=count,
            layout=X.layout,
            header=X.raw,
            rows=[1] * count,
            payloads=[payload_of(values)],
            timeout_us=1_000_000,
        )
        assert [bytes(frame) for frame in envelopes.encode(run, 1 << 16, NOW)] == [*map(bytes, general)]
        assert len(general) == 1 + (8 * count > INLINE_LIMIT)


def test_different_deadlines_travel_apart(rig: Rig) -> None:
    deadlines = [NOW + 1, NOW + 1, NEVER, NOW + 0.5, NOW - 1]
    sent = rig.take(bundle(*range(5), of=X, inputs=rows_of(*range(5)), deadline=deadlines))
    assert [(each.count, each.timeout_us) for each in sent] == [(2, 1_000_000), (1, 0), (1, 500_000), (1, 1)]
    assert [each.tensors[0].tolist() for each in sent] == [[0, 1], [2], [3], [4]]


def test_priority_and_routing_key_travel_along(rig: Rig) -> None:
    one = bundle(1, 2, of=X, inputs=rows_of(1, 2), priority=1)
    one.routing_key = b"user"
    (sent,) = rig.take(one)
    assert (sent.priority, sent.routing_key) == (1, b"user")


def test_no_more_than_the_protocol_allows(rig: Rig) -> None:
    count = MAX_COUNT + 3
    sent = rig.take(bundle(*range(count), of=X, inputs=[np.arange(count)], envelope=True))
    assert [each.count for each in sent] == [MAX_COUNT, 3]
    # No bytes, but a shape that two of them together would make larger than any message.
    empty = signature(("x", "uint8", (0, MAX_TENSOR_NBYTES)))
    inputs = [np.empty((2, 0, MAX_TENSOR_NBYTES), np.uint8)]
    sent = rig.take(bundle(1, 2, of=empty, inputs=inputs))
    assert [each.tensors[0].shape for each in sent] == [(1, 0, MAX_TENSOR_NBYTES)] * 2


def test_large_tensors_are_not_copied(rig: Rig) -> None:
    large = np.zeros((1, INLINE_LIMIT), np.uint8)
    rig.take(bundle(1, of=signature(("x", "uint8", (INLINE_LIMIT,))), inputs=[large]))
    (head,) = rig.out[0]  # just inline
    large = np.zeros((1, INLINE_LIMIT + 1), np.uint8)
    rig.take(bundle(1, of=signature(("x", "uint8", (INLINE_LIMIT + 1,))), inputs=[large]))
    head, frame = rig.out[0]
    assert np.shares_memory(np.frombuffer(frame, np.uint8), large)
    assert len(head) < 200


def test_without_rows_and_without_inputs(rig: Rig) -> None:
    scalar = signature(("x", "string", ()), rows=False)
    one = bundle(3, of=scalar, inputs=[np.array("hello", object)])
    (sent,) = rig.take(one, bundle(4, of=signature()))[:1]
    assert (sent.rows, sent.tensors[0].item(), sent.frames) == (None, "hello", 1)
    rig.answer(sent.first_id, None, np.array(2.5))
    ((part, outputs, _, _),) = rig.pump.replies
    assert (names([part]), outputs[0].shape, outputs[0].item()) == ([(b"a", 3)], (), 2.5)


# ---------------------------------------------------------------- and back


def test_answers_come_in_parts_and_in_any_order(rig: Rig) -> None:
    (sent,) = rig.take(bundle(*range(10, 15), of=X, inputs=[np.arange(9)], rows=[1, 2, 3, 1, 2]))
    first = sent.first_id
    rig.answer(first + 3, [1, 2], np.arange(3))
    rig.proxy.receive(build_error(first + 2, 1, StatusCode.CANCELLED, "gone"), ())
    rig.answer(first, [1, 2], np.arange(3))
    assert [names([part]) for part, *_ in rig.pump.replies] == [
        [(b"a", 13), (b"a", 14)],
        [(b"a", 10), (b"a", 11)],
    ]
    ((part, code, text),) = rig.pump.failures
    assert (names([part]), code, text) == ([(b"a", 12)], StatusCode.CANCELLED, "gone")
    assert not rig.waits()
    assert rig.proxy.stray == 0


def test_what_nobody_waits_for_is_ignored(rig: Rig) -> None:
    (sent,) = rig.take(bundle(1, 2, of=X, inputs=rows_of(1, 2)))
    rig.answer(sent.first_id, [1], np.array([1]))
    rig.answer(sent.first_id, [1], np.array([1]))
    rig.answer(sent.first_id, [1, 1], np.array([1, 2]))
    rig.answer(sent.first_id + (1 << 16), [1], np.array([1]))
    rig.proxy.receive(build_control(Kind.PONG, sent.first_id + 1), ())
    rig.proxy.receive(b"", ())
    rig.proxy.receive(b"x" * 60, ())
    assert rig.proxy.stray == 6
    assert len(rig.pump.replies) == 1
    assert rig.pump.failures == []
    assert rig.waits() == 1


def test_an_answer_that_cannot_be_read_fails_its_requests(rig: Rig) -> None:
    (sent,) = rig.take(bundle(1, 2, of=X, inputs=rows_of(1, 2)))
    head, _ = reply(sent.first_id, [1], np.array([1]))
    rig.proxy.receive(head + b"!", ())
    rig.proxy.receive(build(Kind.REPLY, first_id=sent.first_id + 1, header=b"\xc1")[0], ())  # type: ignore[arg-type]
    assert [(names([part]), code) for part, code, _ in rig.pump.failures] == [
        ([(b"a", 1)], StatusCode.INTERNAL),
        ([(b"a", 2)], StatusCode.INTERNAL),
    ]
    assert not rig.waits()


# ---------------------------------------------------------------- other kinds


def test_a_ping_is_answered_here(rig: Rig) -> None:
    assert rig.control(Kind.PING, b"p", 5) == []
    assert rig.pump.frames == [(b"p", build_control(Kind.PONG, 5))]


def test_control_calls_are_passed_through(rig: Rig) -> None:
    (first,) = rig.control(Kind.CONTROL, b"p", 5, body=CALL)
    (second,) = rig.control(Kind.CONTROL, b"q", 5, body=CALL)
    assert (first.kind, first.body, first.timeout_us) == (Kind.CONTROL, CALL, 77)
    rig.proxy.receive(build_error(second.first_id, 1, StatusCode.NOT_FOUND, "no"), ())
    rig.proxy.receive(memoryview(build_control(Kind.CONTROL_REPLY, first.first_id, b"result")), ())
    rig.proxy.receive(build_control(Kind.CONTROL_REPLY, first.first_id, b"again"), ())
    assert rig.pump.frames == [
        (b"q", build_error(5, 1, StatusCode.NOT_FOUND, "no")),
        (b"p", build_control(Kind.CONTROL_REPLY, 5, b"result")),
    ]
    assert (rig.waits(), rig.proxy.stray) == (0, 1)


def test_a_control_call_that_cannot_be_read_is_refused_here(rig: Rig) -> None:
    assert rig.control(Kind.CONTROL, b"p", 5, body=b"\xc1") == []
    ((peer, frame),) = rig.pump.frames
    assert (peer, read_prefix(frame).status) == (b"p", StatusCode.INVALID_ARGUMENT)
    assert not rig.waits()


def test_a_cancel_that_comes_with_its_request(rig: Rig) -> None:
    cancel = ControlMessage(b"a", Kind.CANCEL, 11, 2, 0, b"")
    sent = rig.take(bundle(10, 11, 12, 13, of=X, inputs=rows_of(*range(4))), controls=[cancel])
    assert [(each.kind, each.count) for each in sent] == [
        (Kind.REQUEST, 4),
        (Kind.CANCEL, 1),
        (Kind.CANCEL, 1),
    ]
    assert [each.first_id - sent[0].first_id for each in sent[1:]] == [1, 2]
    assert rig.control(Kind.CANCEL, b"b", 10, 4) == []


def test_without_a_server_everything_is_unavailable(rig: Rig) -> None:
    (sent, _) = rig.take(bundle(1, 2, 3, of=X, inputs=rows_of(1, 2, 3)), bundle(4, of=X, inputs=rows_of(4)))
    rig.control(Kind.CONTROL, b"p", 5, body=CALL)
    rig.answer(sent.first_id + 1, [1], np.array([2]))
    rig.proxy.give_up("it is gone")
    assert rig.take(bundle(6, of=X, inputs=rows_of(6))) == []
    assert rig.control(Kind.CONTROL, b"p", 7) == []
    assert rig.control(Kind.CANCEL, b"a", 1, 9) == []
    rig.control(Kind.PING, b"p", 8)
    failed = [name for part, *_ in rig.pump.failures for name in names([part])]
    assert failed == [(b"a", 1), (b"a", 3), (b"a", 4), (b"a", 6)]
    assert {(code, text) for _, code, text in rig.pump.failures} == {(StatusCode.UNAVAILABLE, "it is gone")}
    assert rig.pump.frames == [
        (b"p", build_error(5, 1, StatusCode.UNAVAILABLE, "it is gone")),
        (b"p", build_error(7, 1, StatusCode.UNAVAILABLE, "it is gone")),
        (b"p", build_control(Kind.PONG, 8)),
    ]
    assert not rig.waits()


# ---------------------------------------------------------------- against a model

_message = st.tuples(st.sampled_from(PEERS), st.integers(1, 4), st.sampled_from((NEVER, NOW + 1, NOW + 2)))
_messages = st.lists(_message, min_size=1, max_size=6)


class Relayed(NamedTuple):
    """An envelope as the server knows it: its requests, by what stands in their first row."""

    sent: Sent
    serials: list[int]


class Machine(RuleBasedStateMachine):
    """Any arrivals, answers, cancels: the model knows each request by a serial number, its input's value."""

    @initialize()
    def begin(self) -> None:
        self.rig = Rig()
        self.next = 0
        self.next_id = dict.fromkeys(PEERS, 1)
        self.name_of: dict[int, Name] = {}
        self.rows_of: dict[int, int] = {}
        self.waiting: dict[int, tuple[Relayed, int]] = {}
        self.answered: list[Name] = []
        self.relayed: list[Relayed] = []

    @rule(
        messages=st.lists(_message, min_size=1, max_size=6), rows=st.sampled_from((0, 1, 2)), data=st.data()
    )
    def arrive(self, messages: list[tuple[bytes, int, float]], rows: int, data: st.DataObject) -> None:
        ids: list[int] = []
        serials: list[int] = []
        for peer, count, _ in messages:
            ids.append(self.next_id[peer])
            for number in range(count):
                self.name_of[self.next] = (peer, ids[-1] + number)
                self.rows_of[self.next] = data.draw(st.integers(0, 3)) if rows == 2 else 1
                serials.append(self.next)
                self.next += 1
            self.next_id[peer] += count + data.draw(st.integers(0, 1))
        counts = [count for _, count, _ in messages]
        values = [serial for serial in serials for _ in range(self.rows_of[serial])]
        made = Bundle(
            X,
            priority=0,
            routing_key=None,
            peers=[peer for peer, _, _ in messages],
            first_ids=ids,
            counts=None if set(counts) == {1} else counts,
            deadlines=[deadline for *_, deadline in messages],
            rows=[self.rows_of[serial] for serial in serials] if rows else None,
            total_rows=len(values),
            inputs=[np.array(values, np.int64)],
            received=NOW,
            nbytes=8 * len(values),
        )
        self.check_passed_on(self.rig.take(made), serials, values)

    def check_passed_on(self, sent: list[Sent], serials: list[int], values: list[int]) -> None:
        assert [value for each in sent for value in each.tensors[0].tolist()] == values
        at = 0
        for each in sent:
            relayed = Relayed(each, serials[at : at + each.count])
            at += each.count
            assert each.rows == [self.rows_of[serial] for serial in relayed.serials]
            self.relayed.append(relayed)
            for index, serial in enumerate(relayed.serials):
                self.waiting[serial] = (relayed, index)
        assert at == len(serials)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data: st.DataObject, fails: bool) -> None:
        """A stretch of an envelope that waits, whatever of it was answered before."""
        relayed, lo = self.waiting[data.draw(st.sampled_from(sorted(self.waiting)))]
        hi = lo + 1
        while hi < relayed.sent.count and relayed.serials[hi] in self.waiting and data.draw(st.booleans()):
            hi += 1
        serials = relayed.serials[lo:hi]
        first_id = relayed.sent.first_id + lo
        if fails:
            self.rig.proxy.receive(build_error(first_id, hi - lo, StatusCode.NOT_FOUND, ""), ())
            part, *_ = self.rig.pump.failures.pop()
        else:
            rows = [self.rows_of[serial] for serial in serials]
            values = [serial for serial in serials for _ in range(self.rows_of[serial])]
            self.rig.answer(first_id, rows, np.array(values, np.int64))
            part, outputs, *_ = self.rig.pump.replies.pop()
            assert outputs[0].tolist() == values
        assert names([part]) == [self.name_of[serial] for serial in serials]
        for serial in serials:
            del self.waiting[serial]

    @precondition(lambda self: self.relayed)
    @rule(data=st.data())
    def answer_again(self, data: st.DataObject) -> None:
        """Ranges of which something was answered before."""
        relayed = data.draw(st.sampled_from(self.relayed))
        lo = data.draw(st.integers(0, relayed.sent.count - 1))
        hi = data.draw(st.integers(lo + 1, relayed.sent.count + 2))
        if hi > relayed.sent.count or any(each not in self.waiting for each in relayed.serials[lo:hi]):
            self.rig.proxy.receive(
                build_error(relayed.sent.first_id + lo, hi - lo, StatusCode.INTERNAL, ""), ()
            )

    @rule(peer=st.sampled_from(PEERS), data=st.data())
    def cancel(self, peer: bytes, data: st.DataObject) -> None:
        first = data.draw(st.integers(1, self.next_id[peer]))
        count = data.draw(st.integers(1, 8))
        found: set[int] = set()
        for each in self.rig.control(Kind.CANCEL, peer, first, count):
            ids = set(range(each.first_id, each.first_id + each.count))
            assert not ids & found
            found |= ids
        assert found == {
            relayed.sent.first_id + index
            for serial, (relayed, index) in self.waiting.items()
            if self.name_of[serial][0] == peer and first <= self.name_of[serial][1] < first + count
        }

    def teardown(self) -> None:
        assert self.rig.pump.replies == self.rig.pump.failures == []
        self.rig.proxy.give_up("over")
        left = [name for part, *_ in self.rig.pump.failures for name in names([part])]
        assert sorted(left) == sorted(self.name_of[serial] for serial in self.waiting)
        assert not self.rig.waits()


class TestMachine(Machine.TestCase):  # type: ignore[name-defined, misc]
    settings = settings(deadline=None, derandomize=True, max_examples=60, stateful_step_count=25)

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Envelopes that are split often."""
        monkeypatch.setattr(envelopes, "MAX_COUNT", 5)
