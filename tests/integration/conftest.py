"""A server over the module's ``repository``, a client of it, and the same models in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from answers import LONG, Local
from tensorwire.client import Client
from tensorwire.manager import ManagerConfig
from tensorwire.server import Server, ServingConfig


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    manager = ManagerConfig(repository=repository, settle_time=0.0)
    with Server(manager, ServingConfig(bind="tcp://127.0.0.1:0")) as made:
        assert made.wait_ready(60), made.manager.status()
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.endpoint, timeout=LONG) as made:
        yield made


@pytest.fixture(scope="module")
def local(repository: Path) -> Local:
    return Local(repository)
