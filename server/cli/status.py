"""``tensorwire status`` and ``tensorwire health``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from .common import (
    FAILED,
    SERVER_VARIABLE,
    JsonOption,
    ServerOption,
    fail,
    print_json,
    print_table,
    server_address,
    table,
)
from .waiting import INTERVAL

_Wait = Annotated[bool, typer.Option("--wait", help="Wait until the server is ready.")]
_Timeout = Annotated[
    float, typer.Option("--timeout", min=0.001, help="Seconds to wait: for an answer, with --wait in all.")
]


def status(
    ctx: typer.Context,
    wait: _Wait = False,
    timeout: _Timeout = 5.0,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Show whether a server is ready, and its counters. Exit status 0: ready; 1: not, or no answer."""
    address = server_address(ctx, server)
    health, stats = _look(address, timeout, wait, with_stats=True)
    if json:
        print_json({"server": address, "health": health, "stats": stats})
    else:
        _print_health(address, health)
        _print_stats(stats)
    if not health["ready"]:
        raise typer.Exit(FAILED)


def health(
    ctx: typer.Context,
    wait: _Wait = False,
    timeout: _Timeout = 5.0,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Say in one line whether a server is ready. Exit status 0: ready; 1: not, or no answer."""
    address = server_address(ctx, server)
    found, _ = _look(address, timeout, wait, with_stats=False)
    if json:
        print_json(found)
    else:
        typer.echo(f"{_state(found)}, {len(found['models'])} models serve, {found['in_flight']} in flight")
    if not found["ready"]:
        raise typer.Exit(FAILED)


def _look(
    address: str, timeout: float, wait: bool, *, with_stats: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Health and stats; with ``wait`` as soon as the server is ready, or as they are when time is over."""
    from ...client import Client
    from ...rpc.errors import DeadlineExceededError, RpcError, UnavailableError

    until = time.monotonic() + timeout
    try:
        with Client(address, timeout=min(timeout, 1.0) if wait else timeout) as client:
            while True:
                over = not wait or time.monotonic() >= until - INTERVAL
                try:
                    found: dict[str, Any] = client.control("health")
                    if found["ready"] or over:
                        return found, client.control("stats") if with_stats else {}
                except (UnavailableError, DeadlineExceededError):
                    if over:
                        raise
                time.sleep(INTERVAL)
    except RpcError as error:
        fail(f"{error}; --server or {SERVER_VARIABLE} names another one")


def _state(health: dict[str, Any]) -> str:
    if health["draining"]:
        return "shutting down"
    return "ready" if health["ready"] else "not ready: models are loading"


def _print_health(address: str, health: dict[str, Any]) -> None:
    lines = {
        "state": _state(health),
        "server": f"{health['server']} at {address}, pump {health['pump']}",
        "uptime": f"{health['uptime']:.0f} s",
        "in flight": f"{health['in_flight']} requests",
        "models": ", ".join(health["models"]) or "none",
    }
    for name, value in lines.items():
        typer.echo(f"{name:<10} {value}")


def _print_stats(stats: dict[str, Any]) -> None:
    from ...manager.budget import format_bytes

    memory = stats.get("memory")
    if memory:
        budget = f" of {format_bytes(memory['budget'])}" if memory["budget"] else ", no limit"
        typer.echo(f"{'memory':<10} {format_bytes(memory['used'])} reserved{budget}")
    process = stats.get("process")
    if process:
        resident, used = format_bytes(process["resident"]), format_bytes(process["used"])
        typer.echo(f"{'process':<10} {resident} resident, {used} in use of the heap")
    counters = ", ".join(f"{name} {value}" for name, value in stats["pump"].items() if value)
    typer.echo(f"{'messages':<10} {counters or 'none yet'}")
    for other in stats.get("front_ends", ()):
        counters = ", ".join(f"{name} {value}" for name, value in other["pump"].items() if value)
        typer.echo(f"{'front end':<10} pid {other['process']}, {counters or 'no messages yet'}")
    if not stats["versions"]:
        return
    names = (
        "requests",
        "rows",
        "batches",
        "queued_rows",
        "in_flight",
        "rejected",
        "expired",
        "failed",
        "workers",
        "workers_lost",
    )
    shown = table(
        "model",
        *(name.replace("_", " ") for name in names),
        "ms per batch",
        right=(*(name.replace("_", " ") for name in names), "ms per batch"),
    )
    for version in stats["versions"]:
        batches = version["batches"]
        mean = f"{version['compute_seconds'] / batches * 1e3:.3f}" if batches else "-"
        cells = [str(version[name]) for name in names]
        shown.add_row(f"{version['model']}:{version['version']}", *cells, mean)
    print_table(shown)
