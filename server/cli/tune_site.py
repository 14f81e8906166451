"""A model on a live server, as ``tensorwire tune`` changes and measures it, and puts it back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ...bench.processes import ChildError
from ...bench.tune.points import Point
from ...bench.tune.session import Refused
from ...bench.tune.toml import COUNT
from ...rpc.errors import (
    DeadlineExceededError,
    NotFoundError,
    RpcError,
    UnavailableError,
)
from .tune_present import KEYS, Present, live_values, set_live
from .tuning import ask, followed
from .waiting import Look, wait_for

if TYPE_CHECKING:
    from ...bench.recorder import Measurement
    from ...bench.tune.crew import Crew
    from ...client import Client

#: Load before a new point is measured, seconds: workers start with their first batch.
_WARM_SECONDS: Final = 0.2
#: Seconds that workers have to come.
_WORKER_SECONDS: Final = 20.0
#: Without the server, or the model, there is nothing more to measure.
_LOST: Final = (UnavailableError, DeadlineExceededError, NotFoundError)


class Interfered(Exception):
    """Somebody else has changed the settings meanwhile; the text says which."""


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


def _different(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """The keys that two sets of live values do not agree about."""
    return {key for key in KEYS if not _equal(one.get(key, _UNSET), other.get(key, _UNSET))}


def _equal(one: object, other: object) -> bool:
    """Lists come back as tuples, or the other way round."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return [*one] == [*other]  # pyright: ignore[reportUnknownArgumentType]
    return one == other
