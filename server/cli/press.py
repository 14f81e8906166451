"""``tensorwire press``: call a model at a rate and tell how it bears it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    USAGE,
    JsonOption,
    LabelOption,
    ServerOption,
    VersionOption,
    fail,
    server_address,
)

if TYPE_CHECKING:
    pass

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_Rate = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="Calls a second, whatever becomes of them; latency counts from when a call was due. Without it "
        "every caller calls again as soon as it is answered.",
        show_default=False,
    ),
]
_For = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long: 30s, 500ms, 5min.")]
_Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="What to send, as for `tensorwire predict`; FILE.npz holds all inputs. Repeatable.",
    ),
]
_Rows = Annotated[
    int | None, typer.Option(min=1, help="Cut --input into requests of so many rows, or make up so many.")
]
_Shape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=DIMS", help="Shape of an input that is made up: x=1,3,224,224. Repeatable."),
]
_Dump = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Send the requests that `tensorwire predict --record FILE` recorded."),
]
_Callers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Calls in flight; with --rate the most of them: others that are due wait, and their clock runs.",
        show_default="16; 1024 with --rate",
    ),
]
_Connections = Annotated[int, typer.Option(min=1, help="Connections of each load process.")]
_Processes = Annotated[int, typer.Option(min=1, help="Processes that make the load.")]
_Poisson = Annotated[bool, typer.Option("--poisson", help="Calls arrive at random instead of evenly.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of --poisson; the same one repeats the same arrivals.")]
_Fuse = Annotated[bool, typer.Option("--fuse/--no-fuse", help="Whether calls may share messages.")]
_Timeout = Annotated[str, typer.Option(metavar="DURATION", help="What each call may take, once it is sent.")]

_CLOSED_CALLERS = 16
_OPEN_CALLERS = 1024


def press(
    ctx: typer.Context,
    model: _Model,
    rate: _Rate = None,
    for_: _For = "10s",
    inputs: _Inputs = None,
    rows: _Rows = None,
    shape: _Shape = None,
    dump: _Dump = None,
    callers: _Callers = None,
    connections: _Connections = 1,
    processes: _Processes = 1,
    poisson: _Poisson = False,
    seed: _Seed = 0,
    fuse: _Fuse = True,
    timeout: _Timeout = "1s",
    version: VersionOption = None,
    label: LabelOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Call a model at a rate and show, each second and at the end, how it bears it. Ctrl-C ends it early.

    Exit status 1 if a call failed, 130 after Ctrl-C.
    """
    from .press_run import Pressure, run

    if poisson and rate is None:
        fail("--poisson needs --rate: how many calls arrive in a second", USAGE)
    if dump is not None and (inputs or rows or shape):
        fail("--dump has whole requests: --input, --rows and --shape have no meaning beside it", USAGE)
    if shape and inputs:
        fail("--shape is for inputs that are made up, and --input gives them", USAGE)
    pressure = Pressure(
        address=server_address(ctx, server),
        model=model,
        version=version,
        label=label,
        arrivals="closed" if rate is None else "poisson" if poisson else "fixed",
        rate=rate or 0.0,
        seconds=_duration("--for", for_),
        texts=inputs or [],
        rows=rows,
        shapes=dict(map(_named_shape, shape or ())),
        dump=dump,
        callers=callers or (_CLOSED_CALLERS if rate is None else _OPEN_CALLERS),
        connections=connections,
        processes=processes,
        seed=seed,
        fuse=fuse,
        timeout=_duration("--timeout", timeout),
    )
    run(pressure, json=json)


def _duration(option: str, text: str) -> float:
    from ...bench.tune.durations import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        fail(f"{option}: {error}", USAGE)
    if not seconds:
        fail(f"{option}: found {text!r}; expected more than 0", USAGE)
    return seconds


def _named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, dims = text.partition("=")
    parts = [part.strip() for part in dims.split(",")]
    if not name or not equals or not all(part.isascii() and part.isdigit() for part in parts):
        fail(f"--shape: found {text!r}; expected NAME=DIMS such as x=1,3,224,224", USAGE)
    return name, tuple(map(int, parts))
