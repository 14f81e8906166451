"""LoaderHarness: guards one version from the moment it is wanted until nothing of it is left.

The methods that change the state belong to one thread, the manager's control thread. Only
:meth:`LoaderHarness.work` and :meth:`LoaderHarness.unload` run elsewhere; they touch no state and
report what they did.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from ..rpc.errors import AbortedError, InternalError, ResourceExhaustedError, RpcError, StatusCode
from .budget import MemoryBudget, format_bytes
from .config import ModelConfig
from .handle import ServableHandle
from .loader import Loader, apply_live
from .states import BUSY, Event, State, next_state

if TYPE_CHECKING:
    from .engines.base import Servable

_log = logging.getLogger("tensorwire.manager")

#: What is found out before anything is loaded, such as a directory without a model, does not pass either.
#: (A model's own load() fails with it too, and may succeed when whatever it needs is back.)
PERMANENT_BEFORE_LOADING: Final = frozenset({StatusCode.FAILED_PRECONDITION})
#: Errors that the same files and the same configuration give again, however often they are tried.
PERMANENT: Final = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.NOT_FOUND,
        StatusCode.OUT_OF_RANGE,
        StatusCode.UNIMPLEMENTED,
        StatusCode.DATA_LOSS,
        StatusCode.PERMISSION_DENIED,
    }
)


class RetryConfig(msgspec.Struct, frozen=True):
    """Retries after a failed load: how many, and the waits in seconds: ``first``, doubling, ``longest``."""

    retries: int = 3
    first: float = 1.0
    longest: float = 60.0

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failed attempt (from 1)."""
        return min(self.longest, self.first * 2.0 ** min(attempt - 1, 60))


class Outcome(msgspec.Struct, frozen=True):
    """What a load thread brings back: a handle, a lack of memory, or an error (``final``: for good)."""

    handle: ServableHandle | None = None
    blocked: bool = False
    error: RpcError | None = None
    final: bool = False


