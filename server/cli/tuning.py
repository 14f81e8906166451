"""``tensorwire workers`` and ``tensorwire settings``: see and change how a model is run while it is."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .common import (
    USAGE,
    JsonOption,
    ServerOption,
    connected,
    fail,
    print_json,
    print_table,
    server_address,
    table,
)

if TYPE_CHECKING:
    from ...client import Client
    from ...manager.in_force import ModelSettings, Setting
    from .waiting import Look, Verdict

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]
_Reset = Annotated[bool, typer.Option("--reset", help="Back to what model.toml says.")]
_NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once the server has taken the command.")]
_WaitTimeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to wait for the effect.")]
#: Seconds that the server has for taking a command in.
_COMMAND_TIMEOUT: Final = 10.0
_SECTIONS: Final = ("workers", "batching", "limits", "engine")


def workers(
    ctx: typer.Context,
    model: _Model,
    count: Annotated[int | None, typer.Option("--count", "-n", help="So many workers.")] = None,
    kind: Annotated[str | None, typer.Option(help="thread or process.")] = None,
    cpus: Annotated[str | None, typer.Option(help="Cores that they may use, such as 0-3,6.")] = None,
    device: Annotated[str | None, typer.Option(help="GPUs that processes take in turn, such as 0,1.")] = None,
    hang_timeout: Annotated[
        float | None, typer.Option(help="Seconds with one batch after which a process is replaced; 0: never.")
    ] = None,
    reset: _Reset = False,
    no_wait: _NoWait = False,
    timeout: _WaitTimeout = 300.0,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show or change the workers of a model that serves, until the server stops."""
    given = {"count": count, "kind": kind, "cpus": cpus, "device": device, "hang_timeout": hang_timeout}
    values = {f"workers.{name}": _or_none(value) for name, value in given.items() if value is not None}
    if values and reset:
        fail("give either new values, such as --count 4, or --reset", USAGE)
    command = _Command(model, values, ("workers",) if reset else (), None if no_wait else timeout)
    found = command.run(server_address(ctx, server), quiet=json)
    if json:
        print_json(found)
    elif not command.changes:
        _print_settings(found, ("workers",))
        _print_workers(found)


