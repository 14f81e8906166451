"""The compiled short way against the long way in Python: the same bytes, values and refusals."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import ml_dtypes
import msgspec
import numpy as np
import numpy.typing as npt
import pumps
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorwire.rpc.errors import ProtocolError, RpcError
from tensorwire.rpc.switch import PURE_PYTHON
from tensorwire.rpc.types import ModelMetadata, TensorSpec
from tensorwire.rpc.wire.header import Interner, Signature
from tensorwire.rpc.wire.prefix import PREFIX, PREFIX_SIZE, Kind
from tensorwire.server.processes import framing
from tensorwire.server.processes.arena import Mapping, new_memory
from tensorwire.server.processes.cargo import Inbound, Outbound
from tensorwire.server.processes.child import Child
from tensorwire.server.processes.framing import MAX_MESSAGE, ChildSpec, Loaded, Returned, Stop
from tensorwire.server.processes.link import Closed, Link, Received
from tensorwire.server.processes.parent import Answer, WorkerProcess
from tensorwire.server.processes.port import Port, make_port
from tensorwire.server.processes.process import ChildProcess, WorkerLost

Array = npt.NDArray[Any]
WAYS = ("python", "compiled")
ARENA = 1 << 20
METADATA = ModelMetadata(
    name="m",
    version=7,
    platform="test",
    inputs=(TensorSpec("x", "float32", (None, None)), TensorSpec("t", "string", (None,))),
    outputs=(TensorSpec("y", "float32", (None, None)), TensorSpec("z", "int16", (None,))),
    batched=True,
)


@pytest.fixture(autouse=True, scope="module")
def _built() -> None:
    try:
        import tensorwire.server.processes.compiled  # noqa: F401
    except ImportError as error:
        if pumps.can_compile():
            pytest.fail(f"there is a C compiler, but no compiled calls: {error}; run `make setup` again")
        pytest.skip(f"compiled calls were not built: {error}")


def memory() -> tuple[Mapping, Mapping]:
    """One arena, as its owner and as the other side has it."""
    fd = new_memory(ARENA, reserve=False)
    try:
        return Mapping(fd, writable=True), Mapping(fd, writable=False)
    finally:
        os.close(fd)


class Ends:
    """Both ends of a socket pair with their arenas. ``near`` is tested, ``far`` speaks and reads bytes."""

    def __init__(self, way: str, *, blocking: bool) -> None:
        self.way = way
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)
        self.near, self.far = Link(near, blocking=blocking), Link(far, blocking=False)
        #: What `near` writes into, and what it reads from.
        self.own, self.own_read = memory()
        self.other_write, self.other = memory()

    def choosing(self, make: Callable[[], Any]) -> Any:
        """What is made with this way chosen."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(PURE_PYTHON, "1" if self.way == "python" else "0")
            return make()

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def heads(self) -> list[bytes]:
        """All messages that the far end has got."""
        found: list[bytes] = []
        try:
            while (received := self.far.receive()) is not None:
                if received.fd >= 0:
                    os.close(received.fd)
                found.append(received.head)
        except Closed:
            pass
        return found


class Fake:
    """A child process that is only a socket."""

    def __init__(self, ends: Ends) -> None:
        self.link, self.calls, self.answers = ends.near, ends.own, ends.other
        self.reason = ""

    def send(self, message: bytes, fd: int) -> bool:
        try:
            return self.link.send(message, fd)
        except Closed:
            raise self.lost() from None

    def check_gone(self) -> None:
        pass

    def lost(self) -> WorkerLost:
        return WorkerLost("is gone")

    def refuse(self, why: str) -> WorkerLost:
        return WorkerLost(why)


