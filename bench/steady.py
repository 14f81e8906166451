"""The well-behaved client of a proof, in a process of its own: a constant rate of calls, whatever happens.

``python -m tensorwire.bench.steady SPEC``: SPEC is a :class:`Spec` as JSON. It calls from the start until
its stdin closes, and answers every line on its stdin with the :class:`Calls` that ended since the last one.

Calls are open loop: a server that stalls does not hold back the calls that show it. Answers are checked.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from ..client import AsyncClient
from ..rpc.errors import RpcError, code_name
from .child import Ready, run_loop, say
from .models import INPUT, OUTPUT
from .processes import Child

#: A generator that was held up for longer than this, in seconds, leaves out what it missed.
_MAX_LAG: Final = 0.1
_INPUTS: Final = 64
_ANSWER_SECONDS: Final = 30.0
WRONG_ANSWER: Final = "WRONG_ANSWER"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to call: ``rate`` calls a second, each with ``timeout`` seconds.

    ``versioned``: a table of ``rows`` rows as in :class:`.proof_models.VersionedModel`; ``identity``: y = x.
    """

    address: str
    kind: Literal["versioned", "identity"]
    model: str
    rate: float
    timeout: float = 5.0
    rows: int = 1


class Calls(msgspec.Struct):
    """Calls that ended: when they began (``time.monotonic``), how long they took, and those that failed: when
    they began and ended, and the code."""

    begun: list[float] = []
    seconds: list[float] = []
    failed: list[tuple[float, float, str]] = []
    #: Calls that were left out because the generator was held up.
    skipped: int = 0

    def between(self, start: float, end: float) -> list[float]:
        """Latencies of the calls that were going on at some time in this interval."""
        return [
            seconds
            for begun, seconds in zip(self.begun, self.seconds, strict=True)
            if begun < end and begun + seconds > start
        ]

    def failures(self) -> dict[str, int]:
        """Failed calls by status code."""
        codes = [code for *_, code in self.failed]
        return {code: codes.count(code) for code in sorted(set(codes))}

    def extend(self, other: Calls) -> None:
        """Add calls that ended later."""
        self.begun += other.begun
        self.seconds += other.seconds
        self.failed += other.failed
        self.skipped += other.skipped


def percentile(latencies: list[float], level: float = 99.0) -> float:
    """An observed value; 0 where there is none."""
    return float(np.percentile(latencies, level, method="higher")) if latencies else 0.0


class SteadyClient:
    """The harness's side of the process."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @classmethod
    @contextmanager
    def start(cls, spec: Spec, logs: Path, name: str = "steady") -> Any:
        """Run one until the block ends; it is calling on entry."""
        arguments = ["-m", f"{__package__}.steady", msgspec.json.encode(spec).decode()]
        with Child(f"the {name} client", arguments, logs / f"{name}.log") as child:
            child.receive(Ready, _ANSWER_SECONDS)
            yield cls(child)

    def take(self) -> Calls:
        """The calls that ended since the last time."""
        self._child.send("take")
        return self._child.receive(Calls, _ANSWER_SECONDS)


class _Generator:
    """Calls at a constant rate, and what became of them."""

    def __init__(self, client: AsyncClient, spec: Spec) -> None:
        self._client = client
        self._spec = spec
        self._begun = array("d")
        self._seconds = array("d")
        self._failed: list[tuple[float, float, str]] = []
        self._skipped = 0
        self._tasks: set[asyncio.Task[None]] = set()
        generator = np.random.default_rng(1)
        if spec.kind == "versioned":
            self._inputs: list[Any] = [
                generator.integers(0, spec.rows, (1, 1), dtype=np.int64) for _ in range(_INPUTS)
            ]
            self._right: Callable[[Any, Any], bool] = _right_version
        else:
            self._inputs = [generator.random((1, 16), dtype=np.float32) for _ in range(_INPUTS)]
            self._right = _same

    def take(self) -> Calls:
        calls = Calls(self._begun.tolist(), self._seconds.tolist(), self._failed, self._skipped)
        self._begun, self._seconds, self._failed, self._skipped = array("d"), array("d"), [], 0
        return calls

    async def call(self, inputs: Any) -> None:
        begun = time.monotonic()
        try:
            answer = await self._client.predict(self._spec.model, {INPUT: inputs})
        except RpcError as error:
            self._failed.append((begun, time.monotonic(), code_name(error.code)))
            return
        ended = time.monotonic()
        if not self._right(inputs, answer[OUTPUT]):
            self._failed.append((begun, ended, WRONG_ANSWER))
            return
        self._begun.append(begun)
        self._seconds.append(ended - begun)

    async def run(self) -> None:
        interval = 1 / self._spec.rate
        due = time.monotonic()
        number = 0
        while True:
            now = time.monotonic()
            if now - due > _MAX_LAG:
                self._skipped += int((now - due) / interval)
                due = now
            while due <= now:
                task = asyncio.create_task(self.call(self._inputs[number % _INPUTS]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                number += 1
                due += interval
            await asyncio.sleep(due - now)


def _right_version(inputs: Any, answer: Any) -> bool:
    number, version = answer[0].tolist()
    return answer.shape == (1, 2) and number == inputs[0, 0] and version >= 1 and version == int(version)


def _same(inputs: Any, answer: Any) -> bool:
    return np.array_equal(inputs, answer)


async def _main(spec: Spec) -> None:
    async with AsyncClient(spec.address, timeout=spec.timeout) as client:
        generator = _Generator(client, spec)
        await generator.call(generator._inputs[0])  # pyright: ignore[reportPrivateUsage]
        generator.take()
        gc.collect()
        gc.freeze()
        calling = asyncio.create_task(generator.run())
        say(Ready())
        while await asyncio.to_thread(sys.stdin.buffer.readline):
            say(generator.take())
        calling.cancel()


if __name__ == "__main__":
    run_loop(_main(msgspec.json.decode(sys.argv[1], type=Spec)))
