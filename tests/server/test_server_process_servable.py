"""What holds the worker processes of a version: nothing of it is left when it is closed."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

import pytest
from tensorwire.server.processes import servable
from tensorwire.server.processes.devices import Devices
from tensorwire.server.processes.framing import ChildSpec
from tensorwire.server.processes.parent import WorkerProcess
from tensorwire.server.processes.servable import ProcessServable
from tensorwire.server.processes.spawner import Spawner


class FakeProcess:
    """Ends at once."""

    metadata = None
    device = None

    def __init__(self) -> None:
        self.joined = False

    def stop(self) -> None:
        pass

    def join(self, timeout: float) -> bool:
        self.joined = True
        return True


def test_close_waits_for_whoever_sees_a_released_process_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that close() found before it had started could not be joined, and nothing was given back."""
    process = FakeProcess()
    fake = cast("WorkerProcess", process)
    closing: list[threading.Thread] = []

    class SlowToStart(threading.Thread):
        """Starts only when close() has had every chance to come in between."""

        def start(self) -> None:
            for thread in closing:
                thread.join(0.1)
            super().start()

    held = ProcessServable(
        cast("ChildSpec", SimpleNamespace(model="m", version=1)), cast("Spawner", None), fake, Devices(())
    )
    assert held.take() is fake
    errors: list[BaseException] = []

    def close() -> None:
        try:
            held.close()
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    closing.append(threading.Thread(target=close))
    closing[0].start()
    monkeypatch.setattr(servable.threading, "Thread", SlowToStart)
    held.release(fake)
    closing[0].join()
    assert errors == []
    assert process.joined
