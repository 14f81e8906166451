"""A load process of ``tensorwire press``: ``python -m tensorwire.bench.press.loader SPEC``.

SPEC is a :class:`.spec.Spec` as JSON. Says that it is ready; begins with the first line on stdin, and from
then on writes a :class:`.spec.Tick` a second. The second line ends it early, the end of stdin at once.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from ...client import AsyncClient
from ...rpc.errors import RpcError, code_name
from ..arrivals import due_times
from ..calls import Calls
from ..child import Ready, run_loop, say
from ..closed_load import closed_loop
from ..meters import CpuMeter
from ..open_load import OpenLoop
from ..period import pause
from ..recorder import Recorder, Samples
from ..systems import AsyncCall
from .spec import Spec, Tick

_SECOND: Final = 1.0


class Loader:
    """The one run of this process."""

    def __init__(self, spec: Spec, calls: Calls[AsyncCall]) -> None:
        self._spec = spec
        self._calls = calls
        self._recorder = Recorder()
        self._open: OpenLoop | None = None
        if spec.arrivals != "closed":
            arrivals, rate, phase, seed = spec.arrivals, spec.rate, spec.phase, spec.seed
            self._open = OpenLoop(
                calls,
                lambda begin: due_times(arrivals, rate, begin, phase=phase, seed=seed),
                spec.callers,
                self._recorder,
            )
        self._told = 0
        self._begun = self._ticked = time.monotonic()
        self._cpu = time.process_time()

    async def run(self, stop: asyncio.Event) -> None:
        """Make the load, and tell of it."""
        self._begun = self._ticked = time.monotonic()
        self._cpu = time.process_time()
        over = asyncio.Event()
        ticking = asyncio.create_task(self._tick(over))
        try:
            samples = await self._load(stop)
        finally:
            over.set()
            await ticking
        say(self._look(samples))

    async def _load(self, stop: asyncio.Event) -> Samples:
        spec, meter = self._spec, CpuMeter(None)
        if self._open is not None:
            return await self._open.run(0.0, spec.duration, meter, stop)
        return await closed_loop(
            self._calls, spec.callers, 0.0, spec.duration, meter, recorder=self._recorder, stop=stop
        )

    async def _tick(self, over: asyncio.Event) -> None:
        number = 0
        while not over.is_set():
            number += 1
            await pause(self._begun + number * _SECOND - time.monotonic(), over)
            if not over.is_set():
                # On another thread: who reads it may be slow, and the load must not wait for that.
                await asyncio.to_thread(say, self._look())

    def _look(self, samples: Samples | None = None) -> Tick:
        now, cpu = time.monotonic(), time.process_time()
        fresh = self._recorder.since(self._told)
        self._told += len(fresh)
        cores = (cpu - self._cpu) / max(now - self._ticked, 1e-9)
        self._ticked, self._cpu = now, cpu
        return Tick(
            seconds=now - self._begun,
            fresh=fresh.tobytes(),
            errors=dict(self._recorder.errors),
            in_flight=0 if samples else self._open.in_flight if self._open else self._spec.callers,
            cores=cores,
            samples=samples,
        )


def _code_of(error: Exception) -> str:
    return code_name(error.code) if isinstance(error, RpcError) else type(error).__name__


def _calls(clients: list[AsyncClient], spec: Spec, requests: list[Any]) -> list[AsyncCall]:
    """Every request over every connection, in turn."""

    def call(client: AsyncClient, inputs: Any) -> AsyncCall:
        predict, model, timeout = client.predict, spec.model, spec.timeout
        version, label = spec.version, spec.label
        return lambda: predict(model, inputs, version=version, label=label, timeout=timeout)

    return [call(client, inputs) for inputs in requests for client in clients]


async def _main(spec: Spec) -> None:
    requests: list[Any] = pickle.loads(Path(spec.requests).read_bytes())
    stop, told = asyncio.Event(), asyncio.Event()

    async def listen() -> None:
        line = await asyncio.to_thread(sys.stdin.buffer.readline)
        stop.set()
        if line:
            await asyncio.to_thread(sys.stdin.buffer.readline)
        if not told.is_set():
            os._exit(1)  # nobody listens any more, so nothing is waited for

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(spec.address, timeout=spec.timeout, fuse=spec.fuse))
            for _ in range(spec.connections)
        ]
        # Connected, before it counts. Whatever fails here fails in the load, too, and is counted there.
        first = [call() for call in _calls(clients, spec, requests[:1])]
        await asyncio.gather(*first, return_exceptions=True)
        say(Ready())
        if not await asyncio.to_thread(sys.stdin.buffer.readline):
            return
        listening = asyncio.create_task(listen())
        await Loader(spec, Calls(_calls(clients, spec, requests), _code_of)).run(stop)
        told.set()
        # The harness closes stdin when it has heard enough.
        await listening


if __name__ == "__main__":
    run_loop(_main(msgspec.json.decode(sys.argv[1], type=Spec)))
