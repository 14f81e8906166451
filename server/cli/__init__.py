"""The command ``tensorwire``."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Entry point. Needs typer and rich, which the thin client does without."""
    for package in ("typer", "rich"):
        if find_spec(package) is None:
            sys.exit(f"tensorwire: the command line needs {package}: pip install 'tensorwire[server]'")
    from .app import app

    app(prog_name="tensorwire")
