"""Worker processes to call, which are gone after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes_helpers import OBEYS, Start, starting, write_model
from tensorwire.server.processes.spawner import Spawner


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    with Spawner() as spawner:
        yield spawner


@pytest.fixture
def start(spawner: Spawner) -> Iterator[Start]:
    """Starts workers, which are gone after the test."""
    yield from starting(spawner)


@pytest.fixture
def obeys(tmp_path: Path) -> Path:
    """The directory of a model that does what its input says."""
    return write_model(tmp_path / "obeys", OBEYS)
