"""The client process of one system: opens its client once, then measures one job after another.

Reads a ``Job`` as a JSON line from stdin, answers with an ``Outcome``, and stops when stdin closes. Where
other processes share the load it waits for an ``Onward`` before its first call, and before a closed loop is
measured. Run as ``python -m tensorwire.bench.worker SYSTEM ADDRESS SERVER_PID``.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from .child import Ready, run_loop, say
from .load import Job, Onward, Outcome, run_async, run_sync, verify_async, verify_sync
from .meters import CpuMeter
from .models import Case
from .period import Meeting
from .recorder import Samples, merge
from .systems import SYSTEMS, System

_decode = msgspec.json.Decoder(Job).decode
_decode_onward = msgspec.json.Decoder(Onward).decode


class _Known:
    """The cases that the system has been seen to answer."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def new(self, job: Job) -> list[Case]:
        """Those of a job that it has not."""
        return [case for case in job.cases() if case.name not in self._names]

    def add(self, case: Case) -> None:
        """It has answered."""
        self._names.add(case.name)


async def _serve_async(system: System, address: str, meter: CpuMeter) -> None:
    known = _Known()
    async with system.open_async(address) as client:
        say(Ready())
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            try:
                job = _decode(line)
                for case in known.new(job):
                    await verify_async(client, case, compared=system.verified)
                    known.add(case)
                say(_outcome(job, await run_async(client, job, meter, _meeting(job))))
            except Exception as error:  # noqa: BLE001 - one failed job must not end the run
                say(Outcome(failure=f"{client.code_of(error)}: {error}"))


def _meeting(job: Job) -> Meeting | None:
    return _meet if job.samples else None


def _meet() -> float:
    say(Outcome(waits=True))
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError("the harness is gone")
    return _decode_onward(line).at


def _outcome(job: Job, samples: Samples) -> Outcome:
    return Outcome(samples=samples) if job.samples else Outcome(measurement=merge([samples]))


def _serve_sync(system: System, address: str, meter: CpuMeter) -> None:
    known = _Known()
    with system.open_sync(address) as client:
        say(Ready())
        while line := sys.stdin.buffer.readline():
            try:
                job = _decode(line)
                for case in known.new(job):
                    verify_sync(client, case, compared=system.verified)
                    known.add(case)
                say(_outcome(job, run_sync(client, job, meter, _meeting(job))))
            except Exception as error:  # noqa: BLE001 - one failed job must not end the run
                say(Outcome(failure=f"{client.code_of(error)}: {error}"))


def main(arguments: list[str]) -> None:
    """Run until stdin closes."""
    name, address, server_pid = arguments
    system, meter = SYSTEMS[name], CpuMeter(int(server_pid))
    if system.asynchronous:
        run_loop(_serve_async(system, address, meter))
    else:
        _serve_sync(system, address, meter)


if __name__ == "__main__":
    main(sys.argv[1:])
