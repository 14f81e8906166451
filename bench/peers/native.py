"""Clients that are programs of their own: what they are asked, what they give, and several of them at once.

Their part is ``load.h``: they connect, wait for each other, make load, and write what came of it; every
latency goes to a file. So their percentiles are computed where those of all other systems are.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from ...rpc.errors import code_name
from ..child import Ready
from ..clients import AHEAD, parts
from ..histogram import encode
from ..load import Job
from ..meters import CpuMeter
from ..models import SIZED_REPLY, case_of, sized
from ..processes import Child, ChildError
from ..recorder import CpuUse, Measurement, Samples, merge
from ..recorder import latencies as counted
from ..servers import Server
from ..systems import CALL_TIMEOUT

#: The model whose requests the echoes in C++ answer with their first bytes; all else comes back as it is.
_HEAD: Final = sized(SIZED_REPLY).model
_READY_SECONDS: Final = 30.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one client process has to do. Times are in seconds.

    Attributes:
        in_flight: callers of a closed loop, spread over the channels; the most calls of an open one.
        channels: connections, where several calls can share one.
        nbytes: of the tensor in each request, a float32 row.
        model: that is asked.
        reply: bytes of the answer; 0: as many as in the request.
        arrivals, rate, phase, seed: see :class:`~..load.Job`.
    """

    in_flight: int
    warmup: float
    duration: float
    channels: int = 1
    nbytes: int = 64
    model: str = "matmul16"
    reply: int = 0
    timeout: float = CALL_TIMEOUT
    arrivals: Literal["closed", "fixed", "poisson"] = "closed"
    rate: float = 0.0
    phase: float = 0.0
    seed: int = 0

    def arguments(self, address: str, samples: Path) -> list[str]:
        """The command line of a client. ``samples``: the file that it writes."""
        values = {
            "address": address,
            "in-flight": self.in_flight,
            "channels": self.channels,
            "bytes": self.nbytes,
            "model": self.model,
            "reply": self.reply or self.nbytes,
            "warmup": self.warmup,
            "duration": self.duration,
            "timeout": self.timeout,
            "arrivals": self.arrivals,
            "rate": self.rate,
            "phase": self.phase,
            "seed": self.seed,
            "samples": samples,
        }
        return [part for name, value in values.items() for part in (f"--{name}", str(value))]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a client writes. Times are in seconds.

    Attributes:
        counted: calls that were answered in the measured part; their latencies are the first of the file.
        late: those of a closed loop that were answered after it, which are behind them.
        answered: in the measured part, whenever they were due.
        unsent: calls of an open loop that were due and not sent; what they had waited is counted.
        calls: that ended at all, warm-up and failures included.
        cpu_seconds: of the client in the measured part.
        rss: bytes that it had in memory at most.
        errors: failed calls by status and message.
    """

    counted: int
    late: int
    calls: int
    answered: int
    unsent: int
    seconds: float
    cpu_seconds: float
    rss: int
    errors: dict[str, int]

    def samples(self, latencies: bytes, cpu: CpuUse, offered: float = 0.0, server_rss: int = 0) -> Samples:
        """The same as of any other client process. ``latencies``: the file."""
        size = np.dtype(np.float64).itemsize
        return Samples(
            counted=latencies[: self.counted * size],
            late=latencies[self.counted * size : (self.counted + self.late) * size],
            errors=_by_code(self.errors),
            calls=self.calls,
            seconds=self.seconds,
            cpu=cpu,
            answered=self.answered,
            unsent=self.unsent,
            offered=offered,
            server_rss=server_rss,
            client_rss=self.rss,
        )


def _by_code(errors: dict[str, int]) -> dict[str, int]:
    """``{"14: connection refused": 2}`` -> ``{"UNAVAILABLE": 2}``; what has no number stays."""
    found: dict[str, int] = {}
    for what, count in errors.items():
        number = what.partition(":")[0]
        code = code_name(int(number)) if number.isdecimal() else what
        found[code] = found.get(code, 0) + count
    return found


def loads(job: Job, processes: int, channels: int = 1) -> list[Load]:
    """What each of so many processes has to do of a job; none has more channels than callers.

    Raises:
        ChildError: it asks for what an echo does not have.
    """
    if job.slow_share:
        raise ChildError("could not measure: an echo has no model that could be slow")
    case = case_of(job.case)
    return [
        Load(
            in_flight=part.concurrency,
            warmup=part.warmup,
            duration=part.duration,
            channels=min(channels, part.concurrency),
            nbytes=case.input_bytes,
            model=case.model,
            reply=SIZED_REPLY if case.model == _HEAD else 0,
            timeout=part.timeout,
            arrivals=part.arrivals,
            rate=part.rate,
            phase=part.phase,
            seed=part.seed,
        )
        for part in parts(job, processes)
    ]


class NativeClients:
    """Starts client processes for each measurement; each opens its connections before the load begins.

    Args:
        name: for messages and logs.
        program: the client.
        server: an echo.
        count: processes, at most.
        logs: folder for what they write to stderr.
        channels: connections of each process for which a job is made, where calls can share one.
    """

    def __init__(
        self, name: str, program: Path, server: Server, count: int, logs: Path, *, channels: int = 1
    ) -> None:
        self._name = name
        self._program = program
        self._address = server.address
        self._count = count
        self._logs = logs
        self._channels = channels
        self._meter = CpuMeter(server.pid)

    def __enter__(self) -> NativeClients:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing runs between two measurements."""

    def measure(self, job: Job, processes: int) -> Measurement:
        """See :meth:`~..systems.LoadClients.measure`."""
        if processes > self._count:
            raise ValueError(f"{processes} client processes are wanted, of {self._count}")
        return self.run(loads(job, processes, self._channels))

    def run(self, loads: Sequence[Load]) -> Measurement:
        """Have one process for each of these, all at the same time.

        Raises:
            ChildError: one failed, or no call was answered.
        """
        with tempfile.TemporaryDirectory(prefix="tensorwire-native-") as folder, ExitStack() as stack:
            files = [Path(folder, f"{number}.f64") for number in range(len(loads))]
            children = [
                stack.enter_context(self._child(number, load, file))
                for number, (load, file) in enumerate(zip(loads, files, strict=True))
            ]
            cpu = self._go(children, loads[0])
            limit = loads[0].timeout + 2 * CALL_TIMEOUT
            found = [child.receive(Found, limit) for child in children]
            return self._measurement(loads, found, [file.read_bytes() for file in files], cpu)

    def _child(self, number: int, load: Load, file: Path) -> Child:
        stem = self._name.replace(" ", "-").replace("/", "-")
        log = self._logs / f"{stem}-client-{number + 1}.log"
        arguments = load.arguments(self._address, file)
        return Child(f"the {self._name} client {number + 1}", arguments, log, program=self._program)

    def _go(self, children: Sequence[Child], load: Load) -> CpuUse:
        """Have the load begin, and wait until it is over; what was used in the measured part."""
        measured = _send_on(children) + load.warmup
        if load.arrivals == "closed":  # it has warmed up when every caller has had an answer
            measured = _send_on(children)
        _sleep_until(measured)
        self._meter.start()
        _sleep_until(measured + load.duration)
        return self._meter.stop()

    def _measurement(
        self, loads: Sequence[Load], found: Sequence[Found], latencies: Sequence[bytes], cpu: CpuUse
    ) -> Measurement:
        if not sum(each.answered for each in found):
            errors = {what: count for each in found for what, count in each.errors.items()}
            raise ChildError(f"no call of the {self._name} client was answered: {errors}")
        resident, _ = self._meter.resident()
        samples = [
            each.samples(
                data,
                CpuUse(cpu.server, each.cpu_seconds, max(0.0, cpu.others - each.cpu_seconds)),
                load.rate,
                resident,
            )
            for load, each, data in zip(loads, found, latencies, strict=True)
        ]
        return msgspec.structs.replace(merge(samples), histogram=encode(counted(samples)))


def _send_on(children: Sequence[Child]) -> float:
    """Wait until all of them wait, and have them go on at one time, which it gives: of the same clock."""
    for child in children:
        child.receive(Ready, _READY_SECONDS)
    at = time.monotonic() + AHEAD
    for child in children:
        child.send(at)
    return at


def _sleep_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