class Parent(Ends):
    """A worker process as its parent sees it."""

    def __init__(self, way: str) -> None:
        super().__init__(way, blocking=False)
        fake = cast("ChildProcess", Fake(self))
        self.process: WorkerProcess = self.choosing(
            lambda: WorkerProcess(fake, ChildSpec("m", 7, "d"), Loaded(METADATA, True, True))
        )
        assert (self.process._port is None) == (way == "python")
        #: The child's side of the answers.
        self.outbound = Outbound(self.other_write, "m", 7, METADATA.outputs, Kind.REPLY)

    def receive(self, message: bytes) -> Any:
        """What becomes of a message: values, or why it is refused."""
        self.far.send(message)
        try:
            answer = self.process.receive()
        except WorkerLost as lost:
            return lost.reason
        return comparable(answer)

    def state(self) -> Any:
        process = self.process
        return (
            dict(process._wanted),
            dict(process._outbound.allocator._taken),
            sorted(process._inbound.returned),
        )


def comparable(answer: Answer | None) -> Any:
    if answer is None:
        return None
    error = None if answer.error is None else (answer.error.code, answer.error.message)
    outputs = None if answer.outputs is None else [same(array) for array in answer.outputs]
    return answer.call_id, outputs, error, answer.compute_seconds, answer.expired


def same(array: Array) -> Any:
    return str(array.dtype), array.shape, array.flags.writeable, array.tobytes()


class Model:
    """Gives back what its input says."""

    metadata = METADATA

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def run(self, inputs: dict[str, Array], outputs: Sequence[str]) -> list[Array]:
        self.seen.append(({name: same(array) for name, array in inputs.items()}, tuple(outputs)))
        x = next(iter(inputs.values()))
        if x.size and x.flat[0] == -1:
            raise ProtocolError("minus one")
        return [
            x.astype(np.float32) if name == "y" else np.arange(len(x), dtype=np.int16) for name in outputs
        ]


class Served(Ends):
    """A child that serves what is in its socket already."""

    def __init__(self, way: str) -> None:
        super().__init__(way, blocking=True)
        self.child = Child(self.near, self.other, self.own, -1)
        self.child._outbound = Outbound(self.own, "m", 7, METADATA.outputs, Kind.REPLY)
        child = self.child
        child._port = self.choosing(
            lambda: make_port(child._link, child._inbound, child._outbound, child._signatures, blocking=True)
        )
        assert (child._port is None) == (way == "python")
        self.outbound = Outbound(self.other_write, "m", 7, METADATA.inputs, Kind.REQUEST)
        self.model = Model()

    def serve(self, *messages: bytes) -> Any:
        """What becomes of messages: why they are refused, what the model saw, and what is answered."""
        for message in messages:
            self.far.send(message)
        self.far.send(framing.encode_control(Stop()))
        refusal = ""
        try:
            self.child._serve(cast("Any", self.model))
        except ProtocolError as error:
            refusal = error.message
        answers = [without_time(head) for head in self.heads()]
        returned = sorted(self.child._inbound.returned)
        return refusal, self.model.seen, answers, returned, dict(self.child._outbound.allocator._taken)


def without_time(head: bytes) -> bytes:
    if head[5] not in (Kind.REPLY, Kind.ERROR):
        return head
    return head[:44] + bytes(4) + head[48:]


def both(make: Callable[[str], Any], act: Callable[[Any], Any]) -> Any:
    """What both ways say to the same; it must be the same."""
    found: list[Any] = []
    for way in WAYS:
        made = make(way)
        try:
            found.append(act(made))
        finally:
            made.close()
    assert found[0] == found[1]
    return found[1]


# -------------------------------------------------------------------- what is sent

