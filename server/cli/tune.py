"""``tensorwire tune``: measure settings of a model on a live server, and recommend some."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_P99 = Annotated[str, typer.Option("--p99", metavar="DURATION", help="The objective: 20ms, 0.02s or 0.02.")]
_Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="NAME=VALUE", help="What to send, as for `tensorwire predict`. Repeatable."
    ),
]
_Sample = Annotated[
    list[str] | None,
    typer.Option("--sample", metavar="NAME=@FILE", help="The same for files: x=@inputs.npy. Repeatable."),
]
_Rows = Annotated[
    int | None,
    typer.Option(min=1, help="Cut the sample into requests of so many rows; without it, it is one request."),
]
_Callers = Annotated[
    str | None,
    typer.Option(
        help="Numbers of callers, such as 1,8,64. Default: doubled while it helps.", show_default=False
    ),
]
_Kinds = Annotated[str | None, typer.Option(help="Such as thread,process.", show_default="both")]
_Counts = Annotated[
    str | None, typer.Option(help="Such as 1,2,4.", show_default="doubling to twice the server's cores")
]
_Batches = Annotated[
    str | None, typer.Option(help="Such as 1,8,32.", show_default="powers of two that the warm-up covered")
]
_Delays = Annotated[str | None, typer.Option(help="Such as 0,2ms.", show_default="0,1ms,2ms")]
_Seconds = Annotated[str, typer.Option(metavar="DURATION", help="One measurement.")]
_Budget = Annotated[str, typer.Option(metavar="DURATION", help="All of it; the search is cut to it.")]
_FullGrid = Annotated[bool, typer.Option("--full-grid", help="All combinations, near ones first.")]
_Processes = Annotated[int | None, typer.Option(min=1, help="Processes that make the load.")]
_Out = Annotated[Path | None, typer.Option(metavar="DIR", help="tune.json, tune.png, tune.svg, model.toml.")]
_Apply = Annotated[bool, typer.Option("--apply", help="Leave the recommended settings in force.")]
_Write = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Lay the recommended settings into this model.toml, after a backup."),
]
_Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds that settings have to take effect.")]


def tune(
    ctx: typer.Context,
    model: _Model,
    p99: _P99 = "20ms",
    inputs: _Inputs = None,
    sample: _Sample = None,
    rows: _Rows = None,
    callers: _Callers = None,
    kinds: _Kinds = None,
    counts: _Counts = None,
    batch_sizes: _Batches = None,
    delays: _Delays = None,
    seconds: _Seconds = "2s",
    budget: _Budget = "180s",
    full_grid: _FullGrid = False,
    version: VersionOption = None,
    label: LabelOption = None,
    processes: _Processes = None,
    out: _Out = None,
    apply: _Apply = False,
    write: _Write = None,
    timeout: _Timeout = 120.0,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Find the workers and batching that serve a model best, on the live server. Puts them back at the end.

    Exit status 1 also if no settings meet the objective.
    """
    from ...bench.tune.points import KINDS
    from ...bench.tune.session import Plan
    from .tune_prepare import Request, Wanted
    from .tune_run import Run

    plan = Plan(
        objective=_duration("--p99", p99),
        callers=tuple(sorted(set(_integers("--callers", callers) or ()))),
        seconds=_duration("--seconds", seconds),
        budget=_duration("--budget", budget),
        full_grid=full_grid,
    )
    if not plan.objective or not plan.seconds or plan.budget < plan.seconds:
        fail("--p99 and --seconds must be more than 0, and --budget no less than --seconds", USAGE)
    wanted_kinds = _split(kinds)
    if wanted_kinds is not None and not set(wanted_kinds) <= set(KINDS):
        fail(f"--kinds: found {kinds!r}; expected {','.join(KINDS)}, or one of them", USAGE)
    if write is not None and not write.is_file():
        fail(f"--write: no such file: {write}; without it, --out has a model.toml of its own", USAGE)
    wanted = Wanted(
        kinds=wanted_kinds,
        counts=_integers("--counts", counts),
        batches=_integers("--batch-sizes", batch_sizes),
        delays=None if delays is None else [_duration("--delays", text) for text in _split(delays) or ()],
    )
    request = Request(
        model=model,
        version=version,
        label=label,
        texts=[*(inputs or ()), *map(_sample_text, sample or ())],
        rows=rows,
    )
    Run(
        server_address(ctx, server),
        request,
        plan,
        wanted,
        processes=processes,
        timeout=timeout,
        out=out,
        apply=apply,
        write=write,
        json=json,
    ).run()


def _split(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [part.strip() for part in text.split(",") if part.strip()]


def _duration(option: str, text: str) -> float:
    from ...bench.tune.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        fail(f"{option}: {error}", USAGE)


def _integers(option: str, text: str | None) -> list[int] | None:
    parts = _split(text)
    if parts is None:
        return None
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        fail(f"{option}: found {text!r}; expected numbers from 1, such as 1,2,4", USAGE)
    return [int(part) for part in parts]


def _sample_text(text: str) -> str:
    """``x=@inputs.npy``, which `predict` would take for text, as it writes it."""
    name, equals, value = text.partition("=")
    if equals and value.startswith("@"):
        path = value[1:]
        if not Path(path).is_file():
            fail(f"--sample: no such file: {path}", USAGE)
        return f"{name}={path}"
    return text.removeprefix("@")
