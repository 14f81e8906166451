"""The answers of worker processes, by the tests that threads pass; one process for each model."""

from __future__ import annotations

from pathlib import Path

import pytest
from answers import (  # noqa: F401 - collected here
    TestRefusals,
    TestTensors,
    TestTogether,
    build,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    build(root)
    for model in root.iterdir():
        with (model / "model.toml").open("a") as config:
            config.write('\n[workers]\nkind = "process"\n')
    return root