DTYPES: list[Any] = [
    "<f4",
    "u1",
    "?",
    "<c16",
    "<i8",
    ">f4",
    ml_dtypes.bfloat16,
    np.dtype("<f4").newbyteorder("<"),
]


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, list[Array]]:
    """Inputs of a call in pieces; nearly all of them can be sent."""
    found: dict[str, list[Array]] = {}
    rows = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    for name in draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True)):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        tail = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3)))
        if draw(st.integers(0, 3)) == 0:
            tail = (*tail[:1], draw(st.sampled_from([40, 5000, 60_000])))
        pieces = [
            np.random.default_rng(at).integers(0, 2, (count, *tail)).astype(dtype)
            for at, count in enumerate(rows)
        ]
        match draw(st.integers(0, 9)):
            case 0:
                pieces = [piece.T.copy().T for piece in pieces]
            case 1:
                pieces = pieces[:1]
            case 2:
                pieces[-1] = pieces[-1].view("u1") if tail else pieces[-1].real
            case 3:
                pieces = [pieces[0].reshape(-1)[0:1].reshape(())] if pieces[0].size else pieces
            case _:
                pass
        found[name] = pieces
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(tensors(), min_size=1, max_size=3),
    st.integers(0, 2),
    st.lists(st.integers(0, 1 << 40), max_size=20),
)
def test_calls_are_the_same_to_the_byte(
    calls: list[dict[str, list[Array]]], padding: int, returned: list[int]
) -> None:
    def act(parent: Parent) -> Any:
        said: list[Any] = []
        for number, inputs in enumerate(calls * 2, 1):
            parent.process._inbound.returned.extend(returned)
            try:
                parent.process.send_call(number, inputs, padding, ["y"], number << 30)
            except RpcError as error:
                said.append((error.code, error.message))
        blocks = parent.process._outbound.allocator
        used = [
            parent.own.bytes[offset : offset + nbytes].tobytes() for offset, nbytes in blocks._taken.items()
        ]
        return said, parent.heads(), parent.state(), [block[: len(block) - 63] for block in used]

    both(Parent, act)


def test_short_ways_are_taken() -> None:
    parent = Parent("compiled")
    port = parent.process._port
    assert port is not None
    for inputs in (
        {"x": [np.zeros((2, 3), np.float32)]},
        {
            "x": [np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)],
            "b": [np.zeros(3, ml_dtypes.bfloat16)],
        },
        {"x": [np.zeros((3, 100_000), np.int8)]},
    ):
        assert port.send_call(1, inputs, 2, ("y",), 0) is True
    assert len(parent.heads()) == 3
    assert port.send_call(1, {"x": [np.zeros((), np.float32)]}, 0, ("y",), 0) is False
    assert port.send_call(1, {"x": [np.zeros((1, ARENA), np.int8)] * 2}, 0, ("y",), 0) is False
    assert port.send_call(1, {}, 0, ("y",), 0) is False
    parent.close()


def test_what_the_socket_has_no_room_for_is_kept_whole() -> None:
    def act(parent: Parent) -> Any:
        for number in range(1, 200):
            parent.process.send_call(number, {"x": [np.full((1, 1000), number, np.float32)]}, 0, ["y"])
        assert parent.process._unsent
        found: list[bytes] = []
        while parent.process._unsent:
            found += parent.heads()
            parent.process._flush()
        return found + parent.heads()

    assert len(both(Parent, act)) == 199


def test_nobody_there_is_a_loss() -> None:
    def act(parent: Parent) -> Any:
        parent.far.close()
        with pytest.raises(WorkerLost):
            parent.process.send_call(1, {"x": [np.zeros((1, 2), np.float32)]}, 0, ["y"])
        with pytest.raises(WorkerLost):
            parent.process.receive()
        return parent.state()

    both(Parent, act)


# -------------------------------------------------------------------- what is received


def answers(
    outbound: Outbound, *, rows: int, width: int, returned: Sequence[int] = (), number: int = 1
) -> bytes:
    y = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    packed = outbound.pack([("y", [y]), ("z", [np.arange(rows, dtype=np.int16)])])
    return packed.message(Kind.REPLY, number, returned, compute_seconds=0.25)


