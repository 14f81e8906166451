"""The callers of the proofs about workers, in a process of their own: ``python -m
tensorwire.bench.workers.caller SPEC``.

SPEC is an :class:`Aim` as JSON. Each :class:`Salvo` that comes as a line on stdin is answered with a
:class:`Tally` when all its calls have ended. It stops when stdin closes.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec
import numpy as np

from ...client import AsyncClient
from ...rpc.errors import RpcError, code_name
from ..child import Ready, run_loop, say
from ..models import INPUT, OUTPUT
from ..processes import Child
from ..steady import WRONG_ANSWER, Calls
from .models import inputs_for, is_right

#: A generator that was held up for longer than this, in seconds, leaves out what it missed.
_MAX_LAG: Final = 0.1
#: Of numbered requests each of so many has the extra numbers.
_EXTRA_EVERY: Final = 4
_START_SECONDS: Final = 30.0


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to call; ``timeout`` of each call in seconds.

    ``numbered``: the model of :mod:`.models`; ``identity``: y = x, float32 of ``[1, width]``.
    """

    address: str
    payload: Literal["numbered", "identity"] = "numbered"
    timeout: float = 2.0
    width: int = 16


class Salvo(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to one model, for so many ``seconds``; 0: until the next line.

    Attributes:
        rate: calls a second, whatever happens; 0: a closed loop of ``callers``.
        work: seconds that a request shall take.
        slow_work, slow_every: those of one in so many requests; 0: of none.
        extra: numbers that some requests have besides, so that they travel another way than the others.
    """

    model: str
    seconds: float = 0.0
    rate: float = 0.0
    callers: int = 0
    work: float = 0.0
    slow_work: float = 0.0
    slow_every: int = 0
    extra: int = 0


class Tally(msgspec.Struct, kw_only=True):
    """What became of a salvo."""

    #: Without the slow requests that were answered.
    calls: Calls = msgspec.field(default_factory=Calls)
    sent: int = 0
    #: Latencies of the slow requests.
    slow: list[float] = []
    #: The longest call, failed or not.
    longest: float = 0.0
    #: One message for each code.
    messages: dict[str, str] = {}
    #: Process ids of who has answered.
    workers: list[int] = []
    #: From the first call on, without the wait for the last: ``time.monotonic``.
    started: float = 0.0
    ended: float = 0.0

    @property
    def answered(self) -> int:
        """Calls with a right answer."""
        return len(self.calls.seconds) + len(self.slow)

    def throughput(self, skip: float) -> float:
        """Answers a second, without those of the first ``skip`` seconds."""
        begin = self.started + skip
        ends = np.array(self.calls.begun) + np.array(self.calls.seconds)
        return float(((ends >= begin) & (ends < self.ended)).sum() / (self.ended - begin))


class Caller:
    """The harness's side of the process."""

    def __init__(self, child: Child, timeout: float) -> None:
        self._child = child
        self._patience = 2 * timeout + _START_SECONDS

    @classmethod
    @contextmanager
    def start(cls, aim: Aim, logs: Path, name: str = "caller") -> Generator[Self]:
        """Run one until the block ends; it is connected on entry, and calls nothing."""
        arguments = ["-m", __name__, msgspec.json.encode(aim).decode()]
        with Child(f"the {name}", arguments, logs / f"{name}.log") as child:
            child.receive(Ready, _START_SECONDS)
            yield cls(child, aim.timeout)

    def begin(self, salvo: Salvo) -> None:
        """Have it call; one salvo at a time."""
        self._child.send(salvo)

    def stop(self) -> Tally:
        """End a salvo without an end."""
        self._child.send("stop")
        return self._child.receive(Tally, self._patience)

    def fire(self, salvo: Salvo) -> Tally:
        """A whole salvo of some seconds."""
        self.begin(salvo)
        return self._child.receive(Tally, salvo.seconds + self._patience)


class _Shooter:
    """One salvo."""

    def __init__(self, client: AsyncClient, aim: Aim, salvo: Salvo) -> None:
        self._client = client
        self._aim = aim
        self._salvo = salvo
        self._stopped = asyncio.Event()
        self._begun = array("d")
        self._seconds = array("d")
        self._slow = array("d")
        self._tally = Tally()
        self._workers: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._x = np.random.default_rng(1).random((1, aim.width), dtype=np.float32)

    def stop(self) -> None:
        self._stopped.set()

    async def fire(self) -> Tally:
        tally, salvo = self._tally, self._salvo
        gc.collect()
        gc.freeze()
        tally.started = time.monotonic()
        end = tally.started + salvo.seconds if salvo.seconds else float("inf")
        if salvo.rate:
            await self._steady(end)
        else:
            self._tasks = {asyncio.create_task(self._caller(end)) for _ in range(salvo.callers)}
            await self._until(end)
        tally.ended = time.monotonic()
        await asyncio.gather(*self._tasks)
        tally.calls.begun, tally.calls.seconds = self._begun.tolist(), self._seconds.tolist()
        tally.slow = self._slow.tolist()
        tally.workers = sorted(self._workers)
        return tally

    async def _until(self, when: float) -> None:
        """Until then, or the harness says so."""
        try:
            async with asyncio.timeout(None if when == float("inf") else when - time.monotonic()):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _steady(self, end: float) -> None:
        interval = 1 / self._salvo.rate
        due = self._tally.started
        while (now := time.monotonic()) < end and not self._stopped.is_set():
            if now - due > _MAX_LAG:
                self._tally.calls.skipped += int((now - due) / interval)
                due = now
            while due <= now:
                task = asyncio.create_task(self._call())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                due += interval
            await asyncio.sleep(min(due, end) - now)

    async def _caller(self, end: float) -> None:
        while time.monotonic() < end and not self._stopped.is_set():
            await self._call()

    async def _call(self) -> None:
        tally, salvo = self._tally, self._salvo
        number = tally.sent
        tally.sent += 1
        slow = bool(salvo.slow_every) and number % salvo.slow_every == 0
        extra = salvo.extra if number % _EXTRA_EVERY == 0 else 0
        inputs: Mapping[str, Any] = {INPUT: self._x}
        if self._aim.payload == "numbered":
            inputs = inputs_for(number, salvo.slow_work if slow else salvo.work, extra)
        begun = time.monotonic()
        try:
            answer = await self._client.predict(salvo.model, inputs)
        except RpcError as error:
            self._fail(begun, code_name(error.code), error.message)
            return
        seconds = time.monotonic() - begun
        if not self._check(number, extra, answer[OUTPUT]):
            self._fail(begun, WRONG_ANSWER, f"request {number}: {answer[OUTPUT]}")
            return
        tally.longest = max(tally.longest, seconds)
        if slow:
            self._slow.append(seconds)
        else:
            self._begun.append(begun)
            self._seconds.append(seconds)

    def _fail(self, begun: float, code: str, message: str) -> None:
        ended = time.monotonic()
        self._tally.longest = max(self._tally.longest, ended - begun)
        self._tally.calls.failed.append((begun, ended, code))
        self._tally.messages[code] = message

    def _check(self, number: int, extra: int, answer: Any) -> bool:
        if self._aim.payload == "identity":
            return np.array_equal(self._x, answer)
        if not is_right(number, extra, answer):
            return False
        self._workers.add(int(answer[0, 1]))
        return True


async def _main(aim: Aim) -> None:
    async with AsyncClient(aim.address, timeout=aim.timeout) as client:
        say(Ready())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            salvo = msgspec.json.decode(line, type=Salvo)
            shooter = _Shooter(client, aim, salvo)
            firing = asyncio.create_task(shooter.fire())
            if not salvo.seconds:
                await asyncio.to_thread(sys.stdin.buffer.readline)
                shooter.stop()
            say(await firing)


if __name__ == "__main__":
    run_loop(_main(msgspec.json.decode(sys.argv[1], type=Aim)))
