"""The running service behind ``tensorwire serve``: signals, configuration reload, readiness, start-up log."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from enum import StrEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Final

import zmq

from ..manager.heap import HeapKeeper
from ..manager.memory import use_one_heap
from ..rpc.errors import InvalidArgumentError, RpcError
from .interpreter import tune_interpreter
from .report import Progress, describe_available, describe_failed, describe_waiting, empty_hint, reach_warning
from .service import Server
from .settings import Settings, applicable, changes
from .version import VERSION

_log = logging.getLogger("tensorwire.server")

#: Seconds between two looks at the configuration file, at how far the loading has got, and at the heap.
_TICK: Final = 1.0


class _Event(StrEnum):
    STOP = "stop"
    RELOAD = "reload"
    #: Every model that was wanted at the start serves or has failed.
    READY = "ready"


class Service:
    """One server process from its start to its exit status. Use it from the main thread.

    Args:
        load: reads and checks the whole configuration; called at the start and for every reload.
        config_path: reloaded when it changes; None: there is none.
        ready_file: holds the endpoint while the server is ready.
    """

    def __init__(
        self, load: Callable[[], Settings], *, config_path: Path | None = None, ready_file: Path | None = None
    ) -> None:
        self._load = load
        self._config_path = config_path
        self._ready_file = ready_file
        #: Signal handlers put into it: unlike a lock or an Event it may be used while it is being waited for.
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._stamp: tuple[int, int, int] | None = None
        self._stopping = ""
        self._heap = HeapKeeper()
        self._progress: Progress | None = None

    def run(self) -> int:
        """Serve until a signal comes.

        Returns:
            Exit status: 0, or 1 if requests were left without an answer when the grace time was over.

        Raises:
            RpcError: the server cannot start (configuration, repository, address, ready file).
        """
        self._stamp = self._config_stamp()
        self._settings = self._load()
        self._set_level()
        self._remove_ready_file()
        self._install_signals()
        use_one_heap()
        self._server = Server(self._settings.manager, self._settings.serving)
        self._server.start()
        self._announce()
        threading.Thread(target=self._watch_readiness, name="tensorwire-ready", daemon=True).start()
        try:
            self._loop()
        finally:
            clean = self._stop()
        return 0 if clean else 1

    # ---------------------------------------------------------------- the loop

    def _loop(self) -> None:
        self._progress = Progress(time.monotonic())
        while not self._stopping:
            try:
                event = self._events.get(timeout=_TICK)
            except Empty:
                self._tick()
                continue
            if event is _Event.RELOAD:
                self.reload("SIGHUP")
            elif event is _Event.READY:
                self._on_ready()

    def _tick(self) -> None:
        self._heap.look(time.monotonic(), self._server.front_end.messages)
        if self._progress is not None:
            line = self._progress.line(time.monotonic(), self._server.manager.status())
            if line:
                _log.info("%s", line)
        stamp = self._config_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self.reload(f"{self._config_path} changed")

    def _watch_readiness(self) -> None:
        if self._server.wait_ready():
            self._events.put(_Event.READY)

    def _install_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_stop_signal)
        signal.signal(signal.SIGINT, self._on_stop_signal)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._events.put(_Event.RELOAD))

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        if self._stopping:
            # Nothing that could wait for a lock: the main thread may hold it right here.
            os.write(2, f"{name} again: stopping at once, requests in flight are lost\n".encode())
            os._exit(128 + number)
        self._stopping = name
        self._events.put(_Event.STOP)

    # ---------------------------------------------------------------- start

    def _announce(self) -> None:
        server, manager = self._server, self._settings.manager
        _log.info(
            "tensorwire %s, pid %d, Python %s, pump %s",
            VERSION,
            os.getpid(),
            platform.python_version(),
            type(server.front_end.pump).__name__,
        )
        config = f", configured by {self._config_path}" if self._config_path else ""
        count = server.config.front_ends
        where = f"{server.endpoint}, {count} front ends" if count > 1 else server.endpoint
        _log.info("listening at %s, model repository %s%s", where, manager.repository, config)
        warning = reach_warning(server.endpoint)
        if warning:
            _log.warning("%s", warning)

    def _on_ready(self) -> None:
        self._progress = None
        server = self._server
        available = describe_available(server.manager.snapshot)
        status = server.manager.status()
        failed, waiting = describe_failed(status), describe_waiting(status)
        for line in available:
            _log.info("serving %s", line)
        for line in waiting:
            _log.warning("%s", line)
        for line in failed:
            _log.error("%s", line)
        if not status:
            _log.warning("%s", empty_hint(self._settings.manager.repository))
        tune_interpreter()
        self._write_ready_file()
        others = [
            f"{len(lines)} {what}" for lines, what in ((failed, "failed"), (waiting, "waiting")) if lines
        ]
        versions = f"{len(available)} model version{'' if len(available) == 1 else 's'}"
        _log.info("ready: %s", ", ".join([f"{versions} at {server.endpoint}", *others]))

    def _write_ready_file(self) -> None:
        if self._ready_file is None:
            return
        # Renamed into place, so that whoever waits for it never reads half of it.
        part = self._ready_file.with_name(f".{self._ready_file.name}.{os.getpid()}")
        try:
            part.write_text(f"{self._server.endpoint}\n")
            part.replace(self._ready_file)
        except OSError as error:
            _log.error("--ready-file %s cannot be written: %s", self._ready_file, error.strerror)

    def _remove_ready_file(self) -> None:
        path = self._ready_file
        if path is None:
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InvalidArgumentError(f"--ready-file {path}: cannot be replaced: {error.strerror}") from None
        if not os.access(path.parent, os.W_OK):
            raise InvalidArgumentError(
                f"--ready-file {path}: {path.parent} is not a directory that can be written to"
            )

    # ---------------------------------------------------------------- reload

    def reload(self, why: str) -> None:
        """Read the configuration again, check all of it, then apply it, or change nothing."""
        try:
            new = self._load()
            wanted = changes(self._settings, new)
            settings = applicable(self._settings, new)
            self._server.reconfigure(settings.manager, settings.serving)
        except RpcError as error:
            _log.error("%s: nothing was changed: %s", why, error.message)
            return
        self._settings = settings
        self._set_level()
        for change in wanted:
            if change.restart:
                _log.warning("%s: changed %s, which needs a restart; the old value stays", why, change)
            else:
                _log.info("%s: changed %s", why, change)
        if not wanted:
            _log.info("%s: the configuration is the same", why)

    def _set_level(self) -> None:
        logging.getLogger("tensorwire").setLevel(self._settings.log.level.upper())

    def _config_stamp(self) -> tuple[int, int, int] | None:
        if self._config_path is None:
            return None
        try:
            found = self._config_path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    # ---------------------------------------------------------------- stop

    def _stop(self) -> bool:
        """Drain and close; whether every request was answered."""
        server = self._server
        _log.info(
            "%s: refusing new requests; %d in flight have %g s to finish",
            self._stopping or "error",
            server.front_end.in_flight,
            server.config.grace,
        )
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
        with ThreadPoolExecutor(1, "tensorwire-close") as executor:
            closing = executor.submit(self._close)
            # In steps: a signal that comes just before a wait begins is not seen before that wait ends.
            while not wait([closing], _TICK).done:
                pass
        _log.info("stopped")
        return closing.result()

    def _close(self) -> bool:
        clean = self._server.close()
        # Not left to the interpreter, which does not wait until the last replies have gone out.
        zmq.Context.instance().term()
        return clean
