"""The load processes of ``tensorwire press`` as one: what they do each second, and all of it at the end."""

from __future__ import annotations

import pickle
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final

import msgspec
import numpy as np

from ..child import Ready
from ..processes import Child
from ..recorder import CpuUse, Latencies, Measurement, Samples, merge
from ..shares import seed_of, shares
from .spec import Spec, Tick

_READY_SECONDS: Final = 30.0
#: Beyond a second, and beyond the timeout of the last calls.
_PATIENCE: Final = 10.0


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes did since the last one. Latencies are in seconds.

    Attributes:
        number: seconds since the beginning.
        span: seconds that it covers.
        errors: failed calls by code.
        busiest: CPU seconds a second of the process that used the most.
    """

    number: float
    span: float
    latencies: Latencies
    errors: dict[str, int]
    in_flight: int
    busiest: float


class Press:
    """Load processes; a context manager that never leaves them running.

    Args:
        spec: of all processes together; ``requests`` is filled in.
        requests: the inputs of one or more requests.
        processes: never more than there are callers.
    """

    def __init__(self, spec: Spec, requests: Sequence[dict[str, Any]], processes: int) -> None:
        self._spec = spec
        self._requests = list(requests)
        self._processes = min(processes, spec.callers)
        self._stack = ExitStack()
        self._children: list[Child] = []
        self._ticks: list[list[Tick]] = []

    def __enter__(self) -> Press:
        with self._stack:
            folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="tensorwire-press-")))
            path = folder / "requests"
            # Pickled, because arrays of strings have no other form in a file; the folder is nobody else's.
            path.write_bytes(pickle.dumps(self._requests))
            for number, callers in enumerate(shares(self._spec.callers, self._processes)):
                spec = self._part(number, callers, path)
                arguments = ["-m", f"{__package__}.loader", msgspec.json.encode(spec).decode()]
                child = Child(f"load process {number + 1}", arguments, folder / f"{number}.log")
                self._children.append(self._stack.enter_context(child))
            for child in self._children:
                child.receive(Ready, _READY_SECONDS)
            self._stack = self._stack.pop_all()
        self._ticks = [[] for _ in self._children]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _part(self, number: int, callers: int, requests: Path) -> Spec:
        rate = self._spec.rate
        return msgspec.structs.replace(
            self._spec,
            requests=str(requests),
            callers=callers,
            rate=rate / self._processes,
            phase=number / rate if rate else 0.0,
            seed=seed_of(self._spec.seed, number),
        )

    def run(self) -> Generator[Second]:
        """Make the load; what happened, second by second, until all calls have ended.

        Raises:
            ChildError: a process died, or says nothing.
        """
        for child in self._children:
            child.send(None)
        while working := [number for number, ticks in enumerate(self._ticks) if not _ended(ticks)]:
            limit = 1.0 + self._spec.timeout + _PATIENCE
            for number in working:
                self._ticks[number].append(self._children[number].receive(Tick, limit))
            yield self._second(working)

    def stop(self) -> None:
        """End the load early; :meth:`run` goes on until the calls in flight have ended."""
        for child, ticks in zip(self._children, self._ticks, strict=True):
            if not _ended(ticks):
                child.send(None)

    def _second(self, working: list[int]) -> Second:
        last = [self._ticks[number][-1] for number in working]
        before = [self._ticks[number][-2:-1] for number in working]
        errors: dict[str, int] = {}
        for tick, former in zip(last, before, strict=True):
            for code, count in tick.errors.items():
                known = former[0].errors.get(code, 0) if former else 0
                if count > known:
                    errors[code] = errors.get(code, 0) + count - known
        seconds = max(tick.seconds for tick in last)
        return Second(
            number=seconds,
            span=seconds - max((tick[0].seconds for tick in before if tick), default=0.0),
            latencies=np.concatenate([np.frombuffer(tick.fresh, np.float64) for tick in last]),
            errors=errors,
            in_flight=sum(tick.in_flight for tick in last),
            busiest=max(tick.cores for tick in last),
        )

    @property
    def unanswered(self) -> int:
        """Calls in flight when the processes were last heard of; 0 when all have ended."""
        return sum(ticks[-1].in_flight for ticks in self._ticks if ticks)

    def measurement(self) -> Measurement | None:
        """All of it; of a process that has not ended, what it has told so far. None before the first tick."""
        told = [ticks for ticks in self._ticks if ticks]
        if not told:
            return None
        rate = self._spec.rate / self._processes
        return merge([ticks[-1].samples or _so_far(ticks, rate) for ticks in told])


def _ended(ticks: list[Tick]) -> bool:
    return bool(ticks) and ticks[-1].samples is not None


def _so_far(ticks: list[Tick], rate: float) -> Samples:
    """What is known of a process that was ended before its calls were."""
    latencies = b"".join(tick.fresh for tick in ticks)
    answered, last = len(latencies) // np.dtype(np.float64).itemsize, ticks[-1]
    return Samples(
        counted=latencies,
        late=b"",
        errors=last.errors,
        calls=answered + sum(last.errors.values()),
        seconds=last.seconds,
        cpu=CpuUse(0.0, sum(tick.cores for tick in ticks), 0.0),
        answered=answered,
        offered=rate,
    )
