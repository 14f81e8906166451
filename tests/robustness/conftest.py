"""Real servers in processes of their own; nothing here asserts a time but generous bounds on liveness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tensorwire.bench.proofs import serving
from tensorwire.bench.servers import Server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Starts ``tensorwire serve`` on a repository; it is stopped after the test."""
    with ExitStack() as stack:

        def serve(repository: Path) -> Server:
            logs = tmp_path / "logs"
            logs.mkdir(exist_ok=True)
            return stack.enter_context(serving(repository, logs))

        yield serve