class LoaderHarness:
    """One version under one configuration and one set of files.

    A version whose files or configuration change gets a new harness; so every harness starts afresh.

    Attributes:
        key: unique number of this harness; larger is newer.
        state: where it stands; read freely, changed by the control thread only.
        reason: why it waits or failed, for people.
        estimate: bytes of memory it takes, once that is known.
        attempts: load attempts made so far.
        turn: place among those that wait for a load thread; lower comes first.
        not_before: clock time of the next attempt.
        refused_for_size: failed because it can never fit into the budget.
        handle: what serves, from AVAILABLE until the end of UNLOADING or BROKEN.
    """

    def __init__(
        self,
        key: int,
        loader: Loader,
        *,
        budget: MemoryBudget,
        retry: RetryConfig,
        clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.loader = loader
        self.model = loader.model
        self.version = loader.version
        self.state = State.NEW
        self.reason = ""
        self.estimate: int | None = None
        self.attempts = 0
        self.turn = 0
        self.not_before = 0.0
        self.refused_for_size = False
        self.handle: ServableHandle | None = None
        self._budget = budget
        self._retry = retry
        self._clock = clock
        self._cancelled = threading.Event()
        self._starved = False

    def __repr__(self) -> str:
        return f"<LoaderHarness {self.model}:{self.version} {self.state.value}>"

    @property
    def starved(self) -> bool:
        """Waits for memory that does not fit at present."""
        return self.state is State.WAITING and self._starved and not self._budget.fits(self.estimate or 0)

    def startable(self, now: float) -> bool:
        """Whether a load thread may take it now."""
        return self.state is State.WAITING and now >= self.not_before and not self.starved

    def approve(self, turn: int = 0) -> None:
        """The policy lets it load; ``turn`` is its place among those that wait for a load thread."""
        self.turn = turn
        self._apply(Event.APPROVE)

    def start(self) -> None:
        """A load thread takes it; :meth:`work` follows there."""
        self._apply(Event.START)
        self._starved = False
        self.attempts += 1

    def loaded(self) -> None:
        """The load thread has begun to warm it up."""
        self._apply(Event.LOADED)

    def retire(self) -> None:
        """Not wanted any longer. A waiting version is gone at once, a running load when it returns."""
        self._cancelled.set()
        self._apply(Event.RETIRE)

    def go_on_with(self, config: ModelConfig) -> bool:
        """Serve with other settings from now on; false if nothing has changed.

        Raises:
            RpcError: they do not suit the model, or there is no memory for so many worker processes.
        """
        handle, before = self.handle, self.estimate or 0
        assert handle is not None
        count = config.workers.count or 1
        if handle.servable.worker_kind == "process" and count != handle.config.workers.count:
            self._reserve(self.loader.estimate(config))
        try:
            return apply_live(handle, config)
        except RpcError:
            self._reserve(before)
            raise

    def _reserve(self, size: int) -> None:
        """Change the reservation while it serves."""
        if not self._budget.change(self.key, size):
            more, total = size - (self.estimate or 0), self._budget.total or 0
            free = max(0, total - self._budget.used)
            raise ResourceExhaustedError(
                f"that needs {format_bytes(more)} more memory, and {format_bytes(free)} of "
                f"{format_bytes(total)} are free; raise ram_budget or unload something"
            )
        self.estimate = size

    def broken(self, reason: str) -> None:
        """Its workers keep dying."""
        if self.state is State.AVAILABLE:
            self.reason = reason
            _log.error("%s:%d: given up: %s", self.model, self.version, reason)
        self._apply(Event.BREAK)

    def released(self) -> None:
        """Its memory has been given back."""
        self.handle = None
        self._apply(Event.RELEASED)

    def finish(self, outcome: Outcome) -> None:
        """Take in what :meth:`work` brought back. A handle of a cancelled load is to be unloaded."""
        if outcome.handle is not None:
            self.handle = outcome.handle
            self.reason = ""
            self._apply(Event.WARMED)
        elif outcome.blocked:
            self._block()
        else:
            error = outcome.error or InternalError("the load thread ended without a result")
            self._fail(error, outcome.final or self.attempts > self._retry.retries)

    def work(self, progress: Callable[[], None]) -> Outcome:
        """Estimate, reserve, load and warm up. Runs on a load thread; never raises.

        Args:
            progress: called when the engine has loaded the version and the warm-up begins.
        """
        final = PERMANENT | PERMANENT_BEFORE_LOADING
        try:
            size = self.loader.estimate()
            self.estimate = size
            if not self._budget.can_ever_fit(size):
                return Outcome(error=self._too_large(size), final=True)
            if not self._budget.reserve(self.key, size):
                return Outcome(blocked=True)
            final = PERMANENT
            return Outcome(handle=self._load(size, progress))
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - engines and models: translated here
            self._budget.release(self.key)
            error = self._translate(failure)
            return Outcome(error=error, final=error.code in final)

    def unload(self) -> None:
        """Close the servable and give its memory back. Runs on an unload thread; never raises."""
        handle = self.handle
        try:
            if handle is not None:
                handle.close_servable()
        except Exception:  # noqa: BLE001 - a model's own close(): the version is gone either way
            _log.exception(
                "%s:%d: closing failed; its memory may not be given back", self.model, self.version
            )
        finally:
            self._budget.release(self.key)

    def _load(self, size: int, progress: Callable[[], None]) -> ServableHandle:
        self._check_cancelled()
        servable = self.loader.load()
        try:
            self._check_cancelled()
            progress()
            return self.loader.warm_up(servable, ram_bytes=size, stop=self._cancelled.is_set)
        except BaseException:
            self._discard(servable)
            raise

    def _discard(self, servable: Servable) -> None:
        try:
            servable.close()
        except Exception:  # noqa: BLE001 - the first error is the one that matters
            _log.exception("%s:%d: closing after a failed load failed too", self.model, self.version)

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise AbortedError("the load was cancelled")

    def _translate(self, error: Exception | SystemExit) -> RpcError:
        if isinstance(error, RpcError):
            return error
        if isinstance(error, MemoryError):
            return ResourceExhaustedError(f"out of memory while loading: {error}")
        _log.error("%s:%d: unexpected error while loading", self.model, self.version, exc_info=error)
        return InternalError(f"{type(error).__name__}: {error}")

    def _too_large(self, size: int) -> RpcError:
        total = self._budget.total or 0
        self.refused_for_size = True
        return ResourceExhaustedError(
            f"needs {format_bytes(size)} of memory, the budget is {format_bytes(total)} in all; "
            "raise ram_budget or serve a smaller model"
        )

    def _block(self) -> None:
        self._starved = True
        # An attempt that did not begin does not count.
        self.attempts -= 1
        size, total, used = self.estimate or 0, self._budget.total or 0, self._budget.used
        self.reason = (
            f"waits for memory: needs {format_bytes(size)}, {format_bytes(max(0, total - used))} of "
            f"{format_bytes(total)} are free; raise ram_budget, unload something, or set "
            '`[versions] transition = "resource"` to unload the old version first'
        )
        self._apply(Event.BLOCK)
        if self.state is State.WAITING:
            _log.warning("%s:%d: %s", self.model, self.version, self.reason)

    def _fail(self, error: RpcError, final: bool) -> None:
        if self.state is State.CANCELLING:
            self._apply(Event.FAIL)
            return
        if final:
            self.reason = str(error)
            self._apply(Event.FAIL)
            _log.error("%s:%d: load failed: %s", self.model, self.version, error)
            return
        wait = self._retry.wait(self.attempts)
        self.not_before = self._clock() + wait
        self.reason = f"attempt {self.attempts} failed, the next one follows in {wait:g} s: {error}"
        self._apply(Event.RETRY)
        _log.warning("%s:%d: load %s", self.model, self.version, self.reason)

    def _apply(self, event: Event) -> None:
        before = self.state
        self.state = next_state(before, event)
        if self.state is not before:
            _log.info("%s:%d: %s -> %s", self.model, self.version, before.value, self.state.value)

    @property
    def busy(self) -> bool:
        """A load thread is at work on it."""
        return self.state in BUSY