def calls(
    outbound: Outbound, *, rows: int, width: int, returned: Sequence[int] = (), number: int = 1
) -> bytes:
    x = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    return outbound.pack([("x", [x])], 0, ("y", "z")).message(Kind.REQUEST, number, returned)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """What is done to a message: bytes, fields, its extra."""
    kind = draw(st.integers(0, 4))
    spots = draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=3))
    blocks = draw(
        st.lists(
            st.tuples(
                st.sampled_from([True, True, True, False]),
                st.sampled_from([0, 64, 65, ARENA - 64, ARENA, 1 << 40, (1 << 64) - 64]),
                st.sampled_from([0, 2, 64, 80_000, ARENA, 1 << 40]),
            ),
            max_size=3,
        )
    )
    returned = draw(st.lists(st.sampled_from([0, 64, 128, 1 << 40]), max_size=3))
    cut = draw(st.integers(-3, 3))

    def mutate(head: bytes) -> bytes:
        broken = bytearray(head)
        if kind == 0:
            return head
        if kind == 1:
            for at, value in spots:
                broken[at % len(head)] = value
        elif kind == 2:
            for at, value in spots:
                broken[at % PREFIX_SIZE] = value
        elif kind == 3:
            broken = broken[:cut] if cut < 0 else broken + bytes(cut)
        else:
            fields = list(PREFIX.unpack_from(head))
            start = PREFIX_SIZE + fields[8]
            extra = msgspec.msgpack.encode([blocks, returned])
            rest = head[start + fields[9] :]
            fields[9] = len(extra)
            broken = bytearray(PREFIX.pack(*fields) + head[PREFIX_SIZE:start] + extra + rest)
        return bytes(broken)

    return mutate


shapes = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 16, 20_000]))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shapes, mutations(), mutations())
def test_answers_are_read_and_refused_alike(
    shape: tuple[int, int], first: Callable[[bytes], bytes], second: Callable[[bytes], bytes]
) -> None:
    rows, width = shape

    def act(parent: Parent) -> Any:
        for number in range(1, 5):
            parent.process.send_call(number, {"x": [np.zeros((1, 5000), np.float32)]}, 0, ["y", "z"])
        # So that the header is known.
        found = [parent.receive(answers(parent.outbound, rows=rows, width=width))]
        for number, mutate in ((2, first), (3, second)):
            message = answers(parent.outbound, rows=rows, width=width, returned=(0,), number=number)
            found.append(parent.receive(mutate(message)))
            found.append(parent.state())
        return found

    both(Parent, act)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shapes, mutations(), mutations())
def test_calls_are_read_and_refused_alike(
    shape: tuple[int, int], first: Callable[[bytes], bytes], second: Callable[[bytes], bytes]
) -> None:
    rows, width = shape

    def act(served: Served) -> Any:
        messages = [calls(served.outbound, rows=rows, width=width, number=number) for number in (1, 2, 3, 4)]
        return served.serve(messages[0], first(messages[1]), second(messages[2]), messages[3])

    both(Served, act)


def test_many_dtypes_and_shapes_arrive() -> None:
    def act(served: Served) -> Any:
        found: list[bytes] = []
        for dtype in (np.float32, np.int8, ml_dtypes.bfloat16, np.complex128):
            for shape in ((1, 1), (3, 2, 2), (2, 0), (0, 3), (1, 30_000)):
                x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
                found.append(served.outbound.pack([("x", [x])], 0, ("z",)).message(Kind.REQUEST, 1))
        return served.serve(*found, *found)

    _, seen, replies, _, _ = both(Served, act)
    assert len(seen) == len(replies) == 40


def test_errors_of_the_model_follow_what_is_free_again() -> None:
    def act(served: Served) -> Any:
        bad = served.outbound.pack([("x", [np.full((1, 5000), -1, np.float32)])], 0, ("z",))
        good = calls(served.outbound, rows=1, width=4)
        return served.serve(good, bad.message(Kind.REQUEST, 5), bad.message(Kind.REQUEST, 6), good)

    _, _, replies, _, _ = both(Served, act)
    assert [head[5] for head in replies] == [2, 7, 3, 7, 3, 2]


