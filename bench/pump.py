"""The compiled pump against the one in Python: ``python -m tensorwire.bench pump``.

Both take turns in one process, over sockets within it (``inproc``): what is timed is ``drain`` and ``reply``,
with what they call of libzmq, and neither a network nor a client.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import zmq

from ..rpc.pump import Pump, PythonPump, ReplyTemplate, whole
from ..rpc.wire.header import Layout, ReplyHeader, RequestHeader, TensorHeader, encode_header
from ..rpc.wire.message import Buffer, build
from ..rpc.wire.prefix import Kind

#: Per turn; the same pump repeats, as it does in a server under load, before the other one comes.
_BURSTS: Final = 30


class Case(NamedTuple):
    """What arrives before each drain, and is answered with as many bytes."""

    name: str
    messages: int
    requests: int
    nbytes: int


CASES: Final = (
    Case("1 message of 64 B", 1, 1, 64),
    Case("64 messages of 64 B", 64, 1, 64),
    Case("1 envelope of 64 x 64 B", 1, 64, 64),
    Case("1 message of 602,112 B", 1, 1, 602_112),
)


class Timing(NamedTuple):
    """Nanoseconds per request: medians over all bursts of all rounds."""

    drain: float
    reply: float


class _Bench:
    """A pump with a DEALER to feed it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], name: str, make: Callable[..., Pump]) -> None:
        address = f"inproc://{name}"
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.bind(address)
        self._dealer = context.socket(zmq.DEALER)
        self._dealer.connect(address)
        self._pump = make(self._router)

    def burst(self, message: Sequence[Buffer], count: int, template: ReplyTemplate) -> tuple[float, float]:
        """Seconds of a drain of ``count`` messages, and of their replies."""
        for _ in range(count):
            self._dealer.send_multipart(message, copy=len(message[-1]) < 65_536)
        begin = time.perf_counter()
        (bundle,) = self._pump.drain().bundles
        drained = time.perf_counter()
        part, outputs = whole(bundle), bundle.inputs
        replying = time.perf_counter()
        self._pump.reply(part, template, outputs, 0, 0, 0)
        end = time.perf_counter()
        for _ in range(count):
            self._dealer.recv_multipart(copy=False)
        if self._pump.holding:
            self._pump.flush()
        return drained - begin, end - replying


def _wire(case: Case) -> tuple[list[Buffer], ReplyTemplate]:
    tensors = (TensorHeader("x", "uint8", (case.nbytes,)),)
    layout = Layout(tensors, True)
    message = build(
        Kind.REQUEST,
        first_id=1 << 16,
        count=case.requests,
        layout=layout,
        header=encode_header(RequestHeader("m", tensors)),
        rows=[1] * case.requests,
        payloads=[bytes(case.nbytes * case.requests)],
    )
    return message, ReplyTemplate(encode_header(ReplyHeader("m", 1, tensors)), layout)


def _pumps() -> dict[str, Callable[..., Pump]]:
    pumps: dict[str, Callable[..., Pump]] = {"python": PythonPump}
    try:
        from ..rpc.pump.compiled import CompiledPump
    except ImportError:
        return pumps
    return {**pumps, "compiled": CompiledPump}


def measure(rounds: int) -> dict[tuple[str, str], Timing]:
    """Timings by case and pump."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        benches = {name: _Bench(context, name, make) for name, make in _pumps().items()}
        wires = {case: _wire(case) for case in CASES}
        for _ in range(rounds):
            for case, (message, template) in wires.items():
                for name, bench in benches.items():
                    times = [bench.burst(message, case.messages, template) for _ in range(_BURSTS)]
                    # The first ones find the caches full of the other pump.
                    found.setdefault((case.name, name), []).extend(times[_BURSTS // 3 :])
    finally:
        context.destroy(linger=0)
    return {key: _timing(case_of[key[0]], times) for key, times in found.items()}


case_of: Final = {case.name: case for case in CASES}


def _timing(case: Case, times: list[tuple[float, float]]) -> Timing:
    drain, reply = (statistics.median(column) for column in zip(*times, strict=True))
    requests = case.messages * case.requests
    return Timing(drain / requests * 1e9, reply / requests * 1e9)


def report(timings: dict[tuple[str, str], Timing]) -> str:
    """A table."""
    lines = [f"{'ns per request':<26}{'':<8}{'python':>10}{'compiled':>10}{'ratio':>8}"]
    for case in CASES:
        for what in Timing._fields:
            python = getattr(timings[case.name, "python"], what)
            line = f"{case.name:<26}{what:<8}{python:>10.0f}"
            if compiled := timings.get((case.name, "compiled")):
                value: Any = getattr(compiled, what)
                line += f"{value:>10.0f}{python / value:>8.1f}"
            lines.append(line)
    if (CASES[0].name, "compiled") not in timings:
        lines.append("The compiled pump was not built: install again where a C compiler is.")
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join([*lines, f"Medians; the machine's load was {load}."])
