"""Messages between a worker process and its parent: every dtype goes through, nothing malformed does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorwire.manager.config import EngineConfig, ModelConfig, WorkersConfig
from tensorwire.rpc.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ProtocolError,
    ResourceExhaustedError,
    RpcError,
)
from tensorwire.rpc.types import BYTES, FIXED_DTYPES, STRING, ModelMetadata, TensorSpec
from tensorwire.rpc.wire.header import Signature
from tensorwire.rpc.wire.message import build
from tensorwire.rpc.wire.prefix import Kind
from tensorwire.server.processes import cargo, framing
from tensorwire.server.processes.arena import Mapping, new_memory
from tensorwire.server.processes.cargo import INLINE_LIMIT, Inbound, Outbound
from tensorwire.server.processes.framing import Block, Cargo, ChildSpec, Load, Loaded, Returned, Stop

Array = np.ndarray[Any, Any]

ARENA = 1 << 20


class Pair:
    """Both ends of one direction, without a process between."""

    def __init__(self, *specs: TensorSpec) -> None:
        fd = new_memory(ARENA, reserve=False)
        self.outbound = Outbound(Mapping(fd, writable=True), "m", 7, specs, Kind.REQUEST)
        self.inbound = Inbound(Mapping(fd, writable=False))
        os.close(fd)

    def send(self, *named: tuple[str, Sequence[Array]], padding: int = 0) -> tuple[bytes, int]:
        packed = self.outbound.pack(named, padding, ("y",))
        return packed.message(Kind.REQUEST, 5), packed.fd

    def receive(self, head: bytes, fd: int = -1) -> dict[str, Array]:
        message = framing.read(head)
        frames = self.inbound.frames(message.cargo, fd)
        signature = Signature(framing.raw_header(message))
        assert signature.header.outputs == ("y",)
        arrays = framing.tensors(message, signature, frames)
        return dict(zip(signature.layout.names, arrays, strict=True))

    def through(self, *pieces: Array, padding: int = 0) -> Array:
        return self.receive(*self.send(("x", pieces), padding=padding))["x"]

    def settle(self) -> None:
        for offset in self.inbound.take_returned():
            self.outbound.allocator.give_back(offset)


def values(name: str, shape: tuple[int, ...]) -> Array:
    dtype = FIXED_DTYPES[name]
    count = int(np.prod(shape))
    if name == "bool":
        return (np.arange(count) % 3 == 0).reshape(shape)
    return (np.arange(count) % 7).astype(dtype).reshape(shape)


def same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert not found.flags.writeable or found.dtype == object
    if found.dtype == object:
        assert found.tolist() == expected.tolist()
    else:
        assert found.tobytes() == expected.astype(found.dtype).tobytes()


class TestRoundTrip:
    @pytest.mark.parametrize("name", FIXED_DTYPES)
    @pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (5, 7), (3, 70_000), (1, 1_200_000)])
    def test_every_dtype_at_every_place(self, name: str, shape: tuple[int, ...]) -> None:
        if np.prod(shape) > 1e6 and FIXED_DTYPES[name].itemsize > 2:
            shape = (1, 300_000)
        sent = values(name, shape)
        found = Pair().through(sent)
        assert found.dtype == FIXED_DTYPES[name]
        same(found, sent)

    @pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 2), (2, 0)])
    @pytest.mark.parametrize(("kind", "element"), [(STRING, "grün"), (BYTES, b"\x00\xff"), (STRING, "")])
    def test_variable_length(self, shape: tuple[int, ...], kind: str, element: object) -> None:
        sent = np.empty(shape, object)
        sent.fill(element)
        same(Pair(TensorSpec("x", kind, shape)).through(sent), sent)

    def test_text_arrays_of_numpy(self) -> None:
        found = Pair(TensorSpec("x", STRING, (None,))).through(np.array(["a", "bc"]), np.array(["d", "ef"]))
        assert found.tolist() == ["a", "bc", "d", "ef"]

    def test_long_text_larger_than_the_arena(self) -> None:
        pair = Pair(TensorSpec("x", BYTES, (None,)))
        sent = np.array([b"x" * ARENA, b"y"], object)
        head, fd = pair.send(("x", [sent]))
        assert fd >= 0
        assert pair.receive(head, fd)["x"].tolist() == sent.tolist()
        pair.settle()
        assert pair.outbound.allocator.blocks == 0

    @pytest.mark.parametrize("width", [4, 30_000])
    def test_pieces_that_are_not_contiguous_or_of_the_other_byte_order(self, width: int) -> None:
        base = np.arange(6 * width * 2, dtype=np.float32).reshape(6, width * 2)
        pieces = [base[:2, ::2], base[2:, ::2]]
        same(Pair().through(*pieces), base[:, ::2])
        swapped = [piece.astype(">f4") for piece in pieces]
        found = Pair().through(*swapped)
        assert found.dtype == np.dtype("<f4")
        same(found, base[:, ::2])
        transposed = np.asfortranarray(base)
        same(Pair().through(transposed), base)

    @pytest.mark.parametrize("width", [4, 30_000])
    def test_padding_repeats_the_last_row(self, width: int) -> None:
        rows = np.arange(3 * width, dtype=np.int32).reshape(3, width)
        found = Pair().through(rows[:1], rows[1:], rows[:0], padding=2)
        same(found, rows[[0, 1, 2, 2, 2]])
        same(Pair().through(rows, padding=1), rows[[0, 1, 2, 2]])

    def test_padding_of_text(self) -> None:
        found = Pair(TensorSpec("x", STRING, (None,))).through(np.array(["a", "b"], object), padding=2)
        assert found.tolist() == ["a", "b", "b", "b"]

    def test_what_shares_no_rows(self) -> None:
        pair = Pair()
        scalar, matrix, other = np.float32(3).reshape(()), np.ones((2, 3)), np.zeros((5,), np.int8)
        found = pair.receive(*pair.send(("a", [matrix]), ("b", [other]), ("c", [scalar])))
        for name, sent in (("a", matrix), ("b", other), ("c", scalar)):
            same(found[name], sent)

    def test_no_tensors_at_all(self) -> None:
        pair = Pair()
        assert pair.receive(*pair.send()) == {}

    def test_many_small_ones_go_into_shared_memory_together(self) -> None:
        pair = Pair()
        sent = {f"x{at}": np.full((1, 3000), at, np.float32) for at in range(60)}
        head, fd = pair.send(*((name, [array]) for name, array in sent.items()))
        assert fd < 0
        assert len(head) < INLINE_LIMIT
        found = pair.receive(head)
        for name, array in sent.items():
            same(found[name], array)
        del found
        assert pair.outbound.allocator.blocks == 60
        pair.settle()
        assert pair.outbound.allocator.blocks == 0

    def test_the_largest_message_fits_into_a_socket(self) -> None:
        pair = Pair()
        names = [f"{at}".rjust(200, "x") for at in range(256)]
        named = [(name, [np.zeros((1, 48), np.float32)]) for name in names]
        packed = pair.outbound.pack(named, 0, ("y",))
        returned = range(1 << 26, (1 << 26) - framing.MAX_RETURNED, -1)
        assert len(packed.message(Kind.REQUEST, 1 << 62, returned)) < framing.MAX_MESSAGE

    def test_some_in_the_arena_and_some_beside_it(self) -> None:
        pair = Pair()
        large = [np.full((1, ARENA // 2 + at), at, np.uint8) for at in range(3)]
        small = np.ones((1, 2), np.uint8)
        head, fd = pair.send(*((f"x{at}", [array]) for at, array in enumerate(large)), ("s", [small]))
        assert fd >= 0
        assert pair.outbound.allocator.blocks == 1
        found = pair.receive(head, fd)
        for at, array in enumerate(large):
            assert (found[f"x{at}"] == array).all()
        del found
        pair.settle()
        assert pair.outbound.allocator.blocks == 0

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_equals_what_the_wire_protocol_builds(self, data: st.DataObject) -> None:
        pair = Pair()
        shapes = data.draw(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=4))
        arrays = [np.zeros(shape, data.draw(st.sampled_from(["u1", "f8"]))) for shape in shapes]
        packed = pair.outbound.pack([(str(at), [array]) for at, array in enumerate(arrays)], 0, ("y",))
        seconds = data.draw(st.floats(0, 10_000))
        message = packed.message(Kind.REQUEST, 9, [64], compute_seconds=seconds)
        (expected,) = build(
            Kind.REQUEST,
            first_id=9,
            layout=packed.form.layout,
            header=packed.form.header,
            extra=msgspec.msgpack.encode(Cargo((), (64,))),
            rows=[packed.rows],
            payloads=packed.payloads,
            inline_limit=packed.inline_limit,
            compute_us=round(seconds * 1e6),
        )
        assert message == expected


class TestRefusals:
    @pytest.mark.parametrize(
        ("pieces", "padding", "text"),
        [
            ([], 0, "no pieces"),
            ([np.zeros(2), np.zeros((2, 2))], 0, "do not match"),
            ([np.zeros(2), np.zeros(2, np.int8)], 0, "do not match"),
            ([np.zeros(())], 1, "has no rows"),
            ([np.zeros((0, 2))], 1, "no row that could be repeated"),
            ([np.zeros(2, "datetime64[s]")], 0, "cannot be sent"),
            ([np.zeros(2, object)], 0, "expected a tensor that is known"),
        ],
    )
    def test_tensors_without_a_form(self, pieces: list[Array], padding: int, text: str) -> None:
        pair = Pair()
        with pytest.raises(InvalidArgumentError, match=text):
            pair.send(("x", pieces), padding=padding)
        assert pair.outbound.allocator.blocks == 0

    def test_objects_that_are_no_text(self) -> None:
        pair = Pair(TensorSpec("x", STRING, (None,)))
        with pytest.raises(InvalidArgumentError, match="is a int"):
            pair.send(("large", [np.zeros(ARENA // 2, np.uint8)]), ("x", [np.array([1], object)]))
        assert pair.outbound.allocator.blocks == 0

    def test_too_long_names(self) -> None:
        with pytest.raises(InvalidArgumentError, match="65536 bytes"):
            Pair().send(("x" * 70_000, [np.zeros(1)]))

    def test_no_memory_beside_the_arena(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(nbytes: int, *, reserve: bool) -> int:
            raise ResourceExhaustedError(f"no {nbytes} bytes")

        monkeypatch.setattr(cargo, "new_memory", refuse)
        pair = Pair()
        with pytest.raises(ResourceExhaustedError):
            pair.send(("a", [np.zeros(ARENA // 2, np.uint8)]), ("b", [np.zeros(ARENA, np.uint8)]))
        assert pair.outbound.allocator.blocks == 0

    def test_what_is_never_sent_is_taken_back(self) -> None:
        pair = Pair()
        packed = pair.outbound.pack([("x", [np.zeros(ARENA // 2)]), ("y", [np.zeros(20_000)])])
        assert pair.outbound.allocator.blocks == 1
        pair.outbound.discard(packed)
        assert pair.outbound.allocator.blocks == 0


class TestMalformed:
    def sample(self) -> tuple[Pair, bytes]:
        pair = Pair(TensorSpec("s", STRING, (None,)))
        head, fd = pair.send(
            ("x", [np.arange(6, dtype=np.float32).reshape(2, 3)]),
            ("s", [np.array(["a", "bc"], object)]),
            ("l", [np.zeros((2, 5000))]),
        )
        assert fd < 0
        return pair, head

    def test_every_truncation(self) -> None:
        pair, head = self.sample()
        for end in range(len(head)):
            with pytest.raises(ProtocolError):
                pair.receive(head[:end])
        with pytest.raises(ProtocolError):
            pair.receive(head + b"\0")

    @settings(max_examples=400, deadline=None)
    @given(st.data())
    def test_corruption_gives_the_typed_error_or_other_values(self, data: st.DataObject) -> None:
        pair, head = self.sample()
        broken = bytearray(head)
        for _ in range(data.draw(st.integers(1, 4))):
            broken[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
        try:
            message = framing.read(bytes(broken))
            if message.prefix.kind == Kind.ERROR:
                framing.read_error(message)
            elif message.prefix.kind == Kind.CONTROL:
                framing.read_control(message)
            else:
                frames = pair.inbound.frames(message.cargo, -1)
                framing.tensors(message, Signature(framing.raw_header(message)), frames)
        except ProtocolError:
            pass

    @pytest.mark.parametrize(
        "block",
        [Block(True, 1 << 40, 64), Block(True, 0, ARENA + 1), Block(False, 0, 64), Block(True, -64, 64)],
    )
    def test_blocks_outside_the_memory(self, block: Block) -> None:
        with pytest.raises(ProtocolError):
            Pair().inbound.frames(Cargo((block,)), -1)

    @pytest.mark.parametrize("kind", [Kind.PING, Kind.CANCEL, Kind.CONTROL_REPLY, 99])
    def test_kinds_that_are_not_spoken(self, kind: int) -> None:
        (head,) = build(kind, first_id=1)  # type: ignore[arg-type]
        with pytest.raises(ProtocolError):
            framing.read(bytes(head))

    def test_another_version_of_the_protocol(self) -> None:
        _, head = self.sample()
        with pytest.raises(ProtocolError):
            framing.read(head[:4] + b"\x09" + head[5:])


class TestControl:
    @pytest.mark.parametrize(
        "body",
        [
            Load(
                ChildSpec(
                    "m",
                    3,
                    "/models/m/3",
                    ModelConfig(
                        engine=EngineConfig(options={"a": [1, "b", 2.5]}),
                        workers=WorkersConfig(cpus="0", device="0,1"),
                        inputs=(TensorSpec("x", "int8", (None, 2), True),),
                    ),
                    (1, 8),
                    20,
                    "1",
                ),
                ("/a", "/b"),
            ),
            Loaded(
                ModelMetadata(
                    name="m",
                    version=1,
                    platform="python",
                    inputs=(),
                    outputs=(TensorSpec("y", "float32", (None,)),),
                    batched=False,
                ),
                True,
                False,
            ),
            Returned((0, 64)),
            Stop(),
        ],
    )
    def test_round_trip(self, body: framing.Control) -> None:
        assert framing.read_control(framing.read(framing.encode_control(body))) == body

    def test_too_long_or_without_a_form(self) -> None:
        spec = ChildSpec("m", 1, "d", ModelConfig(engine=EngineConfig(options={"a": "x" * 200_000})))
        with pytest.raises(ProtocolError, match="at most"):
            framing.encode_control(Load(spec))
        spec = ChildSpec("m", 1, "d", ModelConfig(engine=EngineConfig(options={"a": 1 << 70})))
        with pytest.raises(ProtocolError, match="cannot be sent"):
            framing.encode_control(Load(spec))

    @pytest.mark.parametrize("body", [b"", b"\x80", b"\xc1", b"\x81\xa4type\xa4Nope"])
    def test_garbage(self, body: bytes) -> None:
        (head,) = build(Kind.CONTROL, first_id=0, header=body)
        with pytest.raises(ProtocolError, match="control message"):
            framing.read_control(framing.read(bytes(head)))

    @pytest.mark.parametrize("error", [NotFoundError("what"), RpcError("own", 99), InternalError("x" * 9000)])
    def test_errors(self, error: RpcError) -> None:
        message = framing.read(framing.encode_error(4, error, 0.25))
        found = framing.read_error(message)
        assert (message.prefix.id, found.code, found.message) == (4, error.code, error.message[:4096])
        assert framing.compute_seconds(message) == 0.25
