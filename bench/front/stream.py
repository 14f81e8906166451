"""Calls at a constant rate, whatever happens: ``python -m tensorwire.bench.front.stream SYSTEM ADDRESS``.

Every :class:`Stream` that comes as a line on stdin is answered with an :class:`Arrived` when all its calls
have ended; it stops when stdin closes. Latency counts from when a call was due, not from when it was sent: a
client that is held up, by itself or by the server, makes nothing look better.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ..alarm import Alarm
from ..child import Ready, run_loop, say
from ..models import CASE_OF_NAME, OUTPUT
from ..systems import SYSTEMS, AsyncCall, AsyncSystem
from .pulse import Gap

CASE: Final = "64 B"
_INPUTS: Final = 16
#: Seconds between two looks at what is due. Event loops themselves count in milliseconds.
_TICK: Final = 0.00025
#: Seconds without a reply that are a pause, and without a look that are one of the client itself.
PAUSE: Final = 0.005
_STILL: Final = PAUSE / 2


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to make, ``rate`` a second, for so many ``seconds``.

    ``callers``: so many calls are under way at most; the others wait for them, with their clock running.
    """

    seconds: float
    rate: float
    callers: int = 2048


class Arrived(msgspec.Struct, kw_only=True):
    """What came of it.

    Attributes:
        latencies: native float64, in seconds. Calls that were not sent before the end count with what they
            had waited until then.
        rate: right answers a second.
        unsent: calls that were due and not sent.
        pauses: times without a reply while one was waited for, longer than :data:`PAUSE`.
        still: times at which the client itself did not look at its clock.
    """

    latencies: bytes = b""
    rate: float = 0.0
    unsent: int = 0
    failed: dict[str, int] = {}
    pauses: list[Gap] = []
    still: list[Gap] = []


class Streamer:
    """One stream of calls.

    Args:
        calls: what to call, in turn.
        code_of: name of a failed call's status.
        clock: in seconds.
    """

    def __init__(
        self,
        calls: Sequence[AsyncCall],
        stream: Stream,
        code_of: Callable[[Exception], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._stream = stream
        self._code_of = code_of
        self._clock = clock
        self._latencies = array("d")
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._over = asyncio.Event()
        self._begun = self._end = self._heard = self._looked = clock()
        self._arrived = Arrived()

    async def run(self) -> Arrived:
        """Make the calls; all have ended."""
        self._begun = self._heard = self._looked = self._clock()
        self._end = self._begun + self._stream.seconds
        with Alarm(self.look) as alarm:
            alarm.every(_TICK)
            await self._over.wait()
        in_time = len(self._latencies)
        now = self._clock()
        waiting = [now - due for due in self._left()]
        await asyncio.gather(*self._tasks)
        found = self._arrived
        found.rate = in_time / (now - self._begun)
        found.unsent = len(waiting)
        found.latencies = array("d", [*self._latencies, *waiting]).tobytes()
        return found

    def _left(self) -> list[float]:
        """When the calls were due that were not sent."""
        total = int(self._stream.seconds * self._stream.rate)
        return [self._due(number) for number in range(self._number, total)]

    def _due(self, number: int) -> float:
        return self._begun + number / self._stream.rate

    def look(self) -> None:
        """Send what is due."""
        now = self._clock()
        if now - self._looked > _STILL:
            self._arrived.still.append((self._looked, now))
        self._looked = now
        if now >= self._end:
            self._over.set()
            return
        calls, tasks = self._calls, self._tasks
        while len(tasks) < self._stream.callers and (due := self._due(self._number)) <= now:
            if not tasks:  # nobody has waited for a reply until now
                self._heard = max(self._heard, due)
            task = asyncio.create_task(self._call(calls[self._number % len(calls)], due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self._number += 1

    async def _call(self, call: AsyncCall, due: float) -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - every failure is counted under its code
            code = self._code_of(error)
            self._arrived.failed[code] = self._arrived.failed.get(code, 0) + 1
            return
        now = self._clock()
        if now - self._heard > PAUSE and not self._over.is_set():
            self._arrived.pauses.append((self._heard, now))
        self._heard = now
        self._latencies.append(now - due)


async def _stream(system: AsyncSystem, stream: Stream) -> Arrived:
    case = CASE_OF_NAME[CASE]
    inputs = case.inputs(_INPUTS)
    for x in inputs:
        case.verify(x, (await system.caller(case, x)())[OUTPUT])
    gc.collect()
    gc.freeze()
    return await Streamer([system.caller(case, x) for x in inputs], stream, system.code_of).run()


async def _main(name: str, address: str) -> None:
    async with SYSTEMS[name].open_async(address) as system:
        say(Ready())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            say(await _stream(system, msgspec.json.decode(line, type=Stream)))


if __name__ == "__main__":
    run_loop(_main(*sys.argv[1:]))
