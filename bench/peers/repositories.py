"""Model repositories as other servers, or other kinds of worker, want them."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

from ..tune.toml import DECIDED, KIND, merge


def copy_with_processes(repository: Path, copy: Path) -> Path:
    """A copy whose models all have worker processes; what else their files say stays.

    Raises:
        CannotMerge: a model.toml is written in a way that is not understood.
    """
    shutil.copytree(repository, copy)
    for model in copy.iterdir():
        if model.is_dir():
            _with_processes(model / "model.toml")
    return copy


def _with_processes(config: Path) -> None:
    text = config.read_text() if config.exists() else ""
    document: dict[str, Any] = tomllib.loads(text)
    said = {key: document.get(section, {}).get(leaf) for key in DECIDED for section, leaf in [key.split(".")]}
    values = {key: value for key, value in said.items() if value is not None}
    config.write_text(merge(text, {**values, KIND: "process"}, ()))
