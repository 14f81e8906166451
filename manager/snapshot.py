"""Snapshot: who serves what at this moment. Immutable; a new one takes its place after every change.

``resolve`` is called once per bundle, so its good path is a few dictionary look-ups; everything that
only explains a refusal lives in functions of its own.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from ..rpc.errors import InvalidArgumentError, NotFoundError, RpcError, UnavailableError
from .handle import ServableHandle
from .states import LEAVING, PENDING, State

_EMPTY: Final[Mapping[str, ServingModel]] = MappingProxyType({})
_LISTED = 8


class Target:
    """One target of a route: what the operator wrote, its weight, and who serves it at present."""

    __slots__ = ("handle", "name", "weight")

    def __init__(self, name: str, weight: float, handle: ServableHandle | None) -> None:
        self.name = name
        self.weight = weight
        self.handle = handle


class Route:
    """Splits requests that name neither version nor label.

    A target that does not serve at present gives its share to the others in proportion; the requests of
    the others stay where they are, so sticky keys do not move.

    Attributes:
        targets: in the operator's order.
        sticky: requests with the same routing key go to the same target.
        shadow: gets a copy of ``shadow_fraction`` of the requests; ``None`` when there is none or it does
            not serve at present.
    """

    __slots__ = ("_bounds", "_handles", "_salt", "_serving", "shadow", "shadow_fraction", "sticky", "targets")

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        sticky: bool = False,
        shadow: ServableHandle | None = None,
        shadow_fraction: float = 0.0,
        salt: str = "",
    ) -> None:
        self.targets = tuple(targets)
        self.sticky = sticky
        self.shadow = shadow
        self.shadow_fraction = shadow_fraction
        # Salted, so that the canary of one model does not always meet the same users as that of another.
        self._salt = zlib.crc32(salt.encode())
        self._bounds = _cumulative([target.weight for target in self.targets])
        self._handles = tuple(target.handle for target in self.targets)
        self._serving: tuple[list[float], tuple[ServableHandle, ...]] = _serving_part(self.targets)

    def pick(self, key: bytes | None, draw: float) -> ServableHandle | None:
        """Target for one bundle; ``None`` when no target serves.

        Args:
            key: routing key; decides alone when the route is sticky.
            draw: uniform in [0, 1).
        """
        if self.sticky and key is not None:
            draw = stable_fraction(key, self._salt)
        bounds = self._bounds
        index = bisect_right(bounds, draw, 0, len(bounds) - 1)
        handle = self._handles[index]
        return handle if handle is not None else self._pick_instead(index, draw)

    def _pick_instead(self, index: int, draw: float) -> ServableHandle | None:
        bounds, handles = self._serving
        if not handles:
            return None
        low = self._bounds[index - 1] if index else 0.0
        width = self._bounds[index] - low
        # Where the draw lies within the missing target's share is uniform again, and as stable as the draw.
        again = (draw - low) / width if width > 0 else 0.0
        return handles[bisect_right(bounds, again, 0, len(bounds) - 1)]


def _cumulative(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    bounds: list[float] = []
    running = 0.0
    for weight in weights:
        running += weight
        bounds.append(running / total if total > 0 else 1.0)
    return bounds


def _serving_part(targets: Sequence[Target]) -> tuple[list[float], tuple[ServableHandle, ...]]:
    pairs = [(target.weight, target.handle) for target in targets if target.handle is not None]
    return _cumulative([weight for weight, _ in pairs]), tuple(handle for _, handle in pairs)


def stable_fraction(key: bytes, salt: int = 0) -> float:
    """Uniform in [0, 1), the same for the same key in every process and on every machine."""
    value = zlib.crc32(key, salt)
    # CRC-32 is linear: keys that differ in one digit land in few places. MurmurHash3's finaliser mixes it.
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return (value ^ (value >> 16)) / 4294967296.0


class Absent:
    """Why a known version does not serve."""

    __slots__ = ("reason", "state")

    def __init__(self, state: State, reason: str) -> None:
        self.state = state
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.state.value}{': ' + self.reason if self.reason else ''}"


class ServingModel:
    """One model as it serves at this moment.

    Attributes:
        name: model name.
        versions: AVAILABLE versions.
        labels: label -> the version it is bound to; every one of them serves.
        default: version for requests that name neither version nor label; ``None`` when a route decides
            or nothing serves.
        route: split of the default traffic.
        declared: label -> the version it was given, served or not.
        absent: known versions that do not serve, and why.
    """

    __slots__ = (
        "_by_label",
        "_default",
        "absent",
        "declared",
        "default",
        "labels",
        "name",
        "route",
        "versions",
    )

    def __init__(
        self,
        name: str,
        versions: Mapping[int, ServableHandle],
        *,
        labels: Mapping[str, int] | None = None,
        default: int | None = None,
        route: Route | None = None,
        declared: Mapping[str, int] | None = None,
        absent: Mapping[int, Absent] | None = None,
    ) -> None:
        self.name = name
        self.versions: Mapping[int, ServableHandle] = MappingProxyType(dict(versions))
        self.labels: Mapping[str, int] = MappingProxyType(dict(labels or {}))
        self.default = default
        self.route = route
        self.declared: Mapping[str, int] = MappingProxyType({**self.labels, **(declared or {})})
        self.absent: Mapping[int, Absent] = MappingProxyType(dict(absent or {}))
        self._by_label = {label: versions[version] for label, version in self.labels.items()}
        self._default = None if default is None else versions.get(default)

    def find(self, version: int | None, label: str | None, key: bytes | None, draw: float) -> ServableHandle:
        """See :meth:`Snapshot.resolve`."""
        if version is not None:
            if label is not None:
                raise _both(self, version, label)
            handle = self.versions.get(version)
        elif label is not None:
            handle = self._by_label.get(label)
        elif self.route is not None:
            handle = self.route.pick(key, draw)
        else:
            handle = self._default
        if handle is None:
            raise _refusal(self, version, label)
        return handle


class Snapshot:
    """What every model serves; ``serial`` grows with each publication."""

    __slots__ = ("models", "serial")

    def __init__(self, serial: int = 0, models: Mapping[str, ServingModel] = _EMPTY) -> None:
        self.serial = serial
        self.models: Mapping[str, ServingModel] = MappingProxyType(dict(models))

    def resolve(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        key: bytes | None = None,
        draw: float = 0.0,
    ) -> ServableHandle:
        """The version that is to run a bundle.

        Args:
            model: model name.
            version: exact version, or ``None``.
            label: label, or ``None``. Neither means the route, else the default version.
            key: routing key of the bundle, for sticky routes.
            draw: the caller's uniform random number in [0, 1), for routes.

        Raises:
            NotFoundError: no such model, version or label; names the known ones.
            UnavailableError: it is known, and loading or being unloaded at the moment.
            InvalidArgumentError: both ``version`` and ``label`` were given.
        """
        serving = self.models.get(model)
        if serving is None:
            raise _unknown_model(self, model)
        return serving.find(version, label, key, draw)


def _listing(names: Sequence[object]) -> str:
    if not names:
        return "none"
    shown = ", ".join(str(name) for name in names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


def _unknown_model(snapshot: Snapshot, model: str) -> RpcError:
    return NotFoundError(f"no model {model!r}; models here: {_listing(sorted(snapshot.models))}")


def _both(serving: ServingModel, version: int, label: str) -> RpcError:
    return InvalidArgumentError(
        f"model {serving.name!r}: got version {version} and label {label!r}; give one of them or neither"
    )


def _refusal(serving: ServingModel, version: int | None, label: str | None) -> RpcError:
    if version is not None:
        return _version_refusal(serving, version, f"version {version}")
    if label is not None:
        target = serving.declared.get(label)
        if target is None:
            known = _listing(sorted(serving.declared))
            return NotFoundError(f"model {serving.name!r} has no label {label!r}; labels: {known}")
        return _version_refusal(serving, target, f"label {label!r} points at version {target}, which")
    pinned = serving.declared.get(DEFAULT_LABEL)
    if serving.route is None and pinned is not None:
        return _version_refusal(serving, pinned, f"label {DEFAULT_LABEL!r} points at version {pinned}, which")
    if serving.route is not None and serving.versions:
        names = _listing([target.name for target in serving.route.targets])
        return _by_hope(serving, f"no target of its route serves (targets: {names})")
    return _by_hope(serving, "no version serves")


def _version_refusal(serving: ServingModel, version: int, subject: str) -> RpcError:
    where = f"model {serving.name!r}: {subject}"
    available = f"available versions: {_listing(sorted(serving.versions))}"
    absent = serving.absent.get(version)
    if absent is None:
        return NotFoundError(f"{where} is not there; {available}")
    kind = UnavailableError if absent.state in PENDING | LEAVING else NotFoundError
    return kind(f"{where} is {absent}; {available}")


def _by_hope(serving: ServingModel, what: str) -> RpcError:
    states = _listing([f"{version} is {absent}" for version, absent in sorted(serving.absent.items())])
    pending = any(absent.state in PENDING for absent in serving.absent.values())
    kind = UnavailableError if pending else NotFoundError
    return kind(f"model {serving.name!r}: {what}; versions: {states}")


#: A label with this name decides the default version where there is no route.
DEFAULT_LABEL: Final = "default"
