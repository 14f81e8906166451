"""Worker processes to call, which are gone after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes_helpers import OBEYS, Start, starting, write_model
from tensorwire.rpc.switch import PURE_PYTHON
from tensorwire.server.processes.spawner import Spawner


@pytest.fixture(scope="module", params=["python", "compiled"])
def spawner(request: pytest.FixtureRequest) -> Iterator[Spawner]:
    """Starts processes, which like their parent do with compiled calls or without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PURE_PYTHON, "1" if request.param == "python" else "0")
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
