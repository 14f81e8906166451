"""The channel: whatever arrives, calls are answered rightly or fail, and nothing is raised."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.client.channel import Channel
from tensorwire.client.pending import ID_BITS
from tensorwire.client.requests import Templates
from tensorwire.rpc.errors import (
    DeadlineExceededError,
    NotFoundError,
    RpcError,
    StatusCode,
    UnavailableError,
)
from tensorwire.rpc.types import FIXED_DTYPES
from tensorwire.rpc.wire.extra import decode_control, encode_body
from tensorwire.rpc.wire.header import Layout, ReplyHeader, TensorHeader, encode_header
from tensorwire.rpc.wire.message import build, build_control, build_error, payload_of, read_prefix
from tensorwire.rpc.wire.prefix import MAGIC, PREFIX, PREFIX_SIZE, Kind, Prefix

Array = np.ndarray[Any, Any]
Call = Future[Any]
X = np.zeros((1, 2), np.float32)


class Rig:
    def __init__(self, fuse: bool = True) -> None:
        self.channel = Channel("tcp://server:1", fuse)
        self.templates = Templates()

    def call(
        self, count: int = 1, timeout: float | None = 1.0, now: float = 0.0, fuse: bool = True
    ) -> tuple[int, list[Call]]:
        """Calls that went out in one message: its first id, and who waits."""
        calls = [Call() for _ in range(count)]
        template, arrays = self.templates.get("m", {"x": X}, None, None, None, b"")
        for call in calls:
            self.channel.enqueue(call, template, arrays, timeout)
        (envelope,) = self.channel.flush(now)
        return envelope.number << ID_BITS, calls

    def receive(self, frames: Sequence[Any]) -> None:
        head, *rest = frames
        self.channel.receive(bytes(head), [memoryview(bytes(frame)) for frame in rest])

    def receive_view(self, frames: Sequence[Any]) -> None:
        """As large messages come: as a view of the received frame."""
        head, *rest = frames
        self.channel.receive(memoryview(bytes(head)), [memoryview(bytes(frame)) for frame in rest])


def reply(
    first_id: int,
    outputs: dict[str, Array],
    count: int = 1,
    rows: Sequence[int] | None = None,
    *,
    shared: bool = True,
    inline_limit: int = 32_768,
) -> list[Any]:
    """What a server answers; ``outputs`` are the rows of all requests together."""
    names = {np.dtype(dtype): name for name, dtype in FIXED_DTYPES.items()}
    headers = tuple(
        TensorHeader(
            name,
            "string" if array.dtype == object else names[array.dtype],
            array.shape[1:] if shared else array.shape,
        )
        for name, array in outputs.items()
    )
    layout = Layout(headers, shared)
    return build(
        Kind.REPLY,
        first_id=first_id,
        count=count,
        layout=layout,
        header=encode_header(ReplyHeader("m", 1, headers, shared)),
        rows=(rows or [1] * count) if shared else None,
        payloads=[payload_of(array) for array in outputs.values()],
        inline_limit=inline_limit,
    )


def block(rows: int, width: int = 2) -> Array:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


class TestAnswers:
    @pytest.mark.parametrize("view", [False, True])
    def test_single(self, view: bool) -> None:
        """The second one has a header that is known."""
        rig = Rig()
        for number in range(2):
            first_id, (call,) = rig.call()
            message = reply(first_id, {"y": block(1) + number})
            (rig.receive_view if view else rig.receive)(message)
            assert call.result(0)["y"].tolist() == [[number, number + 1]]
        assert rig.channel.stray == 0
        assert not rig.channel.pending.envelopes

    @pytest.mark.parametrize("several", [False, True])
    def test_fused(self, several: bool) -> None:
        rig = Rig()
        for _ in range(2):
            first_id, calls = rig.call(4)
            outputs = {"y": block(4), "z": np.arange(4)} if several else {"y": block(4)}
            rig.receive(reply(first_id, outputs, 4))
            for index, call in enumerate(calls):
                result = call.result(0)
                assert list(result) == list(outputs)
                assert all(
                    result[name].tolist() == array[index : index + 1].tolist()
                    for name, array in outputs.items()
                )

    def test_in_several_messages_in_any_order(self) -> None:
        rig = Rig()
        first_id, calls = rig.call(5)
        rig.receive(reply(first_id + 3, {"y": block(2)}, 2))
        assert [call.done() for call in calls] == [False, False, False, True, True]
        rig.receive([build_error(first_id + 1, 1, 5, "no such row")])
        rig.receive(reply(first_id, {"y": block(1)}))
        rig.receive(reply(first_id + 2, {"y": block(1)}))
        assert calls[4].result(0)["y"].tolist() == [[2, 3]]
        assert isinstance(calls[1].exception(0), NotFoundError)
        assert all(call.done() for call in calls)
        assert not rig.channel.pending.envelopes

    @pytest.mark.parametrize("limit", [0, 32_768])
    def test_uneven_rows(self, limit: int) -> None:
        rig = Rig()
        for _ in range(2):
            first_id, calls = rig.call(3)
            rig.receive(reply(first_id, {"y": block(5)}, 3, [2, 0, 3], inline_limit=limit))
            assert [call.result(0)["y"].tolist() for call in calls] == [
                block(5)[:2].tolist(),
                [],
                block(5)[2:].tolist(),
            ]

    @pytest.mark.parametrize(
        "value",
        [np.array(7), np.zeros((0, 3)), np.arange(6).reshape(2, 3), np.array(["a", "ö"], object)],
        ids=["0-d", "empty", "matrix", "text"],
    )
    def test_tensors_without_rows(self, value: Array) -> None:
        rig = Rig()
        for _ in range(2):
            first_id, (call,) = rig.call()
            rig.receive(reply(first_id, {"y": value}, shared=False))
            result = call.result(0)["y"]
            assert (result.shape, result.tolist()) == (value.shape, value.tolist())

    def test_frames_of_their_own(self) -> None:
        rig = Rig()
        for _ in range(2):
            first_id, (call,) = rig.call()
            value = block(1, 100_000)
            message = reply(first_id, {"y": value, "z": np.arange(1)})
            assert len(message) == 2
            rig.receive(message)
            assert np.array_equal(call.result(0)["y"], value)

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("width", [2, 5000, 50_000])
    def test_results_cannot_be_written_to(self, count: int, width: int) -> None:
        """Calls of one message share its memory."""
        rig = Rig()
        for _ in range(2):
            first_id, calls = rig.call(count)
            rig.receive_view(reply(first_id, {"y": block(count, width)}, count))
            assert not any(call.result(0)["y"].flags.writeable for call in calls)

    def test_control(self) -> None:
        rig = Rig()
        call = Call()
        (frame,) = rig.channel.control(call, "stats", {"a": 1}, 2.0, 0.0).arrays
        prefix = read_prefix(frame)
        assert (prefix.kind, prefix.timeout_us) == (Kind.CONTROL, 2_000_000)
        assert decode_control(frame[PREFIX_SIZE:]).method == "stats"
        rig.receive([build_control(Kind.CONTROL_REPLY, prefix.id, encode_body({"n": [1, "b"]}))])
        assert call.result(0) == {"n": [1, "b"]}


class TestErrors:
    @pytest.mark.parametrize("code", [code for code in StatusCode if code])
    def test_every_code(self, code: StatusCode) -> None:
        rig = Rig()
        first_id, calls = rig.call(2)
        rig.receive([build_error(first_id, 2, code, "why not")])
        for call in calls:
            error = call.exception(0)
            assert isinstance(error, RpcError)
            assert (error.code, error.message) == (code, "why not")
        assert calls[0].exception() is not calls[1].exception()

    def test_a_code_of_a_later_version_is_kept(self) -> None:
        rig = Rig()
        first_id, (call,) = rig.call()
        rig.receive([build_error(first_id, 1, 99, "new")])
        error = call.exception(0)
        assert type(error) is RpcError
        assert (error.code, str(error)) == (99, "CODE_99: new")

    def test_a_text_that_cannot_be_read_leaves_the_code(self) -> None:
        rig = Rig()
        first_id, (call,) = rig.call()
        head = Prefix(Kind.ERROR, 0, 5, first_id, 0, 1, 0, 3, 0, 0, 0).pack()
        rig.receive([head + b"\xff\xff\xff"])
        assert isinstance(call.exception(0), NotFoundError)


class TestStrays:
    @pytest.mark.parametrize(
        "message",
        [
            [b""],
            [b"x"],
            [b"TWIR"],
            [b"\0" * PREFIX_SIZE],
            [b"GET / HTTP/1.1\r\n" * 10],
            [MAGIC + b"\x09" + b"\0" * 60],
            [PREFIX.pack(MAGIC, 1, 2, 0, 0, 1 << 16, 0, 0xFFFFFFFF, 0, 0, 0, 0, 0)],
            [PREFIX.pack(MAGIC, 1, 2, 0, 0, (1 << 64) - 1, 0, 9, 0xFFFF, 0xFFFF, 0, 0, 0)],
            [PREFIX.pack(MAGIC, 1, 77, 0, 0, 5 << 16, 0, 1, 0, 0, 0, 0, 0)],
            [b"", b"frame", b"frame"],
        ],
    )
    def test_garbage(self, message: list[bytes]) -> None:
        rig = Rig()
        rig.receive(message)
        assert rig.channel.stray == 1

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("count", [1, 2])
    def test_answers_for_nobody(self, known: bool, count: int) -> None:
        rig = Rig()
        if known:
            first_id, _ = rig.call(count)
            rig.receive(reply(first_id, {"y": block(count)}, count))
        rig.receive(reply(77 << 16, {"y": block(count)}, count))
        rig.receive([build_error(78 << 16, count, 5, "")])
        rig.receive([build_control(Kind.CONTROL_REPLY, 79 << 16, encode_body(1))])
        assert rig.channel.stray == 3

    def test_an_answer_given_twice(self) -> None:
        rig = Rig()
        first_id, (call, _) = rig.call(2)
        for value in (0, 100):
            rig.receive(reply(first_id, {"y": block(1) + value}))
        assert call.result(0)["y"].tolist() == [[0, 1]]

    def test_more_answers_than_calls(self) -> None:
        rig = Rig()
        first_id, calls = rig.call(2)
        rig.receive(reply(first_id, {"y": block(3)}, 3))
        assert rig.channel.stray == 1
        assert not any(call.done() for call in calls)

    def test_a_count_without_end_takes_no_memory(self) -> None:
        rig = Rig()
        first_id, _ = rig.call()
        message = bytes(reply(first_id, {"y": block(1)})[0])
        rig.receive([message])
        first_id, (call,) = rig.call()
        fields = list(PREFIX.unpack_from(message))
        fields[5], fields[7] = first_id, 0xFFFFFFFF
        rig.receive([PREFIX.pack(*fields) + message[PREFIX_SIZE:]])
        assert rig.channel.stray == 1
        assert call.done() is False or isinstance(call.exception(), RpcError)


class TestUnreadable:
    """An answer that cannot be read fails its calls at once: waiting for the timeout would help nobody."""

    @pytest.mark.parametrize("known", [False, True])
    @pytest.mark.parametrize("damage", ["short", "long", "frame", "header", "version"])
    def test_damage(self, damage: str, known: bool) -> None:
        rig = Rig()
        if known:
            first_id, _ = rig.call()
            rig.receive(reply(first_id, {"y": block(1)}))
        first_id, (call,) = rig.call()
        (head,) = reply(first_id, {"y": block(1)})
        frames = {
            "short": [head[:-1]],
            "long": [head + b"\0"],
            "frame": [head, b"extra"],
            "header": [head[:PREFIX_SIZE] + b"\xc1" + head[PREFIX_SIZE + 1 :]],
            "version": [head[:4] + b"\x02" + head[5:]],
        }[damage]
        rig.receive(frames)
        error = call.exception(0)
        assert isinstance(error, RpcError)
        assert error.message.startswith("the reply of tcp://server:1 cannot be read: ")
        assert rig.channel.stray == 1
        assert not rig.channel.pending.envelopes

    def test_a_text_that_is_not_utf8(self) -> None:
        rig = Rig()
        first_id, (call,) = rig.call()
        frames = reply(first_id, {"y": np.array(["ab"], object)})
        frames[1] = bytes(frames[1])[:-2] + b"\xff\xff"
        rig.receive(frames)
        assert isinstance(call.exception(0), RpcError)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(data=st.data())
def test_no_message_is_too_strange(data: st.DataObject) -> None:
    """Valid answers with some bytes changed, cut or added never raise, and never answer a call twice."""
    rig = Rig()
    known_id, _ = rig.call(2)
    rig.receive(reply(known_id, {"y": block(2)}, 2))
    first_id, calls = rig.call(3, timeout=None)
    kind = data.draw(st.sampled_from(["known", "new", "framed", "text", "error", "control"]))
    made: list[Any] = {
        "known": lambda: reply(first_id, {"y": block(3)}, 3),
        "new": lambda: reply(first_id, {"z": block(3), "q": np.arange(3)}, 3),
        "framed": lambda: reply(first_id, {"y": block(3)}, 3, inline_limit=0),
        "text": lambda: reply(first_id, {"y": np.array(["a", "b", "c"], object)}, 3),
        "error": lambda: [build_error(first_id, 3, 5, "text")],
        "control": lambda: [build_control(Kind.CONTROL_REPLY, first_id, encode_body([1]))],
    }[kind]()
    frames = [bytearray(memoryview(frame)) for frame in made]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = frames[data.draw(st.integers(0, len(frames) - 1))]
        at = data.draw(st.integers(0, len(frame)))
        action = data.draw(st.sampled_from(["set", "set", "set", "cut", "add"]))
        if action == "set" and at < len(frame):
            frame[at] = data.draw(st.sampled_from([0, 1, 2, 3, 127, 128, 255, 0xC1]))
        elif action == "cut":
            del frame[at:]
        elif action == "add":
            frame[at:at] = data.draw(st.binary(max_size=4))
    if data.draw(st.booleans()):
        frames.append(bytearray(data.draw(st.binary(max_size=8))))
    (rig.receive_view if data.draw(st.booleans()) else rig.receive)(frames)
    rig.channel.fail_all("end")
    assert all(call.done() for call in calls)


class TestDeadlines:
    def test_connected(self) -> None:
        rig = Rig()
        rig.channel.connected()
        _, (call,) = rig.call(timeout=0.5)
        rig.channel.expire(0.4)
        assert not call.done()
        rig.channel.expire(0.5)
        with pytest.raises(DeadlineExceededError, match=r"no answer from tcp://server:1 within 0\.5 s"):
            call.result(0)

    def test_never_connected(self) -> None:
        rig = Rig()
        _, (call,) = rig.call(timeout=0.5)
        rig.channel.expire(1.0)
        with pytest.raises(UnavailableError, match=r"no connection .* within 0\.5 s; is the server running"):
            call.result(0)

    def test_a_late_answer_is_a_stray(self) -> None:
        rig = Rig()
        first_id, _ = rig.call(timeout=0.5)
        rig.channel.expire(1.0)
        rig.receive(reply(first_id, {"y": block(1)}))
        assert rig.channel.stray == 1


class TestLosses:
    def test_a_lost_connection_fails_what_waits_and_what_was_not_sent(self) -> None:
        rig = Rig()
        rig.channel.connected()
        _, (sent,) = rig.call()
        unsent = Call()
        template, arrays = rig.templates.get("m", {"x": X}, None, None, None, b"")
        rig.channel.enqueue(unsent, template, arrays, 1.0)
        rig.channel.disconnected("the connection was lost")
        for call in (sent, unsent):
            with pytest.raises(
                UnavailableError, match="the connection was lost while the call was in flight"
            ):
                call.result(0)
        assert rig.channel.flush(0.0) == []
        # And the same kind of call works again.
        rig.channel.connected()
        first_id, (again,) = rig.call()
        rig.receive(reply(first_id, {"y": block(1)}))
        assert again.result(0)


class TestCancel:
    def cancel(self, rig: Rig, call: Call) -> Prefix | None:
        for envelope in [*rig.channel.pending.envelopes.values()]:
            if call in envelope.calls:
                frame = rig.channel.cancel(envelope, call)
                return None if frame is None else read_prefix(frame)
        return None

    def test_one_of_a_message(self) -> None:
        rig = Rig()
        first_id, calls = rig.call(3)
        prefix = self.cancel(rig, calls[1])
        assert prefix is not None
        assert (prefix.kind, prefix.id, prefix.count) == (Kind.CANCEL, first_id + 1, 1)
        assert self.cancel(rig, calls[1]) is None
        rig.receive(reply(first_id, {"y": block(3)}, 3))
        assert [call.done() for call in calls] == [True, False, True]
        assert calls[2].result(0)["y"].tolist() == [[4, 5]]

    def test_one_that_was_answered(self) -> None:
        rig = Rig()
        template, arrays = rig.templates.get("m", {"x": X}, None, None, None, b"")
        call = Call()
        envelope = rig.channel.enqueue(call, template, arrays, 1.0)
        assert rig.channel.cancel(envelope, call) is None  # not sent yet
        assert rig.channel.flush(0.0) == [envelope]
        rig.receive(reply(envelope.number << ID_BITS, {"y": block(1)}))
        assert rig.channel.cancel(envelope, call) is None

    def test_one_whose_caller_has_gone_already_is_not_answered(self) -> None:
        rig = Rig()
        first_id, calls = rig.call(2)
        calls[0].cancel()
        rig.receive(reply(first_id, {"y": block(2)}, 2))
        assert calls[1].result(0)["y"].tolist() == [[2, 3]]
