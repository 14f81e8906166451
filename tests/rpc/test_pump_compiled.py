"""The compiled pump: the same outcome as that of the pump in Python, whatever arrives; its memory; the choice
between the two."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pumps
import pytest
import zmq
from tensorwire.bench.mutations import mutate
from tensorwire.rpc.pump import (
    Bundle,
    ControlMessage,
    Pump,
    PythonPump,
    ReplyTemplate,
    make_pump,
    pump_kind,
    whole,
)
from tensorwire.rpc.wire.extra import Extra, encode_body
from tensorwire.rpc.wire.header import Layout, ReplyHeader, RequestHeader, TensorHeader, encode_header
from tensorwire.rpc.wire.message import build
from tensorwire.rpc.wire.prefix import MAX_ID, Kind
from vectors.read import load

WAIT_MS = 10_000
LARGE = 602_112
Array = np.ndarray[Any, Any]
Message = Sequence[bytes]


class End:
    """A ROUTER with a pump, and DEALERs."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], make: Callable[..., Pump], name: str) -> None:
        self.router = context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.RCVHWM, 0)
        self.router.bind(f"inproc://{name}")
        self.pump = make(self.router, clock=lambda: 100.0)
        self.dealers: dict[bytes, zmq.Socket[bytes]] = {}
        for peer in (b"one", b"two", b"a name that is longer than what fits into a short message of ZeroMQ"):
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.ROUTING_ID, peer)
            dealer.setsockopt(zmq.SNDHWM, 0)
            dealer.connect(f"inproc://{name}")
            self.dealers[peer] = dealer

    def outcome(self, messages: Sequence[tuple[bytes, Message]], limit: int = 1 << 20) -> tuple[Any, ...]:
        """What becomes of messages: bundles, controls, counters, answers."""
        for peer, frames in messages:
            self.dealers[peer].send_multipart(frames)
        bundles: list[Bundle] = []
        controls: list[ControlMessage] = []
        more = True
        while more:
            drained = self.pump.drain(limit)
            more = drained.more
            bundles += drained.bundles
            controls += drained.controls
        answers = {peer: received(dealer) for peer, dealer in self.dealers.items()}
        return (
            [as_values(bundle) for bundle in bundles],
            controls,
            msgspec.structs.asdict(self.pump.counters),
            answers,
        )

    def close(self) -> None:
        for dealer in self.dealers.values():
            dealer.close(linger=0)
        self.router.close(linger=0)


def received(dealer: zmq.Socket[bytes]) -> list[list[bytes]]:
    found: list[list[bytes]] = []
    while dealer.poll(0):
        found.append(dealer.recv_multipart())
    return found


def as_values(bundle: Bundle) -> dict[str, Any]:
    """Everything about a bundle. Rows None and a list of ones mean the same."""
    return {
        "header": bundle.signature.raw,
        "extra": (bundle.priority, bundle.routing_key),
        "messages": (bundle.peers, bundle.first_ids, bundle.counts, bundle.deadlines),
        "rows": bundle.rows or [1] * bundle.requests,
        "size": (bundle.requests, bundle.total_rows, bundle.nbytes),
        "times": (bundle.received, bundle.earliest_deadline),
        "mirrored": bundle.mirrored,
        "inputs": [
            (
                block.dtype,
                block.shape,
                block.tolist() if block.dtype == object else block.tobytes(),
                block.flags.aligned,
            )
            for block in bundle.inputs
        ],
    }


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def both(context: zmq.Context[zmq.Socket[bytes]]) -> tuple[End, End]:
    """The pump in Python, and the compiled one."""
    compiled = pumps.pump_named("compiled")
    return End(context, PythonPump, "python"), End(context, compiled, "compiled")


@pytest.fixture
def end(context: zmq.Context[zmq.Socket[bytes]]) -> End:
    return End(context, pumps.pump_named("compiled"), "compiled")


def request(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    payloads: Sequence[Any],
    *,
    first_id: int = 1,
    rows: Sequence[int] = (1,),
    model: str = "m",
    limit: int = 65_536,
    **options: Any,
) -> list[Any]:
    headers = tuple(TensorHeader(*tensor) for tensor in tensors)
    return build(
        Kind.REQUEST,
        first_id=first_id,
        count=len(rows),
        layout=Layout(headers, True),
        header=encode_header(RequestHeader(model, headers)),
        rows=rows,
        payloads=payloads,
        inline_limit=limit,
        **options,
    )


X = [("x", "float32", (2,))]


