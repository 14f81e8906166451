"""One front end against two: ``python -m tensorwire.bench.front_ends``; for docs/decisions/0010.

Both servers run throughout and take turns. A client process has one connection, so it is served by one front
end, and which one is the kernel's choice: clients are started until each has enough of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psutil
import zmq

from ..client import Client
from ..rpc.transport import bind_own, bind_router, connect_dealer
from .child import Ready
from .load import Job, Outcome
from .models import build_repository
from .processes import Child
from .quick import rotated
from .recorder import Measurement
from .servers import Server, tensorwire
from .systems import CALL_TIMEOUT, FUSED, UNFUSED

_CASE: Final = "64 B"
#: Client processes at each front end.
_EACH: Final = 2
_STARTED_AT_MOST: Final = 40
_WAIT: Final = 30.0
_HOPS: Final = 2000


class _Situation(msgspec.Struct, frozen=True):
    """Clients that work at the same time, against one of the servers."""

    name: str
    server: str
    clients: tuple[Child, ...]


class _Bench:
    """Servers, and connected clients by server and front end."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        repository = build_repository(folder / "models")
        self.servers = {
            name: stack.enter_context(tensorwire(repository, folder / f"{name}.log", flags))
            for name, flags in (("N=1", ()), ("N=2", ("--front-ends", "2")))
        }
        self._started = 0

    def situations(self, system: str) -> list[_Situation]:
        """One and several client processes; those of two front ends at each of them."""
        alone = [self._client(system, "N=1") for _ in range(2 * _EACH)]
        own, other = self._shared(system)
        return [
            _Situation("1 client, N=1", "N=1", (alone[0],)),
            _Situation("1 client, N=2, at the server", "N=2", (own[0],)),
            _Situation("1 client, N=2, at the other", "N=2", (other[0],)),
            _Situation(f"{2 * _EACH} clients, N=1", "N=1", tuple(alone)),
            _Situation(f"{2 * _EACH} clients, N=2", "N=2", (*own, *other)),
        ]

    def _shared(self, system: str) -> tuple[list[Child], list[Child]]:
        """Clients of the server itself, and of the other front end."""
        places: tuple[list[Child], list[Child]] = ([], [])
        for _ in range(_STARTED_AT_MOST):
            client = self._client(system, "N=2")
            before = self._passed_on()
            run((client,), 1, 0.0, 0.02)
            places[self._passed_on() > before].append(client)
            if min(map(len, places)) >= _EACH:
                return places[0][:_EACH], places[1][:_EACH]
        raise RuntimeError("all connections land at one front end")

    def _passed_on(self) -> int:
        """Requests that the other front end has had."""
        with Client(self.servers["N=2"].address, timeout=_WAIT) as client:
            stats: dict[str, Any] = client.control("stats")
        return sum(each["pump"]["requests"] for each in stats["front_ends"])

    def _client(self, system: str, server: str) -> Child:
        where: Server = self.servers[server]
        self._started += 1
        arguments = ["-m", f"{__package__}.worker", system, where.address, str(where.pid)]
        log = self._folder / f"client-{self._started}.log"
        client = self._stack.enter_context(Child(f"client {self._started}", arguments, log))
        client.receive(Ready, _WAIT)
        return client


