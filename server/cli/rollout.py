"""What the demos share: a server of their own, and a new version that takes over while callers go on."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from ...bench.processes import Child
from ...client import AsyncClient
from ...rpc.errors import RpcError, code_name
from ...rpc.types import VersionStatus

if TYPE_CHECKING:
    from rich.table import Table

_READY_SECONDS: Final = 60.0
_LOOK_INTERVAL: Final = 0.02
_LOG_LINES: Final = 25
#: One call: the client, the number of the stream, the number of the call in the stream.
CallOnce = Callable[[AsyncClient, int, int], Awaitable[None]]


class DemoError(Exception):
    """Something did not go as the demo promises; the text says what."""


@contextmanager
def serving(repository: Path, log: Path) -> Generator[str]:
    """``tensorwire serve`` as a process of its own until the block ends; gives its address.

    Every model is loaded on entry. When the block fails, the end of the server's log is printed.

    Raises:
        ChildError: the server ended, or was not ready within a minute.
    """
    with tempfile.TemporaryDirectory(prefix="tensorwire-ready-") as directory:
        ready = Path(directory, "address")
        arguments = ["-m", "tensorwire.bench.peers.tensorwire_server", "serve", str(repository)]
        # Versions are renamed into place here, so there is nothing to wait for.
        arguments += ["--bind", "tcp://127.0.0.1:0", "--settle-time", "0", "--ready-file", str(ready)]
        with Child("tensorwire serve", arguments, log, ends_with_stdin=False) as child:
            child.wait_until(ready.exists, _READY_SECONDS)
            try:
                yield ready.read_text().strip()
            except (DemoError, RpcError):
                print(f"The end of the server's log:\n{_tail(log)}", file=sys.stderr)
                raise


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])


class Phase(msgspec.Struct, frozen=True):
    """Latencies of the calls that were going on in one part of a rollout, in seconds."""

    name: str
    calls: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, name: str, latencies: list[float]) -> Phase:
        """Percentiles are observed values; all are 0 where there was no call."""
        if not latencies:
            return cls(name, 0, 0.0, 0.0, 0.0)
        p50, p99, largest = np.percentile(latencies, (50, 99, 100), method="higher")
        return cls(name, len(latencies), float(p50), float(p99), float(largest))


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """What callers noticed of a new version. ``swap_seconds``: from its rename until the old one was gone."""

    phases: list[Phase]
    swap_seconds: float
    failures: dict[str, int]
    calls: int


class Streams:
    """Callers at a steady pace, whatever the server does (open loop: a stall shows in all calls it delays).

    Args:
        call: makes one call and keeps what it needs of the answer.
        count: number of streams; their calls are spread evenly over the interval.
        interval: seconds between two calls of a stream. A stream waits for its answer, as it needs it for its
            next call; a call that begins late counts from the time it was due.
        steps: calls of each stream.
    """

    def __init__(self, call: CallOnce, *, count: int, interval: float, steps: int) -> None:
        self._call = call
        self._count = count
        self._interval = interval
        self._steps = steps
        self._calls: list[tuple[float, float]] = []
        self._failures: Counter[str] = Counter()

    async def roll_out(
        self, address: str, model: str, version: int, publish: Callable[[], None], *, after: float
    ) -> Rollout:
        """Run the streams; ``after`` seconds publish ``version`` and wait until it has replaced the others.

        Raises:
            DemoError: the version failed to load, or had not replaced the old one when the streams ended.
        """
        async with AsyncClient(address, timeout=10.0) as client:
            started = time.monotonic() + 0.05
            streams = [asyncio.create_task(self._stream(client, i, started)) for i in range(self._count)]
            swap = asyncio.create_task(_swap(client, model, version, publish, after))
            try:
                await asyncio.gather(*streams)
                if not swap.done():
                    raise DemoError(f"version {version} of {model} had not replaced the old one in time")
                begun, ended = swap.result()
            finally:
                for task in (*streams, swap):
                    task.cancel()
                await asyncio.wait((*streams, swap))
        return self._summary(begun, ended)

    async def _stream(self, client: AsyncClient, number: int, started: float) -> None:
        due = started + self._interval * number / self._count
        for step in range(self._steps):
            await asyncio.sleep(due - time.monotonic())
            try:
                await self._call(client, number, step)
                self._calls.append((due, time.monotonic()))
            except RpcError as error:
                self._failures[code_name(error.code)] += 1
            due += self._interval

    def _summary(self, begun: float, ended: float) -> Rollout:
        spans = {"before": (0.0, begun), "during": (begun, ended), "after": (ended, float("inf"))}
        groups: dict[str, list[float]] = {name: [] for name in spans}
        for start, end in self._calls:
            # A call that was going on at any time of the swap belongs to it.
            name = "before" if end < begun else "after" if start > ended else "during"
            groups[name].append(end - start)
        return Rollout(
            phases=[Phase.of(name, latencies) for name, latencies in groups.items()],
            swap_seconds=ended - begun,
            failures=dict(self._failures),
            calls=len(self._calls) + self._failures.total(),
        )


async def _swap(
    client: AsyncClient, model: str, version: int, publish: Callable[[], None], after: float
) -> tuple[float, float]:
    """When the swap began and ended (``time.monotonic``)."""
    await asyncio.sleep(after)
    begun = time.monotonic()
    publish()
    await client.control("models.rescan")
    while True:
        rows = await client.status(model)
        if failed := [row for row in rows if row.version == version and row.state == "FAILED"]:
            raise DemoError(f"version {version} of {model} failed to load: {failed[0].reason}")
        if _only(rows, version):
            return begun, time.monotonic()
        await asyncio.sleep(_LOOK_INTERVAL)


def _only(rows: list[VersionStatus], version: int) -> bool:
    return [(row.version, row.state) for row in rows] == [(version, "AVAILABLE")]


def phases_table(rollout: Rollout) -> Table:
    """Latencies before, during and after the swap, for people."""
    from .common import table

    shown = table("", "calls", "p50 ms", "p99 ms", "max ms", right=("calls", "p50 ms", "p99 ms", "max ms"))
    for phase in rollout.phases:
        milliseconds = (f"{seconds * 1e3:.2f}" for seconds in (phase.p50, phase.p99, phase.max))
        shown.add_row(f"{phase.name} the swap", str(phase.calls), *milliseconds)
    return shown
