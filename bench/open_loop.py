"""Load that does not wait for answers, in its own process: ``python -m tensorwire.bench.open_loop SPEC``.

Reads a :class:`Shot` as a JSON line from stdin, answers with a :class:`Volley`, stops when stdin closes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from array import array
from typing import Any, Final, Literal

import msgspec
import numpy as np

from ..client import AsyncClient
from ..rpc.errors import DeadlineExceededError, ResourceExhaustedError, RpcError, code_name
from .child import Ready, run_loop, say
from .models import INPUT
from .overload_model import inputs_for

_TICK: Final = 0.001
#: Share of a measurement, at its start, whose answers do not count: queues fill.
_FILLING: Final = 0.15
#: Words of the server's own verdict, as against the client's clock.
_NOT_RUN: Final = "was not run"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What to call. ``waiting``: the model of :mod:`.overload_model`; ``busy``: of :mod:`.proof_models`."""

    address: str
    model: str
    kind: Literal["waiting", "busy"]
    connections: int = 2


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. ``rate``: calls a second, or 0 for a closed loop of ``callers``. Times in seconds."""

    seconds: float
    timeout: float
    rate: float = 0.0
    callers: int = 0


class Volley(msgspec.Struct, kw_only=True):
    """What came of it. All calls have ended. Latencies are in seconds."""

    sent: int = 0
    #: Answers in time a second, from shortly after the first call to the last.
    goodput: float = 0.0
    answered: list[float] = []
    refused: list[float] = []
    #: Ids of requests that the server says it has not run because their time was over.
    expired: list[int] = []
    #: Failed otherwise, by code; DEADLINE_EXCEEDED here is the client's own clock.
    failed: dict[str, int] = {}
    #: One message for each of these codes.
    messages: dict[str, str] = {}
    #: How late, behind their schedule, calls were sent.
    lag: list[float] = []
    #: CPU seconds of this process per second.
    cores: float = 0.0


class Shooter:
    """Sends calls over a few connections, round robin, and notes what becomes of them."""

    def __init__(self, clients: list[AsyncClient], target: Target) -> None:
        self._clients = itertools.cycle(clients)
        self._target = target
        self._ids = itertools.count(1)
        self._busy_inputs = {INPUT: np.random.default_rng(0).random((1, 256), np.float32)}
        self._answered = array("d")
        self._ended = array("d")
        self._refused = array("d")

    async def fire(self, shot: Shot) -> Volley:
        """Make one measurement."""
        self._answered, self._ended, self._refused = array("d"), array("d"), array("d")
        volley = Volley()
        gc.collect()
        gc.freeze()
        cpu, begun = time.process_time(), time.monotonic()
        sending = self._steady(shot, volley, begun) if shot.rate else self._callers(shot, volley, begun)
        calls = await sending
        ended = time.monotonic()
        volley.cores = (time.process_time() - cpu) / (ended - begun)
        await asyncio.gather(*calls)
        full = begun + _FILLING * shot.seconds
        in_time = sum(full <= when < ended for when in self._ended)
        volley.goodput = in_time / (ended - full)
        volley.answered, volley.refused = self._answered.tolist(), self._refused.tolist()
        return volley

    async def _steady(self, shot: Shot, volley: Volley, begun: float) -> set[asyncio.Task[None]]:
        calls: set[asyncio.Task[None]] = set()
        lag = array("d")
        interval = 1 / shot.rate
        end = begun + shot.seconds
        due = begun
        while due < end:
            now = time.monotonic()
            while due <= now and due < end:
                call = asyncio.create_task(self._call(shot.timeout, volley))
                calls.add(call)
                call.add_done_callback(calls.discard)
                lag.append(now - due)
                due += interval
            await asyncio.sleep(max(_TICK, due - now))
        volley.lag = lag.tolist()
        return calls

    async def _callers(self, shot: Shot, volley: Volley, begun: float) -> set[asyncio.Task[None]]:
        async def caller() -> None:
            while time.monotonic() < begun + shot.seconds:
                await self._call(shot.timeout, volley)

        calls = {asyncio.create_task(caller()) for _ in range(shot.callers)}
        await asyncio.sleep(shot.seconds)
        return calls

    async def _call(self, timeout: float, volley: Volley) -> None:
        request_id = next(self._ids)
        volley.sent += 1
        begun = time.monotonic()
        inputs: Any = self._busy_inputs
        if self._target.kind == "waiting":
            inputs = inputs_for(request_id, begun + timeout)
        try:
            await next(self._clients).predict(self._target.model, inputs, timeout=timeout)
        except ResourceExhaustedError:
            self._refused.append(time.monotonic() - begun)
        except DeadlineExceededError as error:
            if _NOT_RUN in error.message:
                volley.expired.append(request_id)
            else:
                self._failed(volley, error)
        except RpcError as error:
            self._failed(volley, error)
        else:
            ended = time.monotonic()
            self._answered.append(ended - begun)
            self._ended.append(ended)

    @staticmethod
    def _failed(volley: Volley, error: RpcError) -> None:
        name = code_name(error.code)
        volley.failed[name] = volley.failed.get(name, 0) + 1
        volley.messages[name] = error.message


async def _main(target: Target) -> None:
    clients = [AsyncClient(target.address) for _ in range(target.connections)]
    try:
        shooter = Shooter(clients, target)
        say(Ready())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            say(await shooter.fire(msgspec.json.decode(line, type=Shot)))
    finally:
        for client in clients:
            await client.close()


if __name__ == "__main__":
    run_loop(_main(msgspec.json.decode(sys.argv[1], type=Target)))
