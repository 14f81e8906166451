"""Intent: what operators asked for at run time, on top of model.toml; and the choice of versions.

Intents are immutable, so the thread that polls the repository reads them without a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .config import ModelConfig, RouteConfig
from .tuning import lay_over, outlasting

if TYPE_CHECKING:
    from .source import ModelScan


class Intent(msgspec.Struct, frozen=True):
    """Run-time wishes for one model; they last until the server stops or the same key of model.toml changes.

    ``labels`` maps to ``None`` where a label of model.toml was removed. ``bound`` are the versions that
    labels point at until their new target serves. ``settings`` lie over model.toml, key by key (``tuning``).
    """

    disabled: bool = False
    loaded: frozenset[int] = frozenset()
    unloaded: frozenset[int] = frozenset()
    labels: Mapping[str, int | None] = {}
    route: RouteConfig | None = None
    route_set: bool = False
    bound: frozenset[int] = frozenset()
    #: version -> how often a reload was asked for.
    reloads: Mapping[int, int] = {}
    settings: Mapping[str, Any] = {}


NO_INTENT = Intent()


def declared_labels(config: ModelConfig, intent: Intent) -> dict[str, int]:
    """Label -> version as declared: those of model.toml, overridden at run time."""
    merged: dict[str, int | None] = {**config.labels, **intent.labels}
    return {label: version for label, version in merged.items() if version is not None}


def declared_route(config: ModelConfig, intent: Intent) -> RouteConfig | None:
    """The route in force: the one set at run time, else that of model.toml."""
    return intent.route if intent.route_set else config.route


def not_overridden(intent: Intent, before: ModelScan, now: ModelScan) -> Intent:
    """What is left of the wishes when model.toml changes: whoever spoke last about a key wins."""
    old, new = before.config, now.config
    labels = {
        label: version
        for label, version in intent.labels.items()
        if old.labels.get(label) == new.labels.get(label)
    }
    route_set = intent.route_set and old.route == new.route
    settings = outlasting(intent.settings, before.written, now.written, new)
    if (len(labels), route_set, settings) == (len(intent.labels), intent.route_set, intent.settings):
        return intent
    return msgspec.structs.replace(intent, labels=labels, route_set=route_set, settings=settings)


def with_settings(scans: Mapping[str, ModelScan], intents: Mapping[str, Intent]) -> dict[str, ModelScan]:
    """What the source found, with the live settings laid over every model.toml."""
    laid = dict(scans)
    for name in scans.keys() & intents.keys():
        config = lay_over(scans[name].config, intents[name].settings, source=f"model {name!r}")
        laid[name] = msgspec.structs.replace(scans[name], config=config)
    return laid


def pinned_versions(config: ModelConfig, intent: Intent) -> set[int]:
    """Versions that stay whatever the version policy says: labels, routes and operators name them."""
    pinned = {*declared_labels(config, intent).values(), *intent.loaded}
    if config.versions.transition == "availability":
        pinned |= intent.bound
    route = declared_route(config, intent)
    if route is not None:
        names = [*route.targets, *([route.shadow] if route.shadow else [])]
        pinned |= {int(name) for name in names if is_version(name)}
    return pinned


def is_version(name: str) -> bool:
    """Whether a route's target is a version number rather than a label."""
    return name.isascii() and name.isdigit()


def select_versions(
    found: Iterable[int], config: ModelConfig, intent: Intent, ready: Callable[[int], bool]
) -> set[int]:
    """The aspired versions of one model.

    Args:
        found: versions in the repository.
        config: the model's model.toml.
        intent: the operator's wishes. A version that was unloaded by hand is passed over, so that the
            next lower one takes its place under ``latest``.
        ready: whether a version is complete on disk; asked only for versions that could be chosen.
    """
    if intent.disabled:
        return set()
    visible = sorted((version for version in found if version not in intent.unloaded), reverse=True)
    pinned = pinned_versions(config, intent)
    chosen = {version for version in visible if version in pinned and ready(version)}
    versions = config.versions
    if versions.policy == "all":
        return chosen | {version for version in visible if ready(version)}
    if versions.policy == "specific":
        return chosen | {version for version in visible if version in versions.specific and ready(version)}
    latest: set[int] = set()
    for version in visible:
        if len(latest) == versions.count:
            break
        if ready(version):
            latest.add(version)
    return chosen | latest
