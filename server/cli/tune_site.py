"""A model on a live server, as ``tensorwire tune`` changes and measures it, and puts it back."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...bench.processes import ChildError
from ...bench.tune.points import Point
from ...bench.tune.session import Refused
from ...rpc.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    RpcError,
    UnavailableError,
)
from .tuning import ask, followed
from .waiting import Look, wait_for

if TYPE_CHECKING:
    from ...bench.recorder import Measurement
    from ...bench.tune.crew import Crew
    from ...client import Client
    from ...manager.in_force import ModelSettings, VersionSettings

KIND: Final = "workers.kind"
COUNT: Final = "workers.count"
BATCH: Final = "batching.max_batch_size"
DELAY: Final = "batching.max_queue_delay"
SIZES: Final = "batching.allowed_batch_sizes"
KEYS: Final = (KIND, COUNT, BATCH, DELAY, SIZES)
#: Load before a new point is measured, seconds: workers start with their first batch.
_WARM_SECONDS: Final = 0.2
#: Seconds that workers have to come.
_WORKER_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.05
#: Without the server, or the model, there is nothing more to measure.
_LOST: Final = (UnavailableError, DeadlineExceededError, NotFoundError)


class Interfered(Exception):
    """Somebody else has changed the settings meanwhile; the text says which."""


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """What was in force before.

    Attributes:
        found: everything that the server says about it.
        version: the version that is measured.
        live: the keys of :data:`KEYS` that were set live, with their values.
    """

    found: ModelSettings
    version: VersionSettings
    live: dict[str, Any]

    @classmethod
    def of(cls, found: ModelSettings, version: int) -> Present:
        """Raises :class:`InvalidArgumentError` if the model is not in a state to be tuned."""
        for line in found.versions:
            if line.pending or line.failed or (line.version == version and not line.values):
                told = f" ({line.reason})" if line.reason else ""
                raise InvalidArgumentError(
                    f"{found.model}:{line.version} is {line.state}{told}; `tune` begins when all versions of "
                    "the model serve as they should"
                )
        (line,) = (line for line in found.versions if line.version == version)
        return cls(found=found, version=line, live=live_values(found))

    @property
    def batched(self) -> bool:
        """Requests are put together at present."""
        return bool(self.version.values["batching.enabled"])

    @property
    def point(self) -> Point:
        """As a point."""
        values = self.version.values
        return Point(values[KIND], values[COUNT], values[BATCH] or 1, values[DELAY])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that are allowed; empty: all."""
        return tuple(self.version.values[SIZES])

    def live_at(self, point: Point) -> dict[str, Any]:
        """The live values that make a point. Where it is like the present settings nothing is set, so that
        nothing is loaded again for a value that was the default."""
        here = self.point
        changed: dict[str, Any] = {}
        if point.kind != here.kind:
            changed[KIND] = point.kind
        if point.count != here.count or point.kind != here.kind:
            changed[COUNT] = point.count
        if point.batch != here.batch:
            changed[BATCH] = point.batch
            if self.sizes:
                smaller = [size for size in self.sizes if size < point.batch]
                changed[SIZES] = [*smaller, point.batch]
        if point.delay != here.delay:
            changed[DELAY] = point.delay
        return {**self.live, **changed}

    def gap(self, point: Point) -> str:
        """Why a point cannot be had without a gap in the service; empty if it can."""
        line = self.version
        covered = point.batch in line.warm_sizes if line.warm_sizes else point.batch <= line.warm_rows
        loads = point.kind != self.point.kind or (self.batched and not covered)
        if loads and self.found.transition == "resource":
            return 'needs a load, and with transition = "resource" nothing would serve meanwhile'
        return ""


def live_values(found: ModelSettings) -> dict[str, Any]:
    """The keys of :data:`KEYS` that are set live."""
    return {
        setting.key: setting.value
        for setting in found.settings
        if setting.key in KEYS and setting.origin == "live"
    }


class _Unset:
    """In place of a value: none was set live."""

    def __repr__(self) -> str:
        return "not set any more"


_UNSET: Final = _Unset()


