"""The commands of ``tensorwire``, put together. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from . import bench, models, predict, press, serve, status, tune, tuning

app = typer.Typer(
    name="tensorwire",
    help="Serve models over ZeroMQ, deploy them, call them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: Commands that have their own parser: everything behind their name is theirs.
_FORWARDED: Final[dict[str, Any]] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
}


def _print_version(value: bool) -> None:
    if value:
        from ..version import VERSION

        typer.echo(f"tensorwire {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve models over ZeroMQ, deploy them, call them."""
    del version


app.command("serve")(serve.serve)
app.add_typer(models.app, name="models")
app.command("workers")(tuning.workers)
app.command("settings")(tuning.settings)
app.command("tune")(tune.tune)
app.command("predict")(predict.predict)
app.command("press")(press.press)
app.command("status")(status.status)
app.command("health")(status.health)
app.add_typer(bench.app, name="bench")


@app.command("demo", **_FORWARDED)
def demo(ctx: typer.Context) -> None:
    """Serve a small model here and call it."""
    from .demo import demo as command

    inner = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    inner.command()(command)
    inner(args=ctx.args, prog_name="tensorwire demo")
