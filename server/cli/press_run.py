"""One run of ``tensorwire press``: find requests, drive the load processes, tell."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Literal

import msgspec
import typer

from ...bench.press import recorded
from ...bench.press.crew import Press
from ...bench.press.spec import Spec
from ...bench.processes import ChildError
from ...bench.recorder import Measurement
from ...bench.tune.requests import Request as Inputs
from ...client import Client
from ...rpc.errors import RpcError
from ...rpc.types import ModelMetadata
from .common import FAILED, USAGE, connected, fail, print_json
from .press_show import Live, print_summary
from .tensors import expected
from .tune_prepare import Request, prepare_requests

_COMMAND_TIMEOUT: Final = 10.0
_INTERRUPTED: Final = 130


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`.press.press` was asked for. Times are in seconds."""

    address: str
    model: str
    version: int | None
    label: str | None
    arrivals: Literal["closed", "fixed", "poisson"]
    rate: float
    seconds: float
    texts: list[str]
    rows: int | None
    shapes: dict[str, tuple[int, ...]]
    dump: Path | None
    callers: int
    connections: int
    processes: int
    seed: int
    fuse: bool
    timeout: float


def run(pressure: Pressure, *, json: bool) -> None:
    """Do it all; ends the command with its exit status."""
    notes: list[str] = []
    with connected(pressure.address, _COMMAND_TIMEOUT) as client:
        requests, sample = _requests(client, pressure, notes)
    for note in [f"{sample}; {_plan(pressure)}", *notes]:
        typer.echo(note, err=True)
    try:
        notes.clear()
        measured, interrupted = _press(pressure, requests, notes)
    except ChildError as error:
        fail(str(error))
    if measured is None:
        fail("interrupted before anything was measured", _INTERRUPTED)
    if json:
        print_json(
            {**_settings(pressure, sample), "interrupted": interrupted, "notes": notes, **_figures(measured)}
        )
    else:
        print_summary(measured, pressure.rate)
        for note in notes:
            typer.echo(note)
    if measured.errors or not measured.requests:
        raise typer.Exit(FAILED)
    if interrupted:
        raise typer.Exit(_INTERRUPTED)


def _settings(pressure: Pressure, sample: str) -> dict[str, Any]:
    shown = (
        "model",
        "version",
        "label",
        "arrivals",
        "rate",
        "callers",
        "connections",
        "processes",
        "timeout",
    )
    return {"server": pressure.address, "sample": sample, **{name: getattr(pressure, name) for name in shown}}


def _figures(measured: Measurement) -> dict[str, Any]:
    """Without what is not seen from here: the server's side."""
    hidden = ("server_cpu_per_request", "server_rss", "histogram", "slow")
    return {name: value for name, value in msgspec.to_builtins(measured).items() if name not in hidden}


def _plan(pressure: Pressure) -> str:
    callers = f"{pressure.callers} in flight"
    if pressure.arrivals == "closed":
        return f"{callers} for {pressure.seconds:g} s"
    return f"{pressure.rate:,.6g} {pressure.arrivals} calls/s for {pressure.seconds:g} s, {callers} at most"


def _requests(client: Client, pressure: Pressure, notes: list[str]) -> tuple[list[Inputs], str]:
    """What is sent: the model has been seen to answer the first of them."""
    metadata = client.metadata(pressure.model, version=pressure.version, label=pressure.label)
    if pressure.dump is not None:
        return _recorded(client, pressure, pressure.dump, metadata)
    names = [spec.name for spec in metadata.inputs]
    for name in pressure.shapes:
        if name not in names:
            fail(f"--shape: no input {name!r}; {expected(metadata.inputs)}", USAGE)
    request = Request(
        model=pressure.model,
        version=pressure.version,
        label=pressure.label,
        texts=pressure.texts,
        rows=pressure.rows,
        shapes=pressure.shapes,
        hint="--shape sets them, --input and --dump take real requests",
    )
    return prepare_requests(client, metadata, request, notes)


def _recorded(
    client: Client, pressure: Pressure, path: Path, metadata: ModelMetadata
) -> tuple[list[Inputs], str]:
    try:
        requests = recorded.read(path)
    except (OSError, ValueError) as error:
        fail(f"--dump: {path}: {error}", USAGE)
    try:
        client.predict(pressure.model, requests[0], version=pressure.version, label=pressure.label)
    except RpcError as error:
        fail(f"the model does not answer the first request of {path}: {error}; {expected(metadata.inputs)}")
    count = f"{len(requests)} requests" if len(requests) > 1 else "one request"
    return requests, f"{count} of {path}, in turn"


def _press(pressure: Pressure, requests: list[Inputs], notes: list[str]) -> tuple[Measurement | None, bool]:
    spec = Spec(
        address=pressure.address,
        model=pressure.model,
        requests="",
        duration=pressure.seconds,
        version=pressure.version,
        label=pressure.label,
        timeout=pressure.timeout,
        connections=pressure.connections,
        fuse=pressure.fuse,
        callers=pressure.callers,
        arrivals=pressure.arrivals,
        rate=pressure.rate,
        seed=pressure.seed,
    )
    with Press(spec, requests, pressure.processes) as press, _ended_by_signal(press) as ended:
        try:
            live = Live(pressure.rate)
            for second in press.run():
                live.show(second)
        except KeyboardInterrupt:  # the second one: without the answers that are still to come
            pass
        if press.unanswered:
            notes.append(f"{press.unanswered:,} calls were still in flight, and are in no figure")
        return press.measurement(), bool(ended)


@contextmanager
def _ended_by_signal(press: Press) -> Generator[list[int]]:
    """Ctrl-C and SIGTERM end the load, and once more the wait for the calls in flight. Gives what came."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        press.stop()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
