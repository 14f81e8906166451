"""Properties of the codec: what is written is read back, and garbage is refused, never misread or raised."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tensorwire.rpc.errors import InvalidArgumentError, ProtocolError, RpcError, UnimplementedError
from tensorwire.rpc.pump.intake import Intake, unit_rows
from tensorwire.rpc.types import BYTES, DTYPE_NAMES, FIXED_DTYPES, STRING, dtype_of, name_of_dtype
from tensorwire.rpc.wire.extra import (
    Extra,
    decode_control,
    decode_error,
    decode_extra,
    decode_result,
    encode_body,
)
from tensorwire.rpc.wire.header import (
    Interner,
    Layout,
    ReplySignature,
    RequestHeader,
    Signature,
    TensorHeader,
    encode_header,
)
from tensorwire.rpc.wire.message import (
    answerable_ids,
    build,
    build_error,
    payload_of,
    read_prefix,
    read_rows,
    read_tensors,
)
from tensorwire.rpc.wire.prefix import MAX_COUNT, MAX_ID, PREFIX_SIZE, U32_MAX, Kind, Prefix
from tensorwire.rpc.wire.varlen import decode_varlen, encode_varlen
from vectors.read import load

# The machine is shared: no deadlines, and the same examples each time.
relaxed = settings(
    deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)
Array = np.ndarray[Any, Any]

names = st.lists(st.text(max_size=4), max_size=4, unique=True)
dims = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def arrays(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=int))
    if dtype in (BYTES, STRING):
        element = st.binary(max_size=5) if dtype == BYTES else st.text(max_size=5)
        flat = np.empty(size, dtype=object)
        flat[:] = draw(st.lists(element, min_size=size, max_size=size))
        return flat.reshape(shape)
    nbytes = size * FIXED_DTYPES[dtype].itemsize
    raw = draw(st.binary(min_size=nbytes, max_size=nbytes))
    if dtype == "bool":
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, dtype=FIXED_DTYPES[dtype]).reshape(shape)


class Message:
    """A random request, with what it is made of."""

    def __init__(self, tensors: dict[str, Array], header: RequestHeader, rows: list[int] | None) -> None:
        self.tensors = tensors
        self.raw = encode_header(header)
        self.layout = Signature(self.raw).layout
        self.rows = rows
        self.count = 1 if rows is None else len(rows)

    def frames(self, first_id: int, limit: int, extra: bytes = b"", timeout_us: int = 0) -> list[bytes]:
        frames = build(
            Kind.REQUEST,
            first_id=first_id,
            count=self.count,
            layout=self.layout,
            header=self.raw,
            extra=extra,
            rows=self.rows,
            payloads=[payload_of(array) for array in self.tensors.values()],
            timeout_us=timeout_us,
            inline_limit=limit,
        )
        return [bytes(frame) for frame in frames]


@st.composite
def messages(draw: st.DrawFn) -> Message:
    rows = draw(st.none() | st.lists(st.integers(0, 3), min_size=1, max_size=4))
    tensors: dict[str, Array] = {}
    entries: list[TensorHeader] = []
    for name in draw(names):
        dtype = draw(st.sampled_from(sorted(DTYPE_NAMES)))
        shape = tuple(draw(dims))
        entries.append(TensorHeader(name, dtype, shape))
        tensors[name] = draw(arrays(dtype, shape if rows is None else (sum(rows), *shape)))
    header = RequestHeader(
        draw(st.text(max_size=5)),
        tuple(entries),
        draw(st.none() | st.integers(0, U32_MAX)),
        draw(st.none() | st.text(max_size=3)),
        draw(st.none() | st.tuples(st.text(max_size=3))),
        rows is not None,
    )
    return Message(tensors, header, rows)


ids = st.integers(0, MAX_ID - MAX_COUNT) | st.integers(0, 100)
limits = st.sampled_from([0, 1, 7, 16, 32_768, U32_MAX])


def same(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()


def same_bytes(left: Array, right: Array) -> bool:
    """Equal, where NaNs of equal bits are."""
    if left.dtype == object:
        return same(left, right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@relaxed
@given(messages(), ids, limits, st.integers(0, 2**64 - 1))
def test_what_is_built_is_read_back(message: Message, first_id: int, limit: int, timeout_us: int) -> None:
    head, *frames = message.frames(first_id, limit, timeout_us=timeout_us)
    prefix = read_prefix(head)
    assert (prefix.kind, prefix.id, prefix.count) == (Kind.REQUEST, first_id, message.count)
    assert (prefix.timeout_us, prefix.inline_limit) == (timeout_us, limit)
    layout = Signature(head[PREFIX_SIZE : PREFIX_SIZE + prefix.header_len]).layout
    rows, total, start = read_rows(head, prefix, layout)
    assert rows == message.rows
    found = read_tensors(head, frames, layout, total, start, limit)
    for name, array, wanted in zip(layout.names, found, message.tensors.values(), strict=True):
        assert name in message.tensors
        assert same_bytes(array, wanted)
    framed = [
        array
        for array in message.tensors.values()
        if array.dtype == object or array.size * array.dtype.itemsize > limit
    ]
    assert len(frames) == len(framed)


@relaxed
@given(messages(), ids, limits, st.integers(0, 1), st.none() | st.binary(max_size=3))
def test_the_intake_takes_what_is_built(
    message: Message, first_id: int, limit: int, priority: int, key: bytes | None
) -> None:
    extra = encode_body(Extra(priority, key)) if priority or key is not None else b""
    head, *frames = map(memoryview, message.frames(first_id, limit, extra, 1_000_000))
    intake = Intake(Interner(Signature))
    for peer in (b"one", b"two"):
        assert intake.add(peer, head, frames, 10.0) == message.count
    bundles, controls = intake.take(10.0)
    assert controls == []
    assert sum(bundle.requests for bundle in bundles) == 2 * message.count
    at = dict.fromkeys(message.tensors, 0)
    for bundle in bundles:
        assert (bundle.priority, bundle.routing_key) == (priority, key)
        assert set(bundle.deadlines) == {11.0}
        for name, block in zip(bundle.signature.layout.names, bundle.inputs, strict=True):
            assert block.flags.aligned
            wanted = message.tensors[name]
            if message.rows is None or len(bundles) == 2:
                assert same_bytes(block, wanted)
            else:
                assert same_bytes(block, np.concatenate((wanted, wanted)))
            at[name] += 1
    assert set(at.values()) <= {len(bundles)}


# ------------------------------------------------- garbage


def refuses_or_takes(frames: list[bytes]) -> int:
    """Requests taken; anything but a clean refusal is an error."""
    intake = Intake(Interner(Signature))
    head, *rest = map(memoryview, frames)
    refusal: RpcError | None = None
    taken = 0
    try:
        taken = intake.add(b"peer", head, rest, 0.0)
    except (ProtocolError, UnimplementedError) as error:
        refusal = error
    if refusal is not None:
        found = answerable_ids(head)
        if found is not None:
            answer = read_prefix(build_error(*found, refusal.code, refusal.message))
            assert (answer.id, answer.count, answer.status) == (*found, refusal.code)
        assert intake.take(0.0) == ([], [])
        return 0
    bundles, controls = intake.take(0.0)
    assert sum(bundle.requests for bundle in bundles) == taken
    assert len(bundles) + len(controls) == 1
    for bundle in bundles:
        last = bundle.row_start(bundle.requests)
        for block in bundle.inputs:
            assert not bundle.signature.layout.rows or len(block) == last == bundle.total_rows
        for part in bundle.messages(0, bundle.requests):
            assert part.first_id + part.requests - 1 <= MAX_ID
    return taken


VALID = [vector["frames"] for vector in load("requests", "controls")]


@relaxed
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4))
def test_noise_is_refused(frames: list[bytes]) -> None:
    assert refuses_or_takes(frames) == 0


@relaxed
@given(st.binary(min_size=PREFIX_SIZE - 6, max_size=200), st.integers(0, 9), st.lists(st.binary(max_size=9)))
def test_noise_behind_a_magic_is_refused(rest: bytes, kind: int, frames: list[bytes]) -> None:
    refuses_or_takes([b"TWIR\x01" + bytes((kind,)) + rest, *frames])


@settings(relaxed, max_examples=600)
@given(st.sampled_from(VALID), st.data())
def test_changed_bytes_are_refused_or_read(frames: list[bytes], data: st.DataObject) -> None:
    changed = [bytearray(frame) for frame in frames]
    for _ in range(data.draw(st.integers(1, 3))):
        frame = data.draw(st.sampled_from(changed))
        if frame:
            position = data.draw(st.integers(0, len(frame) - 1))
            frame[position] = data.draw(st.integers(0, 255))
    refuses_or_takes([bytes(frame) for frame in changed])


@settings(relaxed, max_examples=300)
@given(st.sampled_from(VALID), st.data())
def test_cut_and_stretched_messages_are_refused(frames: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(frames) - 1))
    frame = frames[index]
    changed = list(frames)
    match data.draw(st.sampled_from(["cut", "stretch", "drop", "add", "twice"])):
        case "cut" if frame:
            changed[index] = frame[: data.draw(st.integers(0, len(frame) - 1))]
        case "stretch":
            changed[index] = frame + data.draw(st.binary(min_size=1, max_size=40))
        case "drop" if index:
            del changed[index]
        case "twice" if index:
            changed.insert(index, frame)
        case _:
            changed.append(data.draw(st.binary(max_size=8)))
    assert refuses_or_takes(changed) == 0


def test_every_cut_of_every_vector_is_refused() -> None:
    for frames in VALID:
        head, *rest = frames
        for end in range(len(head)):
            assert refuses_or_takes([head[:end], *rest]) == 0


@relaxed
@given(st.binary(max_size=60))
@example(b"\x81\xa8metadata\x81\xa1a\x81\x80\x01")
@example(b"\x81\xa8metadata\x81\xa1a\xd7\xff" + b"\xff" * 8)
@example(b"\x81\xa1x" + b"\x91" * 5000)
def test_bodies_that_are_noise_are_refused(raw: bytes) -> None:
    for decode in (decode_extra, decode_control, decode_result, Signature, ReplySignature):
        try:
            decode(raw)
        except ProtocolError:
            continue
    assert isinstance(decode_error(raw), str)


msgpack_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
header_keys = st.sampled_from(["model", "inputs", "version", "label", "outputs", "rows", "later"])
tensor_entries = st.lists(
    st.tuples(st.text(max_size=2), st.sampled_from(sorted(DTYPE_NAMES)), st.lists(st.integers(-1, 2**48))),
    max_size=3,
)


@relaxed
@given(st.dictionaries(header_keys, msgpack_values | tensor_entries), st.text(max_size=3), st.booleans())
def test_headers_of_any_values_are_refused_or_read(
    header: dict[str, Any], model: str, complete: bool
) -> None:
    if complete:
        header = {"inputs": [], **header, "model": model}
    raw = encode_body(header)
    prefix = Prefix(Kind.REQUEST, 0, 0, 1, 0, 1, len(raw), 0, 32_768, 0, 0)
    refuses_or_takes([prefix.pack() + raw + b"\1\0\0\0"])


@relaxed
@given(st.binary(max_size=40), st.integers(0, 8), st.sampled_from([BYTES, STRING]))
def test_varlen_noise_is_refused_or_read(payload: bytes, elements: int, dtype: str) -> None:
    try:
        found = decode_varlen(payload, elements, dtype)
    except ProtocolError:
        return
    assert encode_varlen(found) == payload


# ------------------------------------------------- bounds


def request_of(tensors: list[tuple[str, str, tuple[int, ...]]], rest: bytes, *, count: int = 1, id: int = 1):
    raw = encode_header(RequestHeader("m", tuple(TensorHeader(*tensor) for tensor in tensors)))
    return Prefix(Kind.REQUEST, 0, 0, id, 0, count, len(raw), 0, 32_768, 0, 0).pack() + raw + rest


def test_rows_that_no_array_can_have_are_refused_the_short_way_too() -> None:
    tensors = [("x", "uint8", (0, 2**24))]
    gap = bytes(-len(request_of(tensors, b"\1\0\0\0")) % 16)
    good = request_of(tensors, b"\1\0\0\0" + gap)
    bad = request_of(tensors, b"\xff\xff\xff\xff" + gap)
    intake = Intake(Interner(Signature))
    assert intake.add(b"peer", memoryview(good), (), 0.0) == 1
    with pytest.raises(ProtocolError, match="larger than any message"):
        intake.add(b"peer", memoryview(bad), (), 0.0)
    (bundle,), _ = intake.take(0.0)
    assert bundle.inputs[0].shape == (1, 0, 2**24)


def test_ids_that_overflow_are_refused_the_short_way_too() -> None:
    tensors = [("x", "uint8", (0,))]
    rest = unit_rows(2) + bytes(-len(request_of(tensors, unit_rows(2))) % 16)
    intake = Intake(Interner(Signature))
    for first_id in (0, MAX_ID - MAX_COUNT, MAX_ID - 1):
        head = request_of(tensors, rest, count=2, id=first_id)
        assert intake.add(b"peer", memoryview(head), (), 0.0) == 2
    with pytest.raises(ProtocolError, match="largest id"):
        intake.add(b"peer", memoryview(request_of(tensors, rest, count=2, id=MAX_ID)), (), 0.0)
    (bundle,), _ = intake.take(0.0)
    assert [part.first_id for part in bundle.messages(0, 6)] == bundle.first_ids


@pytest.mark.parametrize("limit", [0, 32_768])
def test_tensors_are_aligned_in_memory_wherever_the_frames_lie(limit: int) -> None:
    wanted = np.array([1.5, -2.0])
    message = Message(
        {"x": wanted}, RequestHeader("m", (TensorHeader("x", "float64", (2,)),), rows=False), None
    )
    for shift in range(8):
        head, *frames = [memoryview(bytes(shift) + frame)[shift:] for frame in message.frames(1, limit)]
        intake = Intake(Interner(Signature))
        intake.add(b"peer", head, frames, 0.0)
        (bundle,), _ = intake.take(0.0)
        assert bundle.inputs[0].flags.aligned
        assert bundle.inputs[0].tolist() == [1.5, -2.0]


def test_unit_rows_keeps_little() -> None:
    assert unit_rows(3) is unit_rows(3)
    assert unit_rows(3) == b"\1\0\0\0" * 3
    assert unit_rows(MAX_COUNT) is not unit_rows(MAX_COUNT)
    assert len(unit_rows(MAX_COUNT)) == 4 * MAX_COUNT


def test_a_layout_keeps_few_places() -> None:
    layout = Layout((TensorHeader("x", "uint8", (1,)),), rows=True)
    for start in range(48, 2000):
        layout.place(1, start, 32_768)
        assert len(layout._places) <= 64
    wide = Layout(tuple(TensorHeader(str(i), "uint8", ()) for i in range(256)), rows=True)
    for start in range(48, 200):
        wide.place(1, start, 32_768)
        assert len(wide._places) <= 4


class TestInterner:
    """Bounded by entries and by bytes; what is not valid is never kept."""

    def test_decodes_once(self) -> None:
        calls: list[bytes] = []
        interner: Interner[int] = Interner(lambda raw: calls.append(raw) or len(raw))
        assert [interner.get(b"abc"), interner.get(b"abc"), interner.get(b"")] == [3, 3, 0]
        assert calls == [b"abc", b""]

    def test_keeps_the_newer_half_when_full(self) -> None:
        interner: Interner[int] = Interner(len, limit=8)
        for index in range(9):
            interner.get(bytes((index,)))
        assert list(interner.known) == [bytes((index,)) for index in range(4, 9)]

    @relaxed
    @given(st.lists(st.integers(0, 60), max_size=200), st.integers(1, 9), st.integers(120, 300))
    def test_never_exceeds_its_bounds(self, lengths: list[int], limit: int, limit_nbytes: int) -> None:
        interner: Interner[int] = Interner(len, limit, limit_nbytes)
        for index, length in enumerate(lengths):
            raw = index.to_bytes(2, "little") + bytes(max(0, length - 2))
            assert interner.get(raw) == len(raw)
            assert interner.known[raw] == len(raw)
            assert len(interner.known) <= limit
            assert sum(map(len, interner.known)) <= limit_nbytes

    def test_keeps_nothing_that_is_not_valid(self) -> None:
        interner: Interner[Signature] = Interner(Signature)
        for _ in range(2):
            with pytest.raises(ProtocolError):
                interner.get(b"\xc1")
        assert interner.known == {}


# ------------------------------------------------- payloads and error messages


@pytest.mark.parametrize("dtype", sorted(FIXED_DTYPES))
def test_payloads_are_little_endian_and_row_major(dtype: str) -> None:
    native = np.array([[1, 0, 1], [0, 1, 1]]).astype(FIXED_DTYPES[dtype])
    if dtype == "float8_e8m0fnu":  # it has no zero
        native = np.array([[1, 2, 4], [0.5, 1, 8]]).astype(FIXED_DTYPES[dtype])
    expected = native.tobytes()
    assert bytes(payload_of(native)) == expected
    assert bytes(payload_of(np.asfortranarray(native))) == expected
    assert bytes(payload_of(np.repeat(native, 2, axis=1)[:, ::2])) == expected
    if native.dtype.kind in "iufc":
        swapped = native.astype(native.dtype.newbyteorder(">"))
        assert bytes(payload_of(swapped)) == expected
        assert name_of_dtype(swapped.dtype) == dtype
    assert bytes(payload_of(native[:0])) == b""
    assert bytes(payload_of(native[0, 0])) == expected[: native.dtype.itemsize]
    read_only = native.copy()
    read_only.flags.writeable = False
    assert bytes(payload_of(read_only)) == expected
    assert dtype_of(name_of_dtype(native.dtype)) == native.dtype


def test_payloads_of_text_take_numpys_own_strings() -> None:
    assert encode_varlen(np.array(["a", "\u00e9"])) == b"\1\0\0\0\2\0\0\0a\xc3\xa9"
    assert bytes(payload_of(np.array([b"x", b""]))) == b"\1\0\0\0\0\0\0\0x"
    mixed = np.empty(3, dtype=object)
    mixed[:] = [np.str_("a"), np.bytes_(b"b"), bytearray(b"c")]
    assert encode_varlen(mixed)[12:] == b"abc"


@pytest.mark.parametrize("element", [None, 1, 2.5, [b"x"], "\ud800"])
def test_elements_that_are_no_text_are_refused_by_name(element: object) -> None:
    array = np.empty(1, dtype=object)
    array[0] = element
    with pytest.raises(InvalidArgumentError) as caught:
        payload_of(array)
    assert str(caught.value).encode()  # it can be sent itself


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]", "V8", "g", [("a", "i4")]])
def test_dtypes_without_a_wire_form_are_refused(dtype: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be sent"):
        name_of_dtype(np.dtype(dtype))


@relaxed
@given(st.text(st.characters(), max_size=20) | st.just("\u6f22" * 70_000), st.integers(-(2**70), 2**70))
@example("lone \ud800 surrogate", 5)
def test_any_error_can_be_sent(message: str, code: int) -> None:
    frame = build_error(7, 3, code, message)
    prefix = read_prefix(frame)
    assert (prefix.kind, prefix.id, prefix.count) == (Kind.ERROR, 7, 3)
    assert prefix.status == (code if 0 < code <= 255 else 2)
    text = decode_error(frame[PREFIX_SIZE:])
    assert text == message[:4096].encode(errors="replace").decode()


def test_an_unreadable_text_never_hides_the_code() -> None:
    assert decode_error(b"") == ""
    for raw in (b"\xc1", b"\x81\xa7message\x07", b"\x90"):
        assert "could not be read" in decode_error(raw)


@relaxed
@given(st.integers(0, 1), st.none() | st.binary(), st.none() | st.dictionaries(st.text(), st.text()))
def test_extras_are_read_back(priority: int, key: bytes | None, trace: dict[str, str] | None) -> None:
    extra = Extra(priority, key, trace, {"a": [1, None, {"b": b"c"}]})
    assert decode_extra(encode_body(extra)) == extra
    assert decode_extra(b"") == Extra()


def test_rpc_errors_are_all_that_the_codec_raises_for_fields() -> None:
    """Each field of the prefix at its extremes."""
    base = read_prefix(build_error(1, 1, 2, ""))
    largest_values = {
        "kind": 255, "id": MAX_ID, "count": U32_MAX, "header_len": U32_MAX, "extra_len": U32_MAX,
        "inline_limit": U32_MAX, "timeout_us": MAX_ID,
    }  # fmt: skip
    for field, largest in largest_values.items():
        for value in (0, 1, largest - 1, largest):
            head = msgspec.structs.replace(base, **{"kind": 1, field: value}).pack()
            with pytest.raises(RpcError):
                Intake(Interner(Signature)).add(b"peer", memoryview(head), (), 0.0)