def test_a_call_whose_time_is_over_is_not_run() -> None:
    def act(served: Served) -> Any:
        now = time.monotonic_ns() // 1000
        messages = [
            served.outbound.pack([("x", [np.zeros((1, 5000), np.float32)])], 0, ("z",)).message(
                Kind.REQUEST, number, deadline_us=deadline
            )
            for number, deadline in ((1, 0), (2, now), (3, now + (1 << 40)), (4, 1))
        ]
        return served.serve(*messages)

    _, seen, replies, returned, _ = both(Served, act)
    assert len(seen) == 2
    assert returned == []
    said = [framing.read(head) for head in replies]
    assert [message.prefix.kind for message in said] == [2, 7, 7, 2, 7, 7]
    assert framing.read_control(said[2]) == framing.Expired(2)
    assert framing.read_control(said[1]) == Returned((20_032,)) or isinstance(
        framing.read_control(said[1]), Returned
    )


def test_an_expired_call_is_answered_once() -> None:
    def act(parent: Parent) -> Any:
        parent.process.send_call(1, {"x": [np.zeros((1, 2), np.float32)]}, 0, ["y"])
        message = framing.encode_control(framing.Expired(1))
        return parent.receive(message), parent.receive(message)

    assert both(Parent, act) == ((1, None, None, 0.0, True), "an answer to call 1, which is not in hand")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_descriptors_that_should_not_come_are_closed(count: int) -> None:
    def act(parent: Parent) -> Any:
        parent.process.send_call(1, {"x": [np.zeros((1, 2), np.float32)]}, 0, ["y", "z"])
        message = answers(parent.outbound, rows=1, width=2)
        before = descriptors()
        fds = [os.memfd_create("x") for _ in range(count)]
        socket.send_fds(parent.far._socket, [message], fds)
        for fd in fds:
            os.close(fd)
        try:
            said: Any = comparable(parent.process.receive())
        except WorkerLost as lost:
            said = lost.reason
        assert descriptors() == before
        return said

    both(Parent, act)


def test_too_long_a_message() -> None:
    def act(parent: Parent) -> Any:
        return parent.receive(bytes(MAX_MESSAGE)), parent.receive(bytes(MAX_MESSAGE + 1))

    both(Parent, act)


def test_arrays_are_lent_until_the_last_view_is_gone() -> None:
    def act(parent: Parent) -> Any:
        for number in (1, 2):
            parent.process.send_call(number, {"x": [np.zeros((1, 2), np.float32)]}, 0, ["y", "z"])
        parent.far.send(answers(parent.outbound, rows=1, width=8))
        assert parent.process.receive() is not None
        parent.far.send(answers(parent.outbound, rows=2, width=9000, number=2))
        answer = parent.process.receive()
        assert answer is not None
        assert answer.outputs is not None
        view = answer.outputs[0].reshape(-1)[5:7].view(np.uint8)
        kept = view.tobytes()
        del answer
        returned = parent.process._inbound.returned
        assert not returned
        del view
        return kept, list(returned)

    assert both(Parent, act)[1] == [0]


def test_a_port_is_chosen() -> None:
    first, second = memory()
    ends = Ends("python", blocking=False)
    outbound, inbound = Outbound(first, "m", 1, (), Kind.REQUEST), Inbound(second)

    def make() -> Port | None:
        return make_port(ends.near, inbound, outbound, Interner(Signature), blocking=False)

    assert ends.choosing(make) is None
    ends.way = "compiled"
    port = ends.choosing(make)
    assert port is not None
    assert port.receive_answer({}) is None
    ends.far.send(b"hello")
    assert port.receive_answer({}) == Received(b"hello", -1)
    ends.close()
