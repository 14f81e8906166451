"""``tensorwire serve``."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import USAGE, fail, print_json


def _flag(*names: str, help: str, **options: Any) -> Any:
    """An option that goes before the configuration file."""
    return typer.Option(
        *names, help=help, rich_help_panel="Settings (stronger than the configuration file)", **options
    )


_Repository = Annotated[
    Path | None,
    typer.Argument(
        metavar="REPO",
        help="Model repository: REPO/MODEL/VERSION/model.onnx. May be in the configuration instead.",
        show_default=False,
    ),
]
_Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="server.toml; read again when it changes."),
]
_ReadyFile = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Written when all models serve or failed; holds the address."),
]
_Check = Annotated[bool, typer.Option("--check", help="Check the configuration, print it, and exit.")]
_Bind = Annotated[
    str | None, _flag(metavar="ADDRESS", help="tcp://HOST:PORT or ipc://PATH; default tcp://127.0.0.1:8700.")
]
_FrontEnds = Annotated[
    int | None, _flag(metavar="N", help="Processes that accept clients at the address; default 1.")
]
_Grace = Annotated[
    float | None, _flag(help="Seconds that requests in flight have when the server stops; default 10.")
]
_RamBudget = Annotated[
    str | None, _flag(metavar="SIZE", help="Memory for all models, such as 4GiB; default none.")
]
_PollInterval = Annotated[float | None, _flag(help="Seconds between two looks at the repository; default 1.")]
_SettleTime = Annotated[
    float | None, _flag(help="Seconds without a change before a version is loaded; default 2.")
]
_LoadThreads = Annotated[int | None, _flag(help="Versions that load at the same time; default 4.")]
_LogLevel = Annotated[str | None, _flag(metavar="LEVEL", help="debug, info, warning or error; default info.")]
_Set = Annotated[
    list[str] | None,
    _flag("--set", metavar="SECTION.KEY=VALUE", help="Any key of the configuration; repeatable."),
]


def serve(
    repository: _Repository = None,
    config: _Config = None,
    ready_file: _ReadyFile = None,
    check: _Check = False,
    bind: _Bind = None,
    front_ends: _FrontEnds = None,
    grace: _Grace = None,
    ram_budget: _RamBudget = None,
    poll_interval: _PollInterval = None,
    settle_time: _SettleTime = None,
    load_threads: _LoadThreads = None,
    log_level: _LogLevel = None,
    assignments: _Set = None,
) -> None:
    """Serve a model repository until SIGTERM or Ctrl-C. SIGHUP reads the configuration again."""
    flags: dict[str, tuple[str, object]] = {
        "manager.repository": ("REPO", repository),
        "serving.bind": ("--bind", bind),
        "serving.front_ends": ("--front-ends", front_ends),
        "serving.grace": ("--grace", grace),
        "manager.ram_budget": ("--ram-budget", ram_budget),
        "manager.poll_interval": ("--poll-interval", poll_interval),
        "manager.settle_time": ("--settle-time", settle_time),
        "manager.load_threads": ("--load-threads", load_threads),
        "log.level": ("--log-level", log_level),
    }
    _run(config, flags, assignments or [], ready_file, check)


def _run(
    config: Path | None,
    flags: dict[str, tuple[str, object]],
    assignments: list[str],
    ready_file: Path | None,
    check: bool,
) -> None:
    from ...rpc.errors import RpcError
    from ..logs import set_up_logging
    from ..serve import Service
    from ..settings import Override, Settings, assignment, flat, load_settings

    def load() -> Settings:
        overrides = [Override(key, value, flag) for key, (flag, value) in flags.items() if value is not None]
        return load_settings(config, [*map(assignment, assignments), *overrides])

    try:
        if check:
            values = flat(load())
            print_json(
                {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
            )
            return
        set_up_logging()
        status = Service(load, config_path=config, ready_file=ready_file).run()
    except RpcError as error:
        fail(error.message, USAGE)
    _exit(status)


def _exit(status: int) -> None:
    """End the process, also with threads left inside an engine, over which the interpreter's end can trip."""
    own = threading.current_thread()
    left = [thread for thread in threading.enumerate() if thread is not own]
    if all(type(thread).__name__ == "GarbageCollectorThread" for thread in left):  # pyzmq's, harmless
        raise typer.Exit(status)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
