"""``tensorwire`` commands within the test's process, and their tables."""

from __future__ import annotations

from tensorwire.server.cli.app import app
from typer.testing import CliRunner


def run_command(*arguments: object, status: int = 0, **environment: str) -> str:
    """Run a command and see that it exits as expected; its output."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", **environment})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    return result.output


def row(output: str, *cells: str) -> str:
    """The line of a table that begins with these cells."""
    (found,) = [line for line in output.splitlines() if line.split()[: len(cells)] == list(cells)]
    return found
