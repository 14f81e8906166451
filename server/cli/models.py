"""``tensorwire models``: what is served, and the operator's commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    USAGE,
    JsonOption,
    LabelOption,
    ServerOption,
    TimeoutOption,
    VersionOption,
    connected,
    fail,
    print_json,
    print_table,
    server_address,
    table,
)

if TYPE_CHECKING:
    from ...client import Client
    from ...rpc.types import ModelMetadata, TensorSpec, VersionStatus
    from .waiting import Verdict

app = typer.Typer(
    help="List the models of a server; load, unload, label and route their versions.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_OptionalVersion = Annotated[
    int | None, typer.Argument(metavar="VERSION", min=0, help="Version number.", show_default=False)
]
_NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once the server has taken the command.")]
_WaitTimeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for the effect.")]
#: Seconds that the server has for taking a command in.
_COMMAND_TIMEOUT = 10.0


@app.callback(invoke_without_command=True)
def models(
    ctx: typer.Context, server: ServerOption = None, json: JsonOption = False, timeout: TimeoutOption = 5.0
) -> None:
    """List the models of a server; load, unload, label and route their versions."""
    ctx.obj = server
    if ctx.invoked_subcommand is None:
        with connected(server_address(ctx, server), timeout) as client:
            rows = client.status()
        print_json(rows) if json else _print_rows(rows)


@app.command()
def show(
    ctx: typer.Context,
    model: _Model,
    version: VersionOption = None,
    label: LabelOption = None,
    server: ServerOption = None,
    json: JsonOption = False,
    timeout: TimeoutOption = 5.0,
) -> None:
    """Show a model's inputs and outputs, with dtypes and shapes."""
    with connected(server_address(ctx, server), timeout) as client:
        metadata = client.metadata(model, version=version, label=label)
    print_json(metadata) if json else _print_metadata(metadata)


@app.command()
def load(
    ctx: typer.Context,
    model: _Model,
    version: _OptionalVersion = None,
    no_wait: _NoWait = False,
    timeout: _WaitTimeout = 300.0,
    server: ServerOption = None,
) -> None:
    """Load a version, again if it failed or its files changed; without VERSION: what model.toml says."""
    from .waiting import loaded

    def verdict(rows: Sequence[VersionStatus]) -> Verdict:
        return loaded(rows, version)

    _command(ctx, server, "load", {"model": model, "version": version}, None if no_wait else verdict, timeout)


@app.command()
def unload(
    ctx: typer.Context,
    model: _Model,
    version: _OptionalVersion = None,
    no_wait: _NoWait = False,
    timeout: _WaitTimeout = 300.0,
    server: ServerOption = None,
) -> None:
    """Unload a version, or the whole model, until it is loaded by hand. Running requests finish first."""
    from .waiting import unloaded

    params = {"model": model, "version": version}
    _command(ctx, server, "unload", params, None if no_wait else lambda _: unloaded(version), timeout)


@app.command()
def label(
    ctx: typer.Context,
    model: _Model,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="Such as stable.", show_default=False)],
    version: _OptionalVersion = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label.")] = False,
    no_wait: _NoWait = False,
    timeout: _WaitTimeout = 300.0,
    server: ServerOption = None,
) -> None:
    """Point a label at a version. It moves, in one step, when that version serves."""
    from .waiting import labelled

    if remove == (version is not None):
        fail("give either the VERSION that the label is to point at, or --remove", USAGE)
    params = {"model": model, "label": label, "version": version}
    _command(ctx, server, "label", params, None if no_wait else lambda _: labelled(label, version), timeout)


