"""What is in force when ``tensorwire tune`` begins, and what has to be set live to have something else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...bench.tune.points import Point
from ...bench.tune.toml import BATCH, COUNT, DECIDED, DELAY, KIND, SIZES
from ...manager.in_force import ModelSettings, VersionSettings
from ...rpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ...client import Client

#: The keys that a sweep changes.
KEYS: Final = DECIDED


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