class TestSameOutcome:
    def test_vectors(self, both: tuple[End, End]) -> None:
        vectors = load("requests", "controls", "errors", "replies", "malformed")
        # Twice: the second time their headers are known.
        messages = [(b"one", vector["frames"]) for vector in vectors * 2]
        python, compiled = (end.outcome(messages) for end in both)
        assert compiled == python
        assert python[2]["malformed_answered"] > 10
        assert python[2]["malformed_dropped"] > 3

    @pytest.mark.parametrize("seed", range(20))
    def test_random_bursts(self, both: tuple[End, End], seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(5):
            messages = [
                (draw.choice(list(both[0].dealers)), drawn(draw)) for _ in range(draw.choice((1, 9, 200)))
            ]
            limit = draw.choice((1, 7, 64, 1 << 20))
            python, compiled = (end.outcome(messages, limit) for end in both)
            assert compiled == python
        assert python[2]["requests"] > 50

    @pytest.mark.parametrize("seed", range(20))
    def test_mutated_messages(self, both: tuple[End, End], seed: int) -> None:
        draw = random.Random(1000 + seed)
        valid = [vector["frames"] for vector in load("requests", "controls")]
        valid += [drawn(draw) for _ in range(100)]
        for end in both:
            end.outcome([(b"one", frames) for frames in valid])
        for burst in range(10):
            messages = [
                (draw.choice(list(both[0].dealers)), mutate(draw, valid, draw.getrandbits(64)))
                for _ in range(draw.choice((1, 50)))
            ]
            python, compiled = (end.outcome(messages) for end in both)
            assert compiled == python, burst

    def test_lengths_that_lie_about_a_known_header(self, both: tuple[End, End]) -> None:
        (good,) = request(X, [bytes(8)])
        messages: list[tuple[bytes, Message]] = [(b"one", [good])]
        for offset in (24, 28, 32, 36):
            for value in (0, 1, 2, 16, len(good), len(good) - 48, len(good) - 47, 2**16, 2**31, 2**32 - 1):
                head = bytearray(good)
                head[offset : offset + 4] = value.to_bytes(4, "little")
                # The whole frame, and one that ends behind its header.
                messages += [(b"one", [bytes(head)]), (b"one", [bytes(head[: 48 + header_len(good)])])]
        for rows in (0, 1, 2, 2**31, 2**32 - 1):
            head = bytearray(good)
            head[48 + header_len(good) :][:4] = b""
            at = 48 + header_len(good)
            head[at : at + 4] = rows.to_bytes(4, "little")
            messages.append((b"one", [bytes(head)]))
        messages += [(b"one", [good[:size]]) for size in range(len(good))]
        python, compiled = (end.outcome(messages) for end in both)
        assert compiled == python

    def test_ids_at_the_end(self, both: tuple[End, End]) -> None:
        messages = [
            (b"one", request(X, [bytes(8 * count)], first_id=MAX_ID + 1 - back, rows=[1] * count))
            for count in (1, 2, 3)
            for back in (1, 2, 3)
        ]
        # The first is valid, and makes the header known.
        python, compiled = (end.outcome(messages) for end in both)
        assert compiled == python
        assert python[2]["malformed_answered"] == 3

    def test_more_headers_than_are_kept(self, both: tuple[End, End]) -> None:
        names = [f"m{number}" for number in range(3000)]
        for _ in range(2):
            messages = [(b"two", request(X, [bytes(8)], model=name)) for name in [*names, *reversed(names)]]
            python, compiled = (end.outcome(messages) for end in both)
            assert compiled == python
            assert len(python[0]) == len(names)

    def test_empty_tensors_of_impossible_many_rows(self, both: tuple[End, End]) -> None:
        tensors = [("x", "uint8", (0, 2**24))]
        (good,) = request(tensors, [b""])
        at = 48 + header_len(good)
        messages = [
            (b"one", [good[:at] + rows.to_bytes(4, "little") + good[at + 4 :]])
            for rows in (1, 2**24, 2**24 + 1, 2**32 - 1)
        ]
        python, compiled = (end.outcome(messages) for end in both)
        assert compiled == python
        assert python[2]["malformed_answered"] == 2


def header_len(head: bytes) -> int:
    return int.from_bytes(head[28:32], "little")


def drawn(draw: random.Random) -> list[bytes]:
    """A valid request: of few signatures, so that many share a bundle."""
    tensors = draw.choice(
        (
            X,
            [("x", "float32", (2,)), ("y", "uint8", ())],
            [("a", "uint8", (5,)), ("b", "complex128", ()), ("c", "bfloat16", (3, 1))],
            [("e", "int64", (0,))],
            [("big", "uint8", (9000,)), ("s", "int16", ())],
        )
    )
    rows = draw.choice(([1], [1], [1], [1] * 3, [0], [2, 0, 1], [1] * draw.randint(1, 70)))
    layout = Layout(tuple(TensorHeader(*tensor) for tensor in tensors), True)
    extra = draw.choice(
        (None, None, None, Extra(metadata={"k": 1}), Extra(priority=1), Extra(routing_key=b"r"))
    )
    frames = request(
        tensors,
        [draw.randbytes(nbytes * sum(rows)) for nbytes in layout.row_nbytes],
        first_id=draw.getrandbits(62),
        rows=rows,
        model=draw.choice(("m", "n")),
        limit=draw.choice((65_536, 65_536, 32, 0)),
        extra=b"" if extra is None else encode_body(extra),
        timeout_us=draw.choice((0, 1, draw.getrandbits(64))),
    )
    return [bytes(frame) for frame in frames]


class TestMemory:
    def test_blocks_begin_at_multiples_of_64(self, end: End) -> None:
        for count in (1, 3, 100):
            end.dealers[b"one"].send_multipart(request(X, [bytes(8 * count)], rows=[1] * count))
            (bundle,) = end.pump.drain().bundles
            assert bundle.inputs[0].ctypes.data % 64 == 0
            assert not bundle.inputs[0].flags.writeable

    @pytest.mark.parametrize("limit", [65_536, 0])
    def test_arrays_outlive_everything(self, end: End, limit: int) -> None:
        kept: list[Array] = []
        for number in range(300):
            payload = np.full((4, 2), number, "<f4").tobytes()
            end.dealers[b"one"].send_multipart(request(X, [payload], rows=[1] * 4, limit=limit))
            (bundle,) = end.pump.drain().bundles
            # A view of some rows is all that is left.
            kept.append(bundle.inputs[0][1:3])
            del bundle
        end.close()
        del end
        gc.collect()
        assert [array.tolist() for array in kept] == [[[number] * 2] * 2 for number in range(300)]

    @pytest.mark.parametrize("unknown", [True, False])
    def test_large_frames_are_taken_over(self, end: End, unknown: bool) -> None:
        tensors = [("x", "uint8", (LARGE,)), ("n", "int32", ())]
        if not unknown:
            end.outcome([(b"one", request(tensors, [bytes(LARGE), bytes(4)]))])
        sent = np.arange(LARGE, dtype=np.uint8)
        end.dealers[b"one"].send_multipart(request(tensors, [memoryview(sent), b"\7\0\0\0"]), copy=False)
        (bundle,) = end.pump.drain().bundles
        # Nothing lies between the two sockets: the memory is the sender's.
        assert bundle.inputs[0].ctypes.data == sent.ctypes.data
        assert [block.shape for block in bundle.inputs] == [(1, LARGE), (1,)]
        assert bundle.inputs[1].tolist() == [7]

    def test_large_outputs_are_not_copied_and_let_go_of(self, end: End) -> None:
        end.dealers[b"one"].send_multipart(request(X, [bytes(8)]))
        (bundle,) = end.pump.drain().bundles
        tensors = (TensorHeader("y", "uint8", (LARGE,)),)
        template = ReplyTemplate(encode_header(ReplyHeader("m", 1, tensors)), Layout(tensors, True))
        output = np.ones((1, LARGE), np.uint8)
        address, alive = output.ctypes.data, weakref.ref(output)
        end.pump.reply(whole(bundle), template, [output], 0, 0, 0)
        del output
        _, frame = end.dealers[b"one"].recv_multipart(copy=False)
        assert np.frombuffer(frame.buffer, np.uint8).ctypes.data == address
        end.pump.flush()
        assert end.pump.holding
        assert alive() is not None
        del frame
        assert end.pump.flush() is False
        assert not end.pump.holding
        assert alive() is None

    def test_no_bundle_keeps_what_it_does_not_need(self, end: End) -> None:
        end.dealers[b"one"].send_multipart(request(X, [bytes(8)]))
        (bundle,) = end.pump.drain().bundles
        (block,) = (bundle.inputs[0].base,)
        alive = weakref.ref(bundle.inputs[0])
        del bundle
        assert alive() is None
        assert sys.getrefcount(block) == 2


class TestUse:
    def test_a_closed_socket_is_an_error(self, end: End) -> None:
        end.dealers[b"one"].send_multipart(request(X, [bytes(8)]))
        (bundle,) = end.pump.drain().bundles
        end.close()
        tensors = (TensorHeader("x", "float32", (2,)),)
        template = ReplyTemplate(encode_header(ReplyHeader("m", 1, tensors)), Layout(tensors, True))
        for use in (
            end.pump.drain,
            end.pump.flush,
            lambda: end.pump.send(b"one", b"x"),
            lambda: end.pump.fail(whole(bundle), 3, "no"),
            lambda: end.pump.reply(whole(bundle), template, bundle.inputs, 0, 0, 0),
        ):
            with pytest.raises(zmq.ZMQError, match=r"not a socket|non-socket"):
                use()

    def test_the_short_cuts_fit_this_numpy_and_this_bundle(self) -> None:
        pumps.pump_named("compiled")
        from tensorwire.rpc.pump.compiled import fast_paths

        assert fast_paths() == {"bundles": True, "arrays": True}


class TestChoice:
    def test_the_compiled_pump_is_the_default(
        self, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TENSORWIRE_PURE_PYTHON", raising=False)
        compiled = pumps.pump_named("compiled")
        assert pump_kind() == "compiled"
        with context.socket(zmq.ROUTER) as router:
            assert type(make_pump(router)) is compiled

    @pytest.mark.parametrize(
        ("value", "kind"), [("1", "python"), ("yes", "python"), ("0", "compiled"), ("", "compiled")]
    )
    def test_it_can_be_turned_off(self, value: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pumps.pump_named("compiled")
        monkeypatch.setenv("TENSORWIRE_PURE_PYTHON", value)
        assert pump_kind() == kind

    def test_without_it_there_is_the_one_in_python(
        self, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorwire.rpc.pump.compiled", None)
        assert pump_kind() == "python"
        with context.socket(zmq.ROUTER) as router:
            assert type(make_pump(router)) is PythonPump
