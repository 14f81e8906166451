"""Manager: the model lifecycle as the server uses it. The threads live here, the decisions elsewhere.

Three kinds of threads: one polls the repository, one (the control thread) owns every state, and one
comes and goes with each load and each unload. Readers need none of them: they read :attr:`Manager.snapshot`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self

from ..rpc.errors import NotFoundError, UnavailableError
from ..rpc.types import VersionStatus
from .config import RouteConfig
from .controller import Controller, Job, Surroundings
from .handle import ServableHandle
from .in_force import ModelSettings
from .intent import Intent
from .loader import EngineFinder, find_engine
from .manifest import BackgroundCheck
from .settings import ManagerConfig
from .snapshot import Snapshot
from .source import FileSystemSource
from .tuning import Values

_log = logging.getLogger("tensorwire.manager")

#: Seconds that the control thread sleeps at most, whatever it believes to be next.
_LONGEST_SLEEP = 60.0
#: Seconds that close() waits for a thread that was told to end, beyond the drain.
_JOIN_TIMEOUT = 5.0


def _ignore_snapshot(snapshot: Snapshot) -> None:
    del snapshot


def _ignore_handle(handle: ServableHandle) -> None:
    del handle


class Manager:
    """Loads what the repository holds, keeps it current, and publishes who serves what.

    Args:
        config: settings; see :class:`ManagerConfig`.
        clock: monotonic seconds.
        finder: finds the engine for a version directory; the registry of ``manager.engines`` by default.

    Attributes:
        on_publish: called on the control thread after each publication; set it before :meth:`start`.
            Must return quickly and not call back into the manager's commands and wait for others.
        on_retire: called on the control thread when a version that served is in no snapshot any more and
            takes no new references; its memory stays until the last reference is released.
    """

    def __init__(
        self,
        config: ManagerConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        finder: EngineFinder = find_engine,
    ) -> None:
        self.on_publish: Callable[[Snapshot], None] = _ignore_snapshot
        self.on_retire: Callable[[ServableHandle], None] = _ignore_handle
        self._clock = clock
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._poll_wanted = threading.Event()
        self._stopping = threading.Event()
        self._ready = threading.Condition()
        self._started = False
        self._closed = False
        self._was_ready = False
        self._deadline: float | None = None
        self._control: threading.Thread | None = None
        self._poller: threading.Thread | None = None
        self._workers: set[threading.Thread] = set()
        self._verifiers = ThreadPoolExecutor(2, thread_name_prefix="tensorwire-verify")
        self._manifests = BackgroundCheck(self._verifiers.submit, self._poll_wanted.set)
        self._source = FileSystemSource(
            config.repository,
            settle_time=config.settle_time,
            check_manifest=self._manifests,
            remove_missing=config.remove_missing,
            clock=clock,
        )
        surroundings = Surroundings(
            clock=clock,
            spawn=self._spawn,
            post=self._inbox.put,
            poll_soon=self._poll_wanted.set,
            published=self._published,
            retired=self._retired,
        )
        self._controller = Controller(config, surroundings, finder=finder)
        #: What serves at this moment. Read it without a lock; it is replaced as a whole.
        self.snapshot: Snapshot = self._controller.snapshot

    @property
    def config(self) -> ManagerConfig:
        """The settings in force."""
        return self._controller.config

    def start(self) -> None:
        """Start the threads. Returns at once; :meth:`wait_ready` waits for the models.

        Raises:
            NotFoundError: the repository is not a directory. (One that vanishes later is waited for.)
        """
        if self._started:
            raise RuntimeError("the manager was started before; make a new one")
        if not self.config.repository.is_dir():
            raise NotFoundError(f"{self.config.repository}: no such directory; expected a model repository")
        self._started = True
        self._control = threading.Thread(target=self._control_loop, name="tensorwire-manager", daemon=True)
        self._poller = threading.Thread(target=self._poll_loop, name="tensorwire-source", daemon=True)
        self._control.start()
        self._poller.start()

    def close(self) -> None:
        """Unload everything: running requests finish first, for ``drain_timeout`` seconds at most."""
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        self._manifests.stop()
        self._poll_wanted.set()
        self._verifiers.shutdown(wait=False, cancel_futures=True)
        with self._ready:
            self._ready.notify_all()
        if not self._started:
            return
        drain = self.config.drain_timeout
        self._inbox.put(partial(self._begin_close, drain))
        for thread in (self._control, self._poller):
            if thread is not None and thread is not threading.current_thread():
                thread.join(drain + _JOIN_TIMEOUT)
        for thread in list(self._workers):
            thread.join(0.0 if self._controller.leftovers() else _JOIN_TIMEOUT)
        self._verifiers.shutdown(wait=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether everything that was wanted at the start has served or failed for good.

        Stays true while versions come and go later: what a load balancer's health check needs, where
        :meth:`wait_ready` answers for this moment.
        """
        return (self._was_ready or self._controller.ready) and not self._closed

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until every wanted version serves or has failed for good.

        A version that waits for memory which others hold does not count: it may wait for ever.

        Returns:
            False when ``timeout`` seconds passed first, or the manager was closed.
        """
        with self._ready:
            self._ready.wait_for(lambda: self._controller.ready or self._closed, timeout)
            return self._controller.ready and not self._closed

    def status(self, model: str | None = None) -> list[VersionStatus]:
        """One line per version that is wanted or not gone yet, of one model or of all."""
        return [line for line in self._controller.statuses if model is None or line.model == model]

    def memory(self) -> tuple[int, int | None]:
        """(bytes reserved by all versions, the budget or ``None``)."""
        budget = self._controller.budget
        return budget.used, budget.total

    def rescan(self) -> None:
        """Look at the repository now rather than at the next poll. :meth:`wait_ready` then waits for it."""
        self._command(self._controller.look_again)

    def load(self, model: str, version: int | None = None) -> None:
        """Load a version that the version policy would not, or again one that failed or whose files changed.

        ``None``: everything that model.toml says, after an :meth:`unload`. Returns when the wish is taken
        in; :meth:`wait_ready` and :meth:`status` tell what became of it.

        Raises:
            NotFoundError: no such model or version.
        """
        directory = self.config.repository / model / ("" if version is None else str(version))
        plain = model not in ("", ".", "..") and "/" not in model and "\0" not in model
        on_disk = plain and directory.is_dir()
        self._command(partial(self._controller.load, model, version, on_disk=on_disk))

    def unload(self, model: str, version: int | None = None) -> None:
        """Unload a version, or (``None``) a whole model, until :meth:`load` is called for it.

        Under ``latest`` the next lower version takes its place, and is loaded first.

        Raises:
            NotFoundError: no such model or version.
        """
        self._command(partial(self._controller.unload, model, version))

    def fail(self, handle: ServableHandle, reason: str) -> None:
        """Give up a version that serves, because its workers keep dying; any thread, returns at once.

        It starts afresh when its files or its configuration change, or with :meth:`load`.
        """
        self._inbox.put(partial(self._controller.fail, handle, reason))

    def set_label(self, model: str, label: str, version: int | None) -> None:
        """Point a label at a version: it moves, atomically, once that version serves. ``None`` removes it.

        Raises:
            NotFoundError: no such model, or no such label to remove.
            InvalidArgumentError: not a valid label or version.
        """
        self._command(partial(self._controller.set_label, model, label, version))

    def set_route(self, model: str, route: RouteConfig | None) -> None:
        """Split the traffic that names neither version nor label; ``None`` ends the split.

        Raises:
            NotFoundError: no such model.
            InvalidArgumentError: the route names a label that is not declared.
        """
        self._command(partial(self._controller.set_route, model, route))

    def settings(self, model: str) -> ModelSettings:
        """What can be changed live about a model: what is in force, and where it comes from. From any thread.

        Raises:
            NotFoundError: no such model.
        """
        return self._controller.settings(model)

    def tune(self, model: str, values: Values, reset: Iterable[str] = ()) -> None:
        """Set some of a model's settings, and give others (keys, or sections) back to model.toml, at once.

        They hold for all of its versions, until the server stops or model.toml says something else about the
        same key. What needs a load goes through one, beside what serves; :meth:`settings` tells.

        Raises:
            NotFoundError: no such model.
            InvalidArgumentError: a key, a value or a combination that is not allowed, or that a version which
                serves cannot take; nothing was changed.
        """
        self._command(partial(self._controller.tune, model, values, tuple(reset)))

    def reconfigure(self, config: ManagerConfig) -> None:
        """Go on with other settings, applied as a whole.

        Raises:
            FailedPreconditionError: the repository differs; that needs a restart.
        """
        self._command(partial(self._reconfigure, config))

    # --- threads ------------------------------------------------------------------------------------------

    def _reconfigure(self, config: ManagerConfig) -> None:
        self._controller.reconfigure(config)
        self._source.settle_time = config.settle_time
        self._source.remove_missing = config.remove_missing

    def _command(self, command: Job) -> None:
        """Run a command on the control thread and wait for its result."""
        if self._closed:
            raise UnavailableError("the manager is closed")
        if not self._started or threading.current_thread() is self._control:
            return command()
        result: Future[None] = Future()

        def run() -> None:
            try:
                command()
            except Exception as error:  # noqa: BLE001 - handed to the caller
                result.set_exception(error)
            else:
                result.set_result(None)

        self._inbox.put(run)
        while True:
            try:
                return result.result(1.0)
            except TimeoutError:
                if self._control is None or not self._control.is_alive():
                    raise UnavailableError("the manager was closed meanwhile") from None

    def _control_loop(self) -> None:
        controller = self._controller
        while not (controller.closing and (controller.finished or self._clock() >= (self._deadline or 0.0))):
            self._run_jobs()
            try:
                controller.advance()
            except Exception:  # noqa: BLE001 - one fault must not end the service of every model
                _log.exception("the manager's control thread met an unexpected error and goes on")
            if controller.ready:
                self._was_ready = True
                with self._ready:
                    self._ready.notify_all()
        if not controller.finished:
            _log.warning(
                "closed with versions still in use or loading, left as they are: %s",
                ", ".join(controller.leftovers()),
            )

    def _run_jobs(self) -> None:
        """Wait for one job or the time of the next retry; run everything that is there."""
        try:
            job = self._inbox.get(timeout=self._sleep())
            while True:
                try:
                    job()
                except Exception:  # noqa: BLE001 - as above
                    _log.exception("the manager's control thread met an unexpected error and goes on")
                job = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _sleep(self) -> float:
        times = [when for when in (self._controller.next_time(), self._deadline) if when is not None]
        if not times:
            return _LONGEST_SLEEP
        # Never 0: a retry that waits for a free load thread is due already.
        return min(_LONGEST_SLEEP, max(0.05, min(times) - self._clock()))

    def _begin_close(self, drain: float) -> None:
        self._deadline = self._clock() + drain
        self._controller.begin_close()

    def _poll_loop(self) -> None:
        while not self._stopping.is_set():
            self._poll_wanted.clear()
            # The revision first: intents that are newer than it do no harm.
            revision, intents = self._controller.revision, self._controller.intents
            self._poll(revision, intents)
            self._poll_wanted.wait(self.config.poll_interval)

    def _poll(self, revision: int, intents: Mapping[str, Intent]) -> None:
        try:
            scan = self._source.poll(intents)
        except Exception:  # noqa: BLE001 - the source promises not to raise; the next look may succeed
            if not self._stopping.is_set():
                _log.exception("looking at the repository failed unexpectedly")
            return
        self._inbox.put(partial(self._controller.take_scan, revision, scan))

    def _spawn(self, name: str, work: Job) -> None:
        def run() -> None:
            try:
                work()
            finally:
                self._workers.discard(threading.current_thread())

        # A thread of its own, a daemon: a load that hangs inside an engine must not keep the process alive.
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._workers.add(thread)
        thread.start()

    def _published(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        try:
            self.on_publish(snapshot)
        except Exception:  # noqa: BLE001 - the server's code: the snapshot is in force either way
            _log.exception("on_publish failed")

    def _retired(self, handle: ServableHandle) -> None:
        try:
            self.on_retire(handle)
        except Exception:  # noqa: BLE001 - the server's code: the version is unloaded either way
            _log.exception("on_retire failed for %r", handle)