def settings(
    ctx: typer.Context,
    model: _Model,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE ...]",
            help="Keys of model.toml with new values; with --reset: keys, or sections.",
            show_default=False,
        ),
    ] = None,
    reset: _Reset = False,
    no_wait: _NoWait = False,
    timeout: _WaitTimeout = 300.0,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show or change how a model that serves is run: `settings ranker batching.max_batch_size=64`."""
    values = {} if reset else dict(map(_assignment, what or ()))
    names = tuple(what or _SECTIONS) if reset else ()
    if any("=" in name for name in names):
        fail("--reset takes keys without values, such as workers.count, or none for all of them", USAGE)
    command = _Command(model, values, names, None if no_wait else timeout)
    found = command.run(server_address(ctx, server), quiet=json)
    if json:
        print_json(found)
    elif not command.changes:
        _print_settings(found, _SECTIONS)
        _print_reasons(found)


class _Command:
    """Reads the settings of a model, and changes them where there is something to change.

    ``timeout``: seconds to wait for the effect; None: do not.
    """

    def __init__(
        self, model: str, values: Mapping[str, Any], reset: Sequence[str], timeout: float | None
    ) -> None:
        self._model = model
        self._values = values
        self._reset = reset
        self._timeout = timeout

    @property
    def changes(self) -> bool:
        """There is something to change."""
        return bool(self._values or self._reset)

    def run(self, address: str, *, quiet: bool) -> ModelSettings:
        """Do it; the settings at the end. Tells what has changed, and when, unless ``quiet``."""
        with connected(address, _COMMAND_TIMEOUT) as client:
            before = ask(client, self._model)
            if not self.changes:
                return before
            begun = time.monotonic()
            client.control(
                "models.set", {"model": self._model, "values": self._values, "reset": list(self._reset)}
            )
            problem = "" if self._timeout is None else self._wait(client, before, self._timeout)
            after = ask(client, self._model)
            seconds = time.monotonic() - begun
        if not quiet:
            self._tell(before, after)
        if problem:
            fail(problem)
        if not quiet and self._changed(before):
            self._tell_when(after, seconds)
        return after

    def _wait(self, client: Client, before: ModelSettings, timeout: float) -> str:
        from .waiting import wait_for

        return wait_for(client, self._model, followed(client, before), timeout).problem

    def _tell(self, before: ModelSettings, after: ModelSettings) -> None:
        changed = self._changed(before)
        for setting in after.settings:
            if setting.key in changed:
                old = next(other for other in before.settings if other.key == setting.key)
                typer.echo(f"{setting.key}: {_in_force(before, old)} -> {_in_force(after, setting)}")
        if not changed:
            typer.echo("nothing was set live")

    def _changed(self, before: ModelSettings) -> set[str]:
        """The keys that this command is about."""
        live = {setting.key for setting in before.settings if setting.origin == "live"}
        return {*self._values, *(key for key in live if {key, key.partition(".")[0]} & {*self._reset})}

    def _tell_when(self, after: ModelSettings, seconds: float) -> None:
        serving = [str(version.version) for version in after.versions if version.values]
        if self._timeout is None:
            typer.echo(
                f"taken in by the server; `tensorwire settings {self._model}` shows what becomes of it"
            )
        elif serving:
            plural = "s" if len(serving) > 1 else ""
            typer.echo(f"in force after {seconds:.2g} s, in version{plural} {', '.join(serving)}")
        else:
            typer.echo("no version serves; it holds from the next load on")


def followed(client: Client, before: ModelSettings) -> Verdict:
    """Every version that serves, or did, runs with what is wanted, or will not."""
    known = {(version.version, version.reason) for version in before.versions if version.failed}
    # They may wait for ever, for their files or for memory; what is wanted holds when they load.
    not_there = {version.version for version in before.versions if version.pending and not version.values}

    def verdict(seen: Look) -> str | None:
        del seen
        found = ask(client, before.model)
        for version in found.versions:
            count = version.values.get("workers.count")
            # Those that are too many leave when they have finished their batch.
            leaving = count is not None and version.workers not in (None, count)
            if leaving or (version.pending and version.version not in not_there):
                return None
        failed = [v for v in found.versions if v.failed and (v.version, v.reason) not in known]
        return "; ".join(f"{found.model}:{v.version} {v.state} ({v.reason})" for v in failed)

    return verdict


def ask(client: Client, model: str) -> ModelSettings:
    """The settings of a model at this moment."""
    import msgspec

    from ...manager.in_force import ModelSettings

    return msgspec.convert(client.control("models.settings", {"model": model}), ModelSettings)


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        fail(f"{text!r}: expected KEY=VALUE, such as workers.count=4", USAGE)
    from ..settings import toml_value

    key = key.strip()
    # A single core or GPU would be taken for a number.
    return key, _or_none(value if key in ("workers.cpus", "workers.device") else toml_value(value))


def _or_none(value: object) -> object:
    """``none`` is for a key what leaving it out of model.toml is."""
    return None if value == "none" else value


def _text(value: object) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_force(found: ModelSettings, setting: Setting) -> str:
    """The value that versions run with, and what is wanted instead."""
    wanted = _text(setting.value)
    values = {
        version.version: _text(version.values[setting.key]) for version in found.versions if version.values
    }
    if not values:
        return wanted
    different = len(set(values.values())) > 1
    told = ", ".join(f"{value} (version {number})" for number, value in values.items())
    now = told if different else next(iter(values.values()))
    ahead = setting.value is not None and set(values.values()) != {wanted}
    return f"{now}, wanted: {wanted}" if ahead else now


def _print_settings(found: ModelSettings, sections: Collection[str]) -> None:
    shown = table("setting", "in force", "origin", "model.toml", "reload")
    for setting in found.settings:
        if setting.key.partition(".")[0] in sections:
            live = setting.origin == "live"
            file = "" if not live else "-" if setting.file is None else _text(setting.file)
            shown.add_row(
                setting.key, _in_force(found, setting), setting.origin, file, _reload(found, setting)
            )
    print_table(shown)


def _reload(found: ModelSettings, setting: Setting) -> str:
    """When a change is a load; under `resource` the old version goes before it."""
    if setting.reload == "never":
        return "no"
    when = "yes" if setting.reload == "always" else _beyond(found)
    return f"{when}, with a gap" if found.transition == "resource" else when


def _beyond(found: ModelSettings) -> str:
    warm = {(version.warm_rows, version.warm_sizes) for version in found.versions if version.warm_rows}
    if len(warm) != 1:
        return "beyond the warm-up"
    ((rows, sizes),) = warm
    return f"beyond {', '.join(map(str, sizes))}" if sizes else f"above {rows}"


def _print_workers(found: ModelSettings) -> None:
    if not found.versions:
        typer.echo(found.problem or "no version serves")
        return
    shown = table("version", "state", "workers now", "reason", right=("version", "workers now"))
    for version in found.versions:
        now = "-" if version.workers is None else str(version.workers)
        shown.add_row(str(version.version), version.state, now, version.reason)
    print_table(shown)


def _print_reasons(found: ModelSettings) -> None:
    if found.problem and not found.versions:
        typer.echo(found.problem)
    for version in found.versions:
        if version.reason:
            typer.echo(f"{found.model}:{version.version} {version.state}: {version.reason}")
