"""What the commands share: options, the connection to a server, how errors are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ...client import Client

DEFAULT_SERVER: Final = "tcp://127.0.0.1:8700"
SERVER_VARIABLE: Final = "TENSORWIRE_SERVER"

#: Exit status: the server or a model said no, or it took too long.
FAILED: Final = 1
#: Exit status: the command line or the configuration is wrong; nothing was tried.
USAGE: Final = 2

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        "-s",
        metavar="ADDRESS",
        help=f"Where the server listens. Default: ${SERVER_VARIABLE}, else {DEFAULT_SERVER}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for an answer.")]
VersionOption = Annotated[int | None, typer.Option("--version", min=0, help="This version.")]
LabelOption = Annotated[str | None, typer.Option("--label", help="The version that this label points at.")]


def server_address(ctx: typer.Context, option: str | None) -> str:
    """The address to use: the command's own flag, that of the group, the environment, the default."""
    group: object = ctx.obj
    return (
        option
        or (group if isinstance(group, str) else "")
        or os.environ.get(SERVER_VARIABLE)
        or DEFAULT_SERVER
    )


def fail(message: str, status: int = FAILED) -> NoReturn:
    """Print an error and end the command."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status)


@contextmanager
def connected(address: str, timeout: float | None) -> Generator[Client]:
    """A client for the time of a command; errors of its calls end the command with one line."""
    from ...client import Client
    from ...rpc.errors import RpcError, UnavailableError

    try:
        with Client(address, timeout=timeout) as client:
            yield client
    except UnavailableError as error:
        hint = "" if address in error.message else f" (server {address})"
        fail(f"{error}{hint}; --server or {SERVER_VARIABLE} names another one")
    except RpcError as error:
        fail(str(error))


def print_table(shown: Table) -> None:
    """Print a table: as wide as the terminal, or unlimited where a file or a pipe reads it."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    # No markup and no emoji: names and reasons are other people's texts.
    console = Console(width=None if terminal else 100_000, markup=False, emoji=False, highlight=False)
    if terminal:
        console.print(shown)
        return
    with console.capture() as capture:
        console.print(shown)
    for line in capture.get().splitlines():
        if line.strip():
            typer.echo(line.rstrip())


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns in ``right`` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