@app.command()
def route(
    ctx: typer.Context,
    model: _Model,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET=WEIGHT", help="Label or version, and its share.", show_default=False),
    ] = None,
    sticky: Annotated[bool, typer.Option("--sticky", help="Same routing key, same target.")] = False,
    shadow: Annotated[str | None, typer.Option(help="Label or version that gets copies of requests.")] = None,
    shadow_fraction: Annotated[float, typer.Option(help="The share that is copied, up to 1.")] = 1.0,
    clear: Annotated[bool, typer.Option("--clear", help="No route any more.")] = False,
    no_wait: _NoWait = False,
    timeout: _WaitTimeout = 300.0,
    server: ServerOption = None,
) -> None:
    """Split requests that name neither version nor label: `route ranker stable=0.95 canary=0.05`."""
    from .waiting import settled

    if clear == bool(targets):
        fail("give either TARGET=WEIGHT, such as stable=0.9 canary=0.1, or --clear", USAGE)
    made: dict[str, Any] | None = None
    if targets:
        made = {"targets": dict(map(_target, targets)), "sticky": sticky, "shadow": shadow}
        made["shadow_fraction"] = shadow_fraction
    params = {"model": model, "route": made}
    _command(ctx, server, "route", params, None if no_wait else lambda _: settled, timeout)


@app.command()
def rescan(
    ctx: typer.Context, no_wait: _NoWait = False, timeout: _WaitTimeout = 300.0, server: ServerOption = None
) -> None:
    """Look at the repository now, and wait until what is new serves or has failed."""
    from .waiting import settled

    _command(ctx, server, "rescan", {}, None if no_wait else lambda _: settled, timeout)


def _command(
    ctx: typer.Context,
    server: str | None,
    method: str,
    params: dict[str, Any],
    verdict: Callable[[Sequence[VersionStatus]], Verdict] | None,
    timeout: float,
) -> None:
    """Give a command; wait for its effect where there is a ``verdict`` (made from the status before)."""
    model: str | None = params.get("model")
    with connected(server_address(ctx, server), _COMMAND_TIMEOUT) as client:
        before = _status(client, model)
        client.control(f"models.{method}", params)
        if verdict is None:
            typer.echo("taken in by the server; `tensorwire models` shows what becomes of it")
            return
        from .waiting import wait_for

        waited = wait_for(client, model, verdict(before), timeout)
    _print_rows(waited.rows)
    if waited.problem:
        fail(waited.problem)


def _status(client: Client, model: str | None) -> Sequence[VersionStatus]:
    from ...rpc.errors import NotFoundError

    try:
        return client.status(model)
    except NotFoundError:
        return ()


def _target(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError:
        fail(f"{text!r}: expected TARGET=WEIGHT, such as stable=0.9", USAGE)


def _print_rows(rows: Sequence[VersionStatus]) -> None:
    from rich.text import Text

    from ...manager.budget import format_bytes

    if not rows:
        typer.echo("no versions are served or on their way")
        return
    shown = table(
        "model",
        "version",
        "state",
        "default",
        "labels",
        "workers",
        "memory",
        "reason",
        right=("version", "workers", "memory"),
    )
    colours = {"AVAILABLE": "green", "FAILED": "red"}
    for row in rows:
        shown.add_row(
            row.model,
            str(row.version) if row.version >= 0 else "-",
            Text(row.state, style=colours.get(row.state, "yellow")),
            "yes" if row.default else "",
            ", ".join(row.labels),
            str(row.workers or "-"),
            format_bytes(row.ram_bytes) if row.ram_bytes else "-",
            row.reason,
        )
    print_table(shown)


def _print_metadata(metadata: ModelMetadata) -> None:
    batches = f"up to {metadata.max_batch_size} rows" if metadata.batched else "no, each request runs alone"
    typer.echo(f"{metadata.name} version {metadata.version}, {metadata.platform}, batches: {batches}")
    if metadata.description:
        typer.echo(metadata.description)
    shown = table("", "name", "dtype", "shape")
    for kind, specs in (("input", metadata.inputs), ("output", metadata.outputs)):
        for spec in specs:
            shown.add_row(kind, spec.name, spec.dtype, _shape(spec) + (" optional" if spec.optional else ""))
    print_table(shown)


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"
