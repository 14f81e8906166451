"""The files that ``tensorwire tune`` writes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from ...bench.tune import toml
from ...bench.tune.plot import NoPlotter, draw
from .common import fail

if TYPE_CHECKING:
    from ...bench.tune.outcome import Outcome
    from ...manager.in_force import ModelSettings


class Files:
    """Args: ``found``: the settings before the sweep; ``quiet``: stdout is for JSON alone."""

    def __init__(self, outcome: Outcome, found: ModelSettings, *, quiet: bool) -> None:
        self._outcome = outcome
        self._found = found
        self._quiet = quiet

    def save(self, folder: Path) -> None:
        """JSON, plot and model.toml into a folder, which is made."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written = self._save(folder)
        except OSError as error:
            fail(f"--out: {folder}: {error.strerror or error}")
        typer.echo(f"written: {', '.join(map(str, written))}", err=self._quiet)

    def _save(self, folder: Path) -> list[Path]:
        written = [folder / "tune.json"]
        written[0].write_bytes(msgspec.json.format(msgspec.json.encode(self._outcome)) + b"\n")
        try:
            written += draw(self._outcome, folder)
        except NoPlotter as error:
            typer.echo(f"no plot, because matplotlib is not installed: {error}", err=True)
        if self._outcome.choice is not None:
            path = folder / "model.toml"
            path.write_text(toml.write(self._outcome, self._values(), self._kept()))
            written.append(path)
        return written

    def merge_into(self, path: Path) -> None:
        """Lay the recommendation into a model.toml that is there; what it was before stays beside it."""
        choice = self._outcome.choice
        if choice is None or not choice.meets:
            typer.echo(f"{path} was left as it is: nothing meets the objective", err=True)
            return
        try:
            merged = toml.merge(path.read_text(), self._values(), toml.comment(self._outcome))
            backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
            shutil.copy2(path, backup)
            # Renamed into place: the server may read it at any moment.
            beside = path.with_name(f".{path.name}.tmp")
            beside.write_text(merged)
            beside.replace(path)
        except toml.CannotMerge as error:
            fail(f"{path} was left as it is: {error}; --out DIR writes the values into a file of their own")
        except OSError as error:
            fail(f"--write: {path}: {error.strerror or error}")
        typer.echo(f"written: {path}; what it was before: {backup}", err=self._quiet)

    def _values(self) -> dict[str, Any]:
        outcome = self._outcome
        assert outcome.choice is not None
        said = {setting.key for setting in self._found.settings if setting.origin != "default"}
        return toml.recommended(
            outcome.choice.point, outcome.present, outcome.before.get(toml.SIZES) or (), said
        )

    def _kept(self) -> dict[str, Any]:
        """What model.toml says about other keys."""
        return {
            setting.key: setting.file
            for setting in self._found.settings
            if setting.file is not None and setting.key not in toml.DECIDED
        }
