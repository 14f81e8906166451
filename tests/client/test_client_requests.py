"""Requests as the client encodes them: every kind of input, alone and fused, against the codec."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.client.channel import Channel
from tensorwire.client.encode import encode
from tensorwire.client.requests import FUSE_LIMIT, Templates, as_array, encode_extra
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.rpc.types import FIXED_DTYPES
from tensorwire.rpc.wire.extra import decode_extra
from tensorwire.rpc.wire.header import Signature
from tensorwire.rpc.wire.message import build, payload_of, read_prefix, read_rows, read_tensors
from tensorwire.rpc.wire.prefix import PREFIX_SIZE, Kind, Prefix

Array = np.ndarray[Any, Any]


class Message:
    """A request as the server reads it."""

    def __init__(self, frames: Sequence[Any]) -> None:
        head = bytes(frames[0])
        self.prefix: Prefix = read_prefix(head)
        assert self.prefix.kind == Kind.REQUEST
        end = PREFIX_SIZE + self.prefix.header_len
        self.signature = Signature(head[PREFIX_SIZE:end])
        self.extra = decode_extra(head[end : end + self.prefix.extra_len])
        self.rows, total, start = read_rows(head, self.prefix, self.signature.layout)
        bodies = [bytes(memoryview(frame)) for frame in frames[1:]]
        self.frames = len(bodies)
        tensors = read_tensors(head, bodies, self.signature.layout, total, start, self.prefix.inline_limit)
        self.inputs = dict(zip(self.signature.layout.names, tensors, strict=True))


def template(inputs: dict[str, Any], templates: Templates | None = None, **options: Any) -> Any:
    arguments = {"version": None, "label": None, "outputs": None, "extra": b"", **options}
    return (templates or Templates()).get("m", inputs, **arguments)


def sent(*calls: dict[str, Any], fuse: bool = True, timeout: float | None = 1.0) -> list[Message]:
    """What goes out for calls that are made together."""
    channel = Channel("tcp://nowhere", fuse)
    templates = Templates()
    for inputs in calls:
        channel.enqueue(Future(), *template(inputs, templates), timeout)
    return [Message(encode(envelope)) for envelope in channel.flush(0.0)]


def alone(channel: Channel, inputs: dict[str, Any], timeout: float, **options: Any) -> Any:
    """The frames of a call that is sent at once."""
    return encode(channel.begin(Future(), *template(inputs, **options), timeout, 0.0))


def sent_alone(inputs: dict[str, Any]) -> Message:
    """The same by the short way of a single call, which must give the same message."""
    message = Message(alone(Channel("tcp://nowhere", fuse=True), inputs, 1.0))
    (queued,) = sent(inputs)
    assert message.prefix == queued.prefix
    assert message.signature.raw == queued.signature.raw
    return message


def random(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    raw = np.random.default_rng(1).integers(0, 100, shape)
    return raw.astype(dtype)


class TestInputs:
    @pytest.mark.parametrize("name", sorted(FIXED_DTYPES))
    @pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 0), (0, 4)])
    def test_every_dtype(self, name: str, shape: tuple[int, ...]) -> None:
        value = random(FIXED_DTYPES[name], shape)
        message = sent_alone({"x": value})
        assert message.signature.layout.dtype_names == (name,)
        assert message.inputs["x"].shape == shape
        assert message.inputs["x"].tobytes() == value.tobytes()

    @pytest.mark.parametrize("name", [name for name, dtype in FIXED_DTYPES.items() if dtype.itemsize > 1])
    @pytest.mark.parametrize("count", [1, 3])
    def test_big_endian(self, name: str, count: int) -> None:
        dtype = FIXED_DTYPES[name]
        if dtype.kind == "V" or dtype == ml_dtypes.bfloat16:
            pytest.skip("has no big-endian form in NumPy")
        value = random(dtype, (1, 3))
        (message,) = sent(*[{"x": value.astype(dtype.newbyteorder(">"))}] * count)
        assert message.inputs["x"].tolist() == value.tolist() * count

    @pytest.mark.parametrize("order", ["F", "step", "reversed", "broadcast", "transposed"])
    @pytest.mark.parametrize("count", [1, 2])
    def test_memory_in_any_order(self, order: str, count: int) -> None:
        base = np.arange(24, dtype=np.float32).reshape(4, 6)
        value = {
            "F": np.asfortranarray(base),
            "step": base[::2, ::3],
            "reversed": base[::-1],
            "broadcast": np.broadcast_to(base[:1], (4, 6)),
            "transposed": base.T,
        }[order]
        (message,) = sent(*[{"x": value}] * count)
        assert message.inputs["x"].tolist() == value.tolist() * count
        assert sent_alone({"x": value}).inputs["x"].tolist() == value.tolist()

    @pytest.mark.parametrize(
        ("value", "dtype", "shape"),
        [
            ([[1, 2], [3, 4]], "int64", (2, 2)),
            ([1.5], "float64", (1,)),
            (3.5, "float64", ()),
            (True, "bool", ()),
            ([], "float64", (0,)),
            ((1, 2, 3), "int64", (3,)),
            (range(3), "int64", (3,)),
            (np.float32(2), "float32", ()),
            (memoryview(b"ab"), "uint8", (2,)),
            ([np.float32(1), np.float32(2)], "float32", (2,)),
        ],
    )
    def test_what_is_not_an_array_yet(self, value: Any, dtype: str, shape: tuple[int, ...]) -> None:
        message = sent_alone({"x": value})
        assert message.signature.layout.dtype_names == (dtype,)
        assert message.inputs["x"].shape == shape
        assert message.inputs["x"].tolist() == np.asarray(value).tolist()

    def test_subclasses_of_array(self) -> None:
        for value in (np.ma.masked_array([1, 2]), np.array([1, 2]).view(np.recarray)):
            assert sent_alone({"x": value}).inputs["x"].tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("value", "dtype", "expected"),
        [
            (["a", "bc"], "string", ["a", "bc"]),
            ([b"a", b"bc"], "bytes", [b"a", b"bc"]),
            ("text", "string", "text"),
            (b"text", "bytes", b"text"),
            ([["a", "b"], ["c", "d"]], "string", [["a", "b"], ["c", "d"]]),
            (np.array(["a", "bc"]), "string", ["a", "bc"]),
            (np.array([b"a", b"bc"]), "bytes", [b"a", b"bc"]),
            (np.array(["a", "bc"], object), "string", ["a", "bc"]),
            (np.array([b"a", bytearray(b"b")], object), "bytes", [b"a", b"b"]),
            (np.array([], object), "string", []),
            (["ö🙂", ""], "string", ["ö🙂", ""]),
            # NumPy's own text of fixed width would lose what is zero at the end.
            ([b"\0\1\0", b"\0\0"], "bytes", [b"\0\1\0", b"\0\0"]),
            (["a\0", "\0"], "string", ["a\0", "\0"]),
            (b"\0", "bytes", b"\0"),
        ],
    )
    def test_text(self, value: Any, dtype: str, expected: Any) -> None:
        message = sent_alone({"x": value})
        assert message.signature.layout.dtype_names == (dtype,)
        assert message.inputs["x"].tolist() == expected

    def test_text_and_bytes_of_equal_shape_have_templates_of_their_own(self) -> None:
        templates = Templates()
        for element, dtype in (("a", "string"), (b"a", "bytes"), ("b", "string")):
            made, _ = template({"x": np.array([element], object)}, templates)
            assert made.layout.dtype_names == (dtype,)


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([[1, 2], [3]], "input is not an array: .*inhomogeneous"),
            ([["a"], ["b", "c"]], "input is not an array: .*inhomogeneous"),
            (object(), "input 'x' is an object array of object; expected str or bytes elements"),
            (None, "input 'x' is an object array of NoneType"),
            ({"a": 1}, "input 'x' is an object array of dict"),
            (np.array([1, "a"], object), "input 'x' is an object array of int"),
            (
                np.array(["2020"], "M8[Y]"),
                r"input 'x': dtype datetime64\[Y\] cannot be sent; expected one of",
            ),
            (np.zeros(1, [("f", "i4")]), "input 'x': dtype .* cannot be sent"),
            (np.zeros(1, np.longdouble), "input 'x': dtype .* cannot be sent"),
            ([10**30], "input 'x' is an object array of int"),
        ],
    )
    def test_what_cannot_be_sent(self, value: Any, message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            template({"x": value})

    def test_version_and_label(self) -> None:
        with pytest.raises(InvalidArgumentError, match="version 1 and label 'stable'; give one of them"):
            template({"x": [1]}, version=1, label="stable")

    def test_priority_and_metadata(self) -> None:
        with pytest.raises(InvalidArgumentError, match="priority is 2, expected 0"):
            encode_extra(None, 2, None)
        with pytest.raises(InvalidArgumentError, match="metadata cannot be encoded"):
            encode_extra(None, 0, {"a": object()})


class TestExtra:
    def test_defaults_cost_nothing(self) -> None:
        assert encode_extra(None, 0, None) == b""

    def test_what_was_given(self) -> None:
        extra = decode_extra(encode_extra("kö", 1, {"a": [1, "b"]}))
        assert (extra.routing_key, extra.priority, extra.metadata) == ("kö".encode(), 1, {"a": [1, "b"]})
        assert decode_extra(encode_extra(b"\xff", 0, None)).routing_key == b"\xff"


class TestTemplates:
    def test_made_once(self) -> None:
        templates = Templates()
        first, _ = template({"x": np.zeros((1, 4))}, templates)
        assert template({"x": np.ones((1, 4))}, templates)[0] is first

    @pytest.mark.parametrize(
        "other",
        [
            {"inputs": {"x": np.zeros((1, 5))}},
            {"inputs": {"x": np.zeros((2, 4))}},
            {"inputs": {"x": np.zeros((1, 4), np.float32)}},
            {"inputs": {"x": np.zeros((1, 4), ">f8")}},
            {"inputs": {"q": np.zeros((1, 4))}},
            {"inputs": {}},
            {"inputs": {"x": np.zeros((1, 4)), "y": np.zeros((1, 4))}},
            {"version": 1},
            {"label": "stable"},
            {"outputs": ["y"]},
            {"outputs": ["y", "z"]},
            {"extra": b"e"},
        ],
        ids=str,
    )
    def test_another_one_for_whatever_differs(self, other: dict[str, Any]) -> None:
        templates = Templates()
        first, _ = template({"x": np.zeros((1, 4))}, templates)
        inputs = other.pop("inputs", {"x": np.zeros((1, 4))})
        assert template(inputs, templates, **other)[0] is not first

    def test_models_and_kinds_that_take_turns_keep_their_own(self) -> None:
        templates = Templates()
        kinds = [(model, np.zeros((1, width))) for model in ("a", "b") for width in (1, 2)]
        first = [templates.get(model, {"x": x}, None, None, None, b"")[0] for model, x in kinds]
        assert len(set(map(id, first))) == 4
        for _ in range(2):
            for made, (model, x) in zip(first, kinds, strict=True):
                again, arrays = templates.get(model, {"x": x}, None, None, None, b"")
                assert again is made
                assert arrays == [x]

    def test_inputs_in_another_order_keep_their_names(self) -> None:
        templates = Templates()
        a, b = np.zeros((1, 4)), np.ones((1, 4))
        for inputs in ({"a": a, "b": b}, {"b": b, "a": a}):
            made, arrays = template(inputs, templates)
            assert dict(zip(made.layout.names, arrays, strict=True))["b"] is b

    def test_ever_new_shapes_cost_no_memory(self) -> None:
        templates = Templates()
        for length in range(5000):
            template({"x": np.zeros((1, length), np.uint8)}, templates)
            templates.get(f"m{length}", {"x": np.zeros((1, 1))}, None, None, None, b"")
        assert len(templates._known) <= 4096
        assert len(templates._last) <= 4096

    def test_rows(self) -> None:
        def layout(**inputs: Any) -> tuple[bool, tuple[tuple[int, ...], ...]]:
            made, _ = template(inputs)
            return made.layout.rows, made.layout.shapes

        assert layout(a=np.zeros((3, 2)), b=np.zeros(3)) == (True, ((2,), ()))
        assert layout(a=np.zeros((3, 2)), b=np.zeros(4)) == (False, ((3, 2), (4,)))
        assert layout(a=np.zeros((3, 2)), b=np.zeros(())) == (False, ((3, 2), ()))
        assert layout() == (False, ())


class TestFusing:
    def test_calls_of_one_kind_share_a_message(self) -> None:
        (message,) = sent(*[{"x": np.full((1, 2), number)} for number in range(5)])
        assert message.prefix.count == 5
        assert message.rows == [1] * 5
        assert message.inputs["x"][:, 0].tolist() == [0, 1, 2, 3, 4]

    def test_other_kinds_and_timeouts_do_not(self) -> None:
        small, wide = {"x": np.zeros((1, 2))}, {"x": np.zeros((1, 3))}
        assert [message.prefix.count for message in sent(small, wide, small, wide, wide)] == [2, 3]
        channel = Channel("tcp://nowhere", fuse=True)
        templates = Templates()
        for timeout in (1.0, None, 1.0):
            channel.enqueue(Future(), *template(small, templates), timeout)
        messages = [Message(encode(envelope)) for envelope in channel.flush(0.0)]
        assert sorted(message.prefix.timeout_us for message in messages) == [0, 1_000_000, 1_000_000]

    def test_it_can_be_switched_off(self) -> None:
        assert len(sent(*[{"x": np.zeros((1, 2))}] * 3, fuse=False)) == 3

    @pytest.mark.parametrize(
        "value",
        [np.zeros((1, FUSE_LIMIT // 8 + 1)), np.array(["a"]), np.zeros(())],
        ids=["large", "text", "0-d"],
    )
    def test_what_travels_alone(self, value: Array) -> None:
        assert [message.prefix.count for message in sent({"x": value}, {"x": value})] == [1, 1]

    def test_a_message_holds_so_many_and_no_more(self) -> None:
        messages = sent(*[{"x": np.zeros((1, 1), np.uint8)}] * 5000)
        assert [message.prefix.count for message in messages] == [4096, 904]
        messages = sent(*[{"x": np.zeros((1, 16_000), np.uint8)}] * 100)
        assert sum(message.prefix.count for message in messages) == 100
        assert len(messages) == 2

    def test_ids_do_not_repeat(self) -> None:
        messages = sent(*[{"x": np.zeros((1, 1), np.uint8)}] * 5000)
        seen = [message.prefix.id + index for message in messages for index in range(message.prefix.count)]
        assert len(set(seen)) == len(seen) == 5000

    @pytest.mark.parametrize(
        ("timeout", "wire"),
        [(None, 0), (0.5, 500_000), (0.0, 1), (1e-9, 1), (1e12, 0), (float("inf"), 0), (3600, 3_600_000_000)],
    )
    def test_timeouts(self, timeout: float | None, wire: int) -> None:
        (message,) = sent({"x": [1]}, timeout=timeout)
        assert message.prefix.timeout_us == wire


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    dtypes=st.lists(st.sampled_from([*sorted(FIXED_DTYPES), "string"]), max_size=3),
    rows=st.sampled_from([None, 0, 1, 1, 3]),
    width=st.sampled_from([0, 1, 3, 700]),
    count=st.integers(1, 9),
    big=st.booleans(),
    extra=st.sampled_from([b"", encode_extra(b"key", 1, None)]),
)
def test_messages_equal_what_the_codec_builds(
    dtypes: list[str], rows: int | None, width: int, count: int, big: bool, extra: bytes
) -> None:
    def value(dtype: str, call: int, index: int) -> Array:
        shape = (width,) if rows is None else (rows, width)
        filled = np.full(shape, call * 7 + index)
        if dtype == "string":
            return filled.astype(str).astype(object)
        plain = filled.astype(FIXED_DTYPES[dtype])
        return plain.astype(plain.dtype.newbyteorder(">")) if big and plain.dtype.kind in "iufc" else plain

    calls: list[dict[str, Array]] = []
    for call in range(count):
        inputs = {f"x{index}": value(dtype, call, index) for index, dtype in enumerate(dtypes)}
        if rows is None:
            inputs["scalar"] = np.array(call)
        calls.append(inputs)
    channel = Channel("tcp://nowhere", fuse=True)
    templates = Templates()
    for inputs in calls:
        channel.enqueue(Future(), *template(inputs, templates, extra=extra), 2.0)
    at = 0
    for envelope in channel.flush(0.0):
        frames = encode(envelope)
        message = Message(frames)
        mine = calls[at : at + message.prefix.count]
        at += message.prefix.count
        layout = message.signature.layout
        payloads = [b"".join(payload_of(inputs[name]) for inputs in mine) for name in layout.names]
        expected = build(
            Kind.REQUEST,
            first_id=message.prefix.id,
            count=len(mine),
            layout=layout,
            header=message.signature.raw,
            extra=extra,
            rows=[rows or 0] * len(mine) if layout.rows else None,
            payloads=payloads,
            timeout_us=2_000_000,
        )
        assert [bytes(memoryview(frame)) for frame in frames] == [bytes(frame) for frame in expected]
        for name in layout.names:
            together = [inputs[name] for inputs in mine]
            wanted = np.concatenate(together) if layout.rows else together[0]
            assert repr(message.inputs[name].tolist()) == repr(wanted.tolist())  # nan is nan
    assert at == count
    # A single call takes another way to the same bytes.
    direct = alone(Channel("tcp://nowhere", fuse=True), calls[0], 2.0, extra=extra)
    queued = Channel("tcp://nowhere", fuse=True)
    queued.enqueue(Future(), *template(calls[0], templates, extra=extra), 2.0)
    flushed = encode(*queued.flush(0.0))
    assert [bytes(memoryview(frame)) for frame in direct] == [bytes(memoryview(frame)) for frame in flushed]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bytes"])
def test_a_large_tensor_travels_by_both_ways_alike_and_without_a_copy(rows: int, dtype: str) -> None:
    large: Array = np.arange(rows * 40_000).reshape(rows, 40_000).astype(FIXED_DTYPES.get(dtype, dtype))
    if dtype == "bytes":
        large = np.full((rows, 3), b"x" * 40_000, object)
    direct = alone(Channel("tcp://nowhere", fuse=True), {"x": large}, 2.0)
    queued = Channel("tcp://nowhere", fuse=True)
    queued.enqueue(Future(), *template({"x": large}), 2.0)
    flushed = encode(*queued.flush(0.0))
    assert [bytes(frame) for frame in direct] == [bytes(frame) for frame in flushed]
    assert [len(frame) for frame in direct] == [len(bytes(frame)) for frame in direct]
    if dtype == "float32":
        assert np.shares_memory(np.frombuffer(direct[1], np.float32), large)


def test_as_array_keeps_arrays() -> None:
    value = np.zeros(3)
    assert as_array(value) is value
