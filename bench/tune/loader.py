"""The load for ``tensorwire tune``, in a process of its own: ``python -m tensorwire.bench.tune.loader SPEC``.

SPEC is a :class:`Spec` as JSON. Reads a :class:`Job` as a JSON line from stdin, answers with a :class:`Made`,
and stops when stdin closes.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec

from ...client import AsyncClient
from ...rpc.errors import RpcError, code_name
from ..calls import Calls
from ..child import Ready, run_loop, say
from ..closed_load import closed_loop
from ..meters import CpuMeter
from ..recorder import Samples
from ..systems import AsyncCall


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to call.

    Attributes:
        requests: file with the inputs of one or more requests, pickled by the process that starts this one.
        timeout: of one call, seconds.
        server_pid: to read the server's CPU time; ``None``: it is on another machine.
    """

    address: str
    model: str
    requests: str
    version: int | None = None
    label: str | None = None
    timeout: float = 10.0
    server_pid: int | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Times are in seconds."""

    callers: int
    warmup: float
    duration: float


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: samples, or None and why."""

    samples: Samples | None = None
    failure: str = ""


def _code_of(error: Exception) -> str:
    return code_name(error.code) if isinstance(error, RpcError) else type(error).__name__


def _calls(client: AsyncClient, spec: Spec, requests: list[Any]) -> Calls[AsyncCall]:
    """The callers share the requests, each has one and the same: nothing is chosen while it measures."""

    def call(inputs: Any) -> AsyncCall:
        return lambda: client.predict(spec.model, inputs, version=spec.version, label=spec.label)

    return Calls([call(inputs) for inputs in requests], _code_of)


async def _main(spec: Spec) -> None:
    requests: list[Any] = pickle.loads(Path(spec.requests).read_bytes())
    meter = CpuMeter(spec.server_pid)
    async with AsyncClient(spec.address, timeout=spec.timeout) as client:
        say(Ready())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            job = msgspec.json.decode(line, type=Job)
            calls = _calls(client, spec, requests)
            try:
                samples = await closed_loop(calls, job.callers, job.warmup, job.duration, meter)
                say(Made(samples=samples))
            except Exception as error:  # noqa: BLE001 - the harness decides what that means
                say(Made(failure=f"{_code_of(error)}: {error}"))


if __name__ == "__main__":
    run_loop(_main(msgspec.json.decode(sys.argv[1], type=Spec)))