class LiveSite:
    """See :class:`tensorwire.bench.tune.session.Site`.

    Args:
        connect: a new connection, for the end: the one in use may be in the middle of a call then.
        timeout: seconds that settings have to take effect.
    """

    def __init__(
        self, client: Client, connect: Callable[[], Client], present: Present, crew: Crew, timeout: float
    ) -> None:
        self.present = present
        #: Requests of others seen while measuring: for this model, for the other models.
        self.others = (0, 0)
        self.others_seconds = 0.0
        self._client = client
        self._connect = connect
        self._model = present.found.model
        self._crew = crew
        self._timeout = timeout
        #: What is set live, as far as is known here.
        self._set: Mapping[str, Any] = present.live
        #: Key -> every value that was asked for here: an interrupted call may or may not have been heard.
        self._asked: dict[str, list[Any]] = {key: [] for key in KEYS}
        self._remember(present.live)

    # ---------------------------------------------------------------- settings

    def apply(self, point: Point) -> None:
        """See :class:`~tensorwire.bench.tune.session.Site`.

        Raises:
            Interfered: somebody else has changed the settings.
            RpcError: the server is lost, or the model.
        """
        wanted = self.present.live_at(point)
        gap = self.present.gap(point)
        if gap:
            raise Refused(gap)
        if wanted == self._set:
            return
        try:
            problem = self._change(wanted)
        except _LOST:
            raise
        except RpcError as error:
            raise Refused(error.message) from None
        if problem:
            self._change(self.present.live)
            raise Refused(problem)
        self._crew.drive(2 * point.count, 0.0, _WARM_SECONDS)
        self._await_workers()

    def _change(self, wanted: Mapping[str, Any]) -> str:
        """Set these live values and no others; why they have not taken effect."""
        before = ask(self._client, self._model)
        theirs = sorted(_different(live_values(before), self._set))
        if theirs:
            live = live_values(before)
            told = ", ".join(f"{key} is {live.get(key, _UNSET)}" for key in theirs)
            raise Interfered(f"somebody else has changed the settings: {told}")
        self._remember(wanted)
        set_live(self._client, self._model, wanted)
        self._set = dict(wanted)
        follow = followed(self._client, before)
        return wait_for(self._client, self._model, follow, self._timeout, show=False).problem

    def _remember(self, live: Mapping[str, Any]) -> None:
        for key, values in self._asked.items():
            values.append(live.get(key, _UNSET))

    def _await_workers(self) -> None:
        """Processes take a while to come; until they are all there the figures are not those of the point."""

        def here(_: Look) -> str | None:
            found = ask(self._client, self._model)
            (line,) = (line for line in found.versions if line.version == self.present.version.version)
            return "" if line.workers in (None, line.values.get(COUNT)) else None

        wait_for(self._client, self._model, here, _WORKER_SECONDS, show=False)

    # ---------------------------------------------------------------- measuring

    def measure(self, callers: int, warmup: float, seconds: float) -> Measurement:
        """See :class:`~tensorwire.bench.tune.session.Site`."""
        before, calls, begun = self._arrived(), self._crew.calls, time.monotonic()
        try:
            measured = self._crew.drive(callers, warmup, seconds)
        except ChildError:
            # If the cause is that the server is gone, let that be the error.
            self._client.control("health")
            raise
        here, elsewhere = (now - then for now, then in zip(self._arrived(), before, strict=True))
        ours = self._crew.calls - calls
        self.others = self.others[0] + max(0, here - ours), self.others[1] + max(0, elsewhere)
        self.others_seconds += time.monotonic() - begun
        return measured

    def _arrived(self) -> tuple[int, int]:
        """Requests that the server has had for this model, and for the others."""
        here = elsewhere = 0
        for line in self._client.control("stats")["versions"]:
            count = line["requests"] + line["rejected"]
            if line["model"] == self._model:
                here += count
            else:
                elsewhere += count
        return here, elsewhere

    # ---------------------------------------------------------------- at the end

    def finish(self, wanted: Mapping[str, Any]) -> Callable[[float], str]:
        """Set the live values that are to stay, but leave alone what somebody else has set meanwhile.

        Over a connection of its own, and without waiting: what is returned waits, and says what went wrong.

        Raises:
            RpcError: the server is lost, or the model.
        """
        client = self._connect()
        try:
            before = ask(client, self._model)
            live = live_values(before)
            theirs = {key for key in KEYS if not self._is_ours(key, live.get(key, _UNSET))}
            staying = {key: value for key, value in live.items() if key in theirs}
            staying.update((key, value) for key, value in wanted.items() if key not in theirs)
            if _different(live, staying):
                set_live(client, self._model, staying)
        except BaseException:
            client.close()
            raise

        def wait(timeout: float) -> str:
            with client:
                return wait_for(client, self._model, followed(client, before), timeout, show=False).problem

        return wait

    def _is_ours(self, key: str, value: object) -> bool:
        return any(_equal(value, asked) for asked in self._asked[key])


def set_live(client: Client, model: str, wanted: Mapping[str, Any]) -> None:
    """Have exactly these of :data:`KEYS` set live."""
    reset = [key for key in KEYS if key not in wanted]
    client.control("models.set", {"model": model, "values": dict(wanted), "reset": reset})


def command(model: str, wanted: Mapping[str, Any]) -> str:
    """What an operator types to have these values live."""
    if not wanted:
        return f"tensorwire settings {model} --reset workers batching"
    typed = " ".join(
        shlex.quote(f"{key}={'none' if value is None else value}") for key, value in wanted.items()
    )
    return f"tensorwire settings {model} {typed}"


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """The keys that two sets of live values do not agree about."""
    return {key for key in KEYS if not _equal(one.get(key, _UNSET), other.get(key, _UNSET))}


def _equal(one: object, other: object) -> bool:
    """Lists come back as tuples, or the other way round."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return [*one] == [*other]  # pyright: ignore[reportUnknownArgumentType]
    return one == other


def server_pid(address: str) -> int | None:
    """The process that listens there, if it is on this machine and may be looked at."""
    import psutil

    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        if address.startswith("ipc://"):
            path = address.removeprefix("ipc://")
            found = [c for c in psutil.net_connections("unix") if c.laddr == path]
        elif host in _own_addresses():
            listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
            found = [c for c in listening if c.laddr and str(c.laddr[1]) == port]
        else:
            return None
    except (psutil.Error, OSError):
        return None
    pids = {connection.pid for connection in found} - {None}
    return pids.pop() if len(pids) == 1 else None


def _own_addresses() -> set[str]:
    import psutil

    found = {address.address for card in psutil.net_if_addrs().values() for address in card}
    return {*found, "localhost", "127.0.0.1", "[::1]"}


def server_cores(pid: int | None) -> int:
    """Cores that a server may use; of this machine where it is elsewhere."""
    import psutil

    try:
        return len(psutil.Process(pid).cpu_affinity() or ()) or 1
    except psutil.Error:
        return psutil.cpu_count() or 1
