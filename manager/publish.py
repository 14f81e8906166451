"""From the fleet to what others see: the snapshot that serves, and the status table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..rpc.types import VersionStatus
from .config import RouteConfig
from .fleet import Fleet, Member, ModelGroup
from .handle import ServableHandle
from .harness import LoaderHarness
from .intent import NO_INTENT, Intent, declared_labels, declared_route, is_version
from .snapshot import DEFAULT_LABEL, Absent, Route, ServingModel, Snapshot, Target
from .states import PENDING, State

#: Stands for "no version" in the status line of a model that has a problem and no versions.
NO_VERSION = -1


def build_snapshot(fleet: Fleet, intents: Mapping[str, Intent], serial: int) -> Snapshot:
    """The snapshot of this moment. Also moves labels to their new versions where those serve now."""
    models = {name: _serving(group, intents.get(name, NO_INTENT)) for name, group in fleet.groups.items()}
    return Snapshot(serial, models)


def _serving(group: ModelGroup, intent: Intent) -> ServingModel:
    config = group.scan.config
    versions = _available(group)
    declared = declared_labels(config, intent)
    group.bound = _bind(declared, group.bound, versions)
    route_config = declared_route(config, intent)
    route = None if route_config is None else _route(group.scan.name, route_config, versions, group.bound)
    return ServingModel(
        group.scan.name,
        versions,
        labels=group.bound,
        default=_default(versions, declared, group.bound, route),
        route=route,
        declared=declared,
        absent=_absent(group, versions, intent),
    )


def _available(group: ModelGroup) -> dict[int, ServableHandle]:
    """AVAILABLE versions. Of a version that is just being replaced by itself, the newer one."""
    handles: dict[int, ServableHandle] = {}
    for member in group.members:
        if member.harness.state is State.AVAILABLE and member.harness.handle is not None:
            handles[member.harness.version] = member.harness.handle
    return dict(sorted(handles.items()))


def _bind(
    declared: Mapping[str, int], bound: Mapping[str, int], versions: Mapping[int, ServableHandle]
) -> dict[str, int]:
    """A label moves when its new version serves; until then it stays where it was, if that still serves."""
    result: dict[str, int] = {}
    for label, target in declared.items():
        if target in versions:
            result[label] = target
        elif label in bound and bound[label] in versions:
            result[label] = bound[label]
    return result


def _default(
    versions: Mapping[int, ServableHandle],
    declared: Mapping[str, int],
    bound: Mapping[str, int],
    route: Route | None,
) -> int | None:
    if route is not None:
        return None
    if DEFAULT_LABEL in declared:
        # Pinned: serving another version than the one the operator named would be worse than an error.
        return bound.get(DEFAULT_LABEL)
    return max(versions, default=None)


def _route(
    model: str, config: RouteConfig, versions: Mapping[int, ServableHandle], bound: Mapping[str, int]
) -> Route:
    def handle_of(name: str) -> ServableHandle | None:
        version = int(name) if is_version(name) else bound.get(name)
        return None if version is None else versions.get(version)

    shadow = None if config.shadow is None else handle_of(config.shadow)
    return Route(
        [Target(name, weight, handle_of(name)) for name, weight in config.targets.items()],
        sticky=config.sticky,
        shadow=shadow,
        shadow_fraction=0.0 if shadow is None else config.shadow_fraction,
        salt=model,
    )


def _absent(group: ModelGroup, versions: Mapping[int, ServableHandle], intent: Intent) -> dict[int, Absent]:
    """Why each version that does not serve does not."""
    absent: dict[int, Absent] = {}
    for version in group.scan.found:
        unloaded = intent.disabled or version in intent.unloaded
        reason = "unloaded by an operator" if unloaded else "not chosen by the version policy"
        absent[version] = Absent(State.UNLOADED, reason)
    for version, reason in group.scan.held.items():
        absent[version] = Absent(State.WAITING, reason)
    for member in group.members:
        harness = member.harness
        absent[harness.version] = Absent(harness.state, harness.reason)
    return {version: value for version, value in absent.items() if version not in versions}


def build_status(fleet: Fleet, snapshot: Snapshot) -> list[VersionStatus]:
    """One line per version that is wanted or not gone yet, by model and version."""
    lines: list[VersionStatus] = []
    for name, group in sorted(fleet.groups.items()):
        lines.extend(_model_status(group, snapshot.models.get(name)))
    return lines


def _model_status(group: ModelGroup, serving: ServingModel | None) -> Iterator[VersionStatus]:
    by_version: dict[int, list[Member]] = {}
    for member in group.members:
        by_version.setdefault(member.harness.version, []).append(member)
    problem = group.scan.problem
    for version in sorted({*by_version, *group.scan.held}):
        members = by_version.get(version, [])
        held = group.scan.held.get(version, "")
        yield _version_status(group, version, members, held, problem, serving)
    if problem and not by_version and not group.scan.held:
        yield VersionStatus(
            model=group.scan.name, version=NO_VERSION, state=State.FAILED.value, reason=problem
        )


def _version_status(
    group: ModelGroup,
    version: int,
    members: Sequence[Member],
    held: str,
    problem: str,
    serving: ServingModel | None,
) -> VersionStatus:
    shown = _shown(members)
    others = _replacements(members, shown)
    reasons = (
        [held, problem]
        if shown is None
        else [shown.harness.reason, shown.note, shown.refused, *map(_told, others), problem]
    )
    handle = None if shown is None else shown.harness.handle
    labels = () if serving is None else tuple(label for label, at in serving.labels.items() if at == version)
    if shown is not None and shown.harness.state in (State.UNLOADING, State.BROKEN) and handle is not None:
        reasons.insert(0, f"waits for {handle.references} running batches or requests")
    return VersionStatus(
        model=group.scan.name,
        version=version,
        state=State.WAITING.value if shown is None else shown.harness.state.value,
        labels=tuple(sorted(labels)),
        default=serving is not None and serving.default == version,
        workers=(handle.config.workers.count or 0) if handle is not None else 0,
        ram_bytes=sum(member.harness.estimate or 0 for member in members),
        reason="; ".join(reason for reason in reasons if reason),
        replacement=others[-1].state.value if others else "",
    )


def _shown(members: Sequence[Member]) -> Member | None:
    """The member that tells most about a version: the one that serves, else the newest."""
    serving = [member for member in members if member.harness.state is State.AVAILABLE]
    return (serving or list(members) or [None])[-1]


def _replacements(members: Sequence[Member], shown: Member | None) -> list[LoaderHarness]:
    """What is to take the place of the member that is shown: one at most, for all that the fleet does."""
    waited_for = PENDING | {State.FAILED}
    return [m.harness for m in members if m is not shown and m.aspired and m.harness.state in waited_for]


def _told(replacement: LoaderHarness) -> str:
    reason = f": {replacement.reason}" if replacement.reason else ""
    return f"its replacement is {replacement.state.value}{reason}"
