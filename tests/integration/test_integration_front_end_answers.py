"""The answers of a server with two front ends, by the tests that one passes: what goes through the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import front_ends
import pumps
import pytest
from answers import (  # noqa: F401 - collected here
    LONG,
    TestRefusals,
    TestTensors,
    TestTogether,
    build,
)
from tensorwire.client import Client
from tensorwire.manager import ManagerConfig
from tensorwire.server import Server, ServingConfig


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    build(root)
    return root


@pytest.fixture(scope="module", params=pumps.NAMES)
def server(request: pytest.FixtureRequest, repository: Path) -> Iterator[Server]:
    """Its pumps, and those of the other process, are of the kind that the parameter names."""
    pumps.pump_named(request.param)
    manager = ManagerConfig(repository=repository, settle_time=0.0)
    serving = ServingConfig(bind="tcp://127.0.0.1:0", front_ends=2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TENSORWIRE_PURE_PYTHON", "1" if request.param == "python" else "0")
        with Server(manager, serving) as made:
            assert made.wait_ready(60), made.manager.status()
            yield made
            # Tests with clients of their own take what the kernel gives them; both were used.
            with Client(made.endpoint, timeout=LONG) as client:
                stats = client.control("stats")
            through = sum(each["pump"]["messages"] for each in stats["front_ends"])
            assert through > 0
            assert stats["pump"]["malformed_answered"] == stats["pump"]["malformed_dropped"] == 0


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with front_ends.connect(server.endpoint, at_server=False) as made:
        yield made
