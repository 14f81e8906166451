"""Measurements behind two design choices: ``python -m tensorwire.bench.choices``.

*inline execution*: short batches in the front-end thread, against all batches in worker threads; two
servers, the same load, interleaved. *framing*: one tensor in the head frame, against a frame of its own,
through the pump. The choices that follow are explained in ``docs/decisions``.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import zmq

from ..client import AsyncClient
from ..rpc.pump import PythonPump
from ..rpc.transport import bind_router, connect_dealer, last_endpoint
from ..rpc.wire.header import Layout, RequestHeader, TensorHeader, encode_header
from ..rpc.wire.message import Buffer, build
from ..rpc.wire.prefix import Kind
from .models import CASE_OF_NAME, INPUT, Case, build_repository
from .processes import Child
from .servers import free_port

_ROUNDS: Final = 5
_SECONDS: Final = 0.6
_SIZES: Final = (1024, 4096, 16_384, 32_768, 65_536, 131_072, 262_144)
_MESSAGES: Final = 64


def inline_execution() -> None:
    """Print throughput, latency and server CPU with and without inline execution."""
    case = CASE_OF_NAME["64 B"]
    with tempfile.TemporaryDirectory() as folder:
        repository = build_repository(Path(folder) / "repository")
        budgets = {"inline": "0.0005", "threads": "0"}
        servers = {name: _server(repository, budget, Path(folder)) for name, budget in budgets.items()}
        results: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        with servers["inline"], servers["threads"]:
            for child in servers.values():
                child.wait_until(lambda child=child: asyncio.run(_alive(child, case)), 60)
            for _ in range(_ROUNDS):
                for callers in (1, 32, 256):
                    for name, child in servers.items():
                        results.setdefault((name, callers), []).append(
                            asyncio.run(_load(child, case, callers))
                        )
    print("64 B, fused; medians of", _ROUNDS, "interleaved rounds")
    print(
        f"{'callers':>8} {'batches run':>12} {'requests/s':>11} "
        f"{'p50 us':>8} {'p99 us':>8} {'server CPU us':>14}"
    )
    for (name, callers), rounds in sorted(results.items(), key=lambda item: (item[0][1], item[0][0])):
        rate, p50, p99, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{callers:>8} {name:>12} {rate:>11.0f} {p50:>8.0f} {p99:>8.0f} {cpu:>14.1f}")


class _ServerChild(Child):
    address = ""


def _server(repository: Path, budget: str, folder: Path) -> _ServerChild:
    address = f"tcp://127.0.0.1:{free_port()}"
    arguments = ["-m", f"{__package__}.peers.tensorwire_server", "serve", str(repository), "--bind", address]
    arguments += ["--set", f"serving.inline_budget={budget}"]
    child = _ServerChild(
        f"server with inline budget {budget}", arguments, folder / f"{budget}.log", ends_with_stdin=False
    )
    child.address = address
    return child


async def _alive(child: _ServerChild, case: Case) -> bool:
    async with AsyncClient(child.address, timeout=1.0) as client:
        try:
            await client.predict(case.model, {INPUT: np.zeros(case.shape, np.float32)})
        except Exception:  # noqa: BLE001 - whatever it is, the server is not ready
            return False
    return True


async def _load(child: _ServerChild, case: Case, callers: int) -> tuple[float, ...]:
    inputs = {INPUT: np.ones(case.shape, np.float32)}
    process = psutil.Process(child.pid)
    latencies: list[float] = []
    async with AsyncClient(child.address, timeout=10.0) as client:
        stop = time.perf_counter() + 0.1

        async def caller() -> None:
            while (begin := time.perf_counter()) < stop:
                await client.predict(case.model, inputs)
                latencies.append(time.perf_counter() - begin)

        await asyncio.gather(*[caller() for _ in range(callers)])
        latencies.clear()
        before, begin = sum(process.cpu_times()[:2]), time.perf_counter()
        stop = begin + _SECONDS
        await asyncio.gather(*[caller() for _ in range(callers)])
        seconds = time.perf_counter() - begin
    used = sum(process.cpu_times()[:2]) - before
    latencies.sort()
    count = len(latencies)
    p50, p99 = latencies[count // 2] * 1e6, latencies[int(count * 0.99)] * 1e6
    return count / seconds, p50, p99, used / count * 1e6


def framing() -> None:
    """Print the pump's time for a message whose tensor is inline, and for one with a frame of its own."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = bind_router(context, "tcp://127.0.0.1:0", 1 << 30)
    dealer = connect_dealer(context, last_endpoint(router))
    pump = PythonPump(router)
    results: dict[tuple[int, str], list[float]] = {}
    for _ in range(_ROUNDS * 3):
        for size in _SIZES:
            for name, limit in (("inline", 1 << 30), ("framed", 0)):
                message = _message(size, limit)
                results.setdefault((size, name), []).append(_time(dealer, router, pump, message))
    context.destroy(linger=0)
    print("us per message, send and drain; medians of", _ROUNDS * 3, "interleaved rounds")
    print(f"{'bytes':>8} {'inline':>8} {'framed':>8} {'ratio':>7}")
    for size in _SIZES:
        inline, framed = (statistics.median(results[size, name]) for name in ("inline", "framed"))
        print(f"{size:>8} {inline:>8.1f} {framed:>8.1f} {inline / framed:>7.2f}")


def _message(size: int, inline_limit: int) -> list[Buffer]:
    tensors = (TensorHeader("x", "uint8", (size,)),)
    return build(
        Kind.REQUEST,
        first_id=1 << 16,
        layout=Layout(tensors, True),
        header=encode_header(RequestHeader("m", tensors)),
        rows=[1],
        payloads=[bytes(size)],
        inline_limit=inline_limit,
    )


def _time(dealer: Any, router: Any, pump: PythonPump, message: list[Buffer]) -> float:
    begin = time.perf_counter()
    for _ in range(_MESSAGES):
        dealer.send_multipart(message, copy=len(message[-1]) < 65_536)
    received = 0
    while received < _MESSAGES:
        if not router.poll(5000):
            raise RuntimeError("messages were lost")
        bundles = pump.drain().bundles
        received += sum(bundle.requests for bundle in bundles)
    return (time.perf_counter() - begin) / _MESSAGES * 1e6


CHOICES: Final[tuple[Callable[[], None], ...]] = (inline_execution, framing)

if __name__ == "__main__":
    for choice in CHOICES:
        print(f"--- {choice.__name__}")
        choice()
