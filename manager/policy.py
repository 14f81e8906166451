"""Version policies: stateless functions from a snapshot of one model's versions to the next action.

Both policies are asked again after every action until they have none; waiting is simply "no action".
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from .states import LEAVING, PENDING, State


class VersionView(msgspec.Struct, frozen=True):
    """What a policy knows about one version.

    ``key`` is unique among the versions of a model: a version that is being replaced by itself under a
    new configuration appears twice, and only the new one is ``aspired``.
    """

    key: int
    version: int
    state: State
    aspired: bool
    #: An operator asked for the unload: it does not wait for a replacement that cannot come.
    forced: bool = False
    #: WAITING for memory that somebody else holds.
    starved: bool = False


class ActionKind(StrEnum):
    """What a policy can ask for."""

    LOAD = "LOAD"
    UNLOAD = "UNLOAD"


class Action(msgspec.Struct, frozen=True):
    """Load or unload the version whose view has this ``key``."""

    kind: ActionKind
    key: int


class VersionPolicy(Protocol):
    """Decides the next action for one model; keeps no state."""

    def next_action(self, versions: Sequence[VersionView]) -> Action | None:
        """The next action, or ``None`` when there is nothing to do at present."""
        ...


#: Unaspired versions that an UNLOAD action still changes something for.
_STOPPABLE = PENDING | {State.AVAILABLE, State.FAILED}


def _newest(views: Sequence[VersionView]) -> VersionView | None:
    return max(views, key=lambda view: (view.version, view.key), default=None)


def _oldest(views: Sequence[VersionView]) -> VersionView | None:
    return min(views, key=lambda view: (view.version, view.key), default=None)


def _next_load(versions: Sequence[VersionView]) -> Action | None:
    view = _newest([view for view in versions if view.aspired and view.state is State.NEW])
    return None if view is None else Action(ActionKind.LOAD, view.key)


class AvailabilityPreservingPolicy:
    """Load the new before the old is unloaded, so that something always serves. Needs room for both."""

    def next_action(self, versions: Sequence[VersionView]) -> Action | None:
        """An unaspired version goes once its replacement serves, or when none is wanted."""
        removable = [view for view in versions if not view.aspired and self._may_go(view, versions)]
        gone = _oldest(removable)
        if gone is not None:
            return Action(ActionKind.UNLOAD, gone.key)
        return _next_load(versions)

    @staticmethod
    def _may_go(view: VersionView, versions: Sequence[VersionView]) -> bool:
        if view.state not in _STOPPABLE:
            return False
        if view.state is not State.AVAILABLE:
            return True
        aspired = [other for other in versions if other.aspired]
        # A version that is wanted in a new form is replaced by that form only; any other version by any.
        successors = [other for other in aspired if other.version == view.version] or aspired
        if not successors or any(other.state is State.AVAILABLE for other in successors):
            return True
        hopeless = all(other.state is State.FAILED or other.starved for other in successors)
        return view.forced and hopeless


class ResourcePreservingPolicy:
    """Unload the old before the new is loaded: room for one is enough, with a gap between the two."""

    def next_action(self, versions: Sequence[VersionView]) -> Action | None:
        """Unaspired versions go at once; nothing loads until they are gone."""
        gone = _oldest([view for view in versions if not view.aspired and view.state in _STOPPABLE])
        if gone is not None:
            return Action(ActionKind.UNLOAD, gone.key)
        if any(not view.aspired and view.state in LEAVING for view in versions):
            return None
        return _next_load(versions)


_AVAILABILITY = AvailabilityPreservingPolicy()
_RESOURCE = ResourcePreservingPolicy()


def policy_for(transition: str) -> VersionPolicy:
    """The policy that ``[versions] transition`` in model.toml names: ``availability`` or ``resource``."""
    return _RESOURCE if transition == "resource" else _AVAILABILITY