def run(clients: Sequence[Child], callers: int, warmup: float, duration: float) -> list[Measurement]:
    """Have clients share so many callers; what each measured."""
    job = Job(case=_CASE, concurrency=max(1, callers // len(clients)), warmup=warmup, duration=duration)
    for client in clients:
        client.send(job)
    found: list[Measurement] = []
    for client in clients:
        outcome = client.receive(Outcome, warmup + duration + 3 * CALL_TIMEOUT)
        if outcome.measurement is None:
            raise RuntimeError(outcome.failure)
        found.append(outcome.measurement)
    return found


class _Result(NamedTuple):
    """Requests a second, the worst p99 in ms; CPU in us a request: of all processes of the server, of the one
    of their threads that was busiest, of the clients."""

    rate: float
    p99: float
    server: float
    busiest: float
    clients: float


def _result(situation: _Situation, pid: int, callers: int, duration: float) -> _Result:
    before = _threads(pid)
    found = run(situation.clients, callers, duration / 4, duration)
    used = [seconds - before.get(thread, 0.0) for thread, seconds in _threads(pid).items()]
    requests = sum(each.requests for each in found)
    server = statistics.mean(each.server_cpu_per_request * each.requests for each in found) / requests
    clients = sum(each.client_cpu_per_request * each.requests for each in found) / requests
    busiest = server * max(used) / max(sum(used), 1e-9)
    return _Result(
        sum(each.throughput for each in found),
        max(each.p99 for each in found) * 1e3,
        server * 1e6,
        busiest * 1e6,
        clients * 1e6,
    )


def _threads(pid: int) -> dict[int, float]:
    """CPU seconds of each thread of a server and its children."""
    server = psutil.Process(pid)
    processes = (server, *server.children(recursive=True))
    return {
        thread.id: thread.user_time + thread.system_time
        for process in processes
        for thread in process.threads()
    }


def compare(rounds: int, duration: float) -> None:
    """Print throughput, latency and CPU of every situation."""
    for system in (UNFUSED, FUSED):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bench = _Bench(stack, folder)
            situations = bench.situations(system)
            for callers in (1, 32, 256):
                results: dict[str, list[_Result]] = {}
                chosen = [each for each in situations if len(each.clients) <= callers]
                for number in range(rounds):
                    for name in rotated([each.name for each in chosen], number):
                        (each,) = [one for one in chosen if one.name == name]
                        pid = bench.servers[each.server].pid
                        results.setdefault(name, []).append(_result(each, pid, callers, duration))
                _print(system, callers, results)


def _print(system: str, callers: int, results: dict[str, list[_Result]]) -> None:
    print(f"\n{system}, {_CASE}, {callers} callers; CPU in us a request")
    columns = " ".join(f"{name:>8}" for name in ("p99 ms", "server", "busiest", "clients"))
    print(f"{'':30} {'requests/s':>11} {'(range)':>17} {columns}")
    for name, rounds in sorted(results.items()):
        rates = [each.rate for each in rounds]
        rate, p99, *cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        spread = f"({min(rates):,.0f}-{max(rates):,.0f})"
        shown = " ".join(f"{each:8.1f}" for each in cpu)
        print(f"{name:30} {rate:11,.0f} {spread:>17} {p99:8.2f} {shown}", flush=True)


def hop() -> None:
    """Print what one way to another socket of ZeroMQ and back takes, within one process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = bind_router(context, "tcp://127.0.0.1:*", -1)
    tcp = router.getsockopt_string(zmq.LAST_ENDPOINT)
    ways = {"tcp": tcp, "ipc": bind_own(router, f"tensorwire-bench-{time.monotonic_ns()}", 1000)}
    dealers = {name: connect_dealer(context, address) for name, address in ways.items()}
    for nbytes in (200, 16_384, 1 << 20):
        frame, times = bytes(nbytes), {name: list[float]() for name in ways}
        for _ in range(_HOPS):
            for name, dealer in dealers.items():
                begin = time.perf_counter()
                dealer.send(frame)
                peer, received = router.recv_multipart()
                router.send_multipart((peer, received))
                dealer.recv()
                times[name].append(time.perf_counter() - begin)
        found = ", ".join(f"{name} {statistics.median(each) * 1e6:.1f}" for name, each in times.items())
        print(f"there and back, {nbytes:,} bytes, us: {found}")
    context.destroy(linger=0)


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=0.8)
    options = parser.parse_args()
    hop()
    compare(options.rounds, options.duration)


if __name__ == "__main__":
    main()
