"""A server: a manager, a front end over its snapshots, and the control calls that join the two."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

import msgspec

from ..manager import Manager, ManagerConfig
from ..rpc.pump import ControlMessage
from .acceptor.fleet import Fleet
from .config import ServingConfig
from .control import Control
from .frontend import FrontEnd
from .processes.servable import process_finder
from .processes.spawner import Spawner

_log = logging.getLogger("tensorwire.server")

#: Seconds that unloading has when the grace time is over: with every request answered, and with batches that
#: still run, which may never end.
_UNLOAD_SECONDS = 5.0
_UNLOAD_SECONDS_BUSY = 1.0
#: Seconds that other front ends have for what is answered, when the grace time is over.
_ACCEPTORS_SECONDS = 2.0
#: Longest that :meth:`Server.reconfigure` waits for the front end, in seconds.
_APPLY_SECONDS = 5.0


class Server:
    """Serves a model repository; the programmatic form of ``tensorwire serve``.

    ``start()`` binds at once and loads in the background; ``wait_ready()`` waits for the models.
    """

    def __init__(self, manager: ManagerConfig, serving: ServingConfig | None = None) -> None:
        self.config = serving or ServingConfig()
        self._spawner = Spawner()
        self.manager = Manager(manager, finder=process_finder(self._spawner))
        self.front_end = FrontEnd(
            self.config, lambda: self.manager.snapshot, self._on_control, broken=self.manager.fail
        )
        self._fleet = Fleet(self.config, self._spawner, self.front_end)
        self._control = Control(self.manager, self._is_ready, self._fleet.report)
        self._started = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return self.front_end.endpoint

    def start(self) -> None:
        """Bind, and begin to load the models.

        Raises:
            FailedPreconditionError: the address is in use.
            NotFoundError: the repository does not exist.
        """
        self.manager.on_retire = self.front_end.retire
        self.manager.on_publish = lambda _: self.front_end.reconfigure()
        self.front_end.start()
        self._spawner.start()
        self._fleet.start()
        try:
            self.manager.start()
        except BaseException:
            self.front_end.close()
            self._fleet.close(0.0)
            self._spawner.close()
            raise
        self._started = True

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until every wanted version is available or has definitively failed, and all front ends
        listen."""
        until = None if timeout is None else time.monotonic() + timeout
        if not self.manager.wait_ready(timeout):
            return False
        return self._fleet.wait(None if until is None else max(0.0, until - time.monotonic()))

    def drain(self) -> bool:
        """Refuse new requests and wait, at most the grace time, for those in flight; whether all are done."""
        return self.front_end.drain(self.config.grace)

    def reconfigure(self, manager: ManagerConfig, serving: ServingConfig) -> None:
        """Go on with other settings. Address, frame and peer limits stay as they are until a restart, and
        ``inline_budget`` holds for versions that are loaded from now on.

        Raises:
            FailedPreconditionError: the repository differs; nothing was changed.
        """
        self.manager.reconfigure(manager)
        self.config = serving
        self.front_end.apply(serving)
        # Actions are carried out in turn: when this one is, the new limits are in force.
        applied = threading.Event()
        self.front_end.post(applied.set)
        applied.wait(_APPLY_SECONDS)

    def close(self) -> bool:
        """Stop: drain, end the front end, unload the models.

        Returns:
            Whether every request that was in flight has been answered.
        """
        if not self._started:
            return True
        self._started = False
        until = time.monotonic() + self.config.grace
        self._fleet.stop()
        drained = self.drain()
        if not drained:
            _log.warning(
                "%d requests were still in flight after the grace time of %g s",
                self.front_end.in_flight,
                self.config.grace,
            )
        self.front_end.close()
        if not self._fleet.close(max(_ACCEPTORS_SECONDS, until - time.monotonic())):
            _log.warning("there are clients that have not read all replies")
            drained = False
        self._control.close()
        self._limit_unloading(
            max(_UNLOAD_SECONDS, until - time.monotonic()) if drained else _UNLOAD_SECONDS_BUSY
        )
        self.manager.close()
        self._spawner.close()
        return drained

    def _limit_unloading(self, seconds: float) -> None:
        """The grace time is what the operator plans with: the manager must not wait for much longer."""
        config = self.manager.config
        if seconds < config.drain_timeout:
            self.manager.reconfigure(msgspec.structs.replace(config, drain_timeout=seconds))

    def _is_ready(self) -> bool:
        return self.manager.ready and self._fleet.ready

    def _on_control(self, message: ControlMessage) -> None:
        self._control.handle(self.front_end, message)
