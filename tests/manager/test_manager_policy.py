from __future__ import annotations

import itertools

import pytest
from tensorwire.manager.policy import (
    Action,
    ActionKind,
    AvailabilityPreservingPolicy,
    ResourcePreservingPolicy,
    VersionView,
    policy_for,
)
from tensorwire.manager.states import State

AVAILABILITY = AvailabilityPreservingPolicy()
RESOURCE = ResourcePreservingPolicy()


def view(
    version: int, state: State, aspired: bool = True, key: int | None = None, **more: bool
) -> VersionView:
    return VersionView(version if key is None else key, version, state, aspired, **more)


def load(key: int) -> Action:
    return Action(ActionKind.LOAD, key)


def unload(key: int) -> Action:
    return Action(ActionKind.UNLOAD, key)


@pytest.mark.parametrize("policy", [AVAILABILITY, RESOURCE])
def test_nothing_to_do(policy: AvailabilityPreservingPolicy) -> None:
    assert policy.next_action([]) is None
    assert policy.next_action([view(1, State.AVAILABLE)]) is None
    assert policy.next_action([view(1, State.FAILED)]) is None


@pytest.mark.parametrize("policy", [AVAILABILITY, RESOURCE])
def test_the_highest_new_version_loads_first(policy: AvailabilityPreservingPolicy) -> None:
    assert policy.next_action([view(1, State.NEW), view(3, State.NEW), view(2, State.NEW)]) == load(3)


@pytest.mark.parametrize("policy", [AVAILABILITY, RESOURCE])
@pytest.mark.parametrize("state", [State.NEW, State.WAITING, State.LOADING, State.WARMING, State.FAILED])
def test_what_does_not_serve_and_is_not_wanted_goes_at_once(
    policy: AvailabilityPreservingPolicy, state: State
) -> None:
    assert policy.next_action([view(1, state, aspired=False), view(2, State.LOADING)]) == unload(1)


@pytest.mark.parametrize("policy", [AVAILABILITY, RESOURCE])
def test_without_any_wanted_version_everything_goes_oldest_first(
    policy: AvailabilityPreservingPolicy,
) -> None:
    views = [view(2, State.AVAILABLE, aspired=False), view(1, State.AVAILABLE, aspired=False)]
    assert policy.next_action(views) == unload(1)


ON_THE_WAY = [State.WAITING, State.LOADING, State.WARMING, State.FAILED]


@pytest.mark.parametrize("state", ON_THE_WAY)
def test_availability_keeps_the_old_until_the_new_serves(state: State) -> None:
    assert AVAILABILITY.next_action([view(1, State.AVAILABLE, aspired=False), view(2, state)]) is None


def test_availability_loads_then_unloads() -> None:
    old = view(1, State.AVAILABLE, aspired=False)
    assert AVAILABILITY.next_action([old, view(2, State.NEW)]) == load(2)
    assert AVAILABILITY.next_action([old, view(2, State.AVAILABLE)]) == unload(1)


def test_resource_unloads_then_loads() -> None:
    assert RESOURCE.next_action([view(1, State.AVAILABLE, aspired=False), view(2, State.NEW)]) == unload(1)
    for leaving in (State.UNLOADING, State.CANCELLING):
        assert RESOURCE.next_action([view(1, leaving, aspired=False), view(2, State.NEW)]) is None
    assert RESOURCE.next_action([view(1, State.UNLOADED, aspired=False), view(2, State.NEW)]) == load(2)


@pytest.mark.parametrize("state", [*ON_THE_WAY, State.NEW])
def test_a_version_is_replaced_by_its_own_new_form_only(state: State) -> None:
    old = view(2, State.AVAILABLE, aspired=False, key=1)
    other = view(3, State.AVAILABLE, key=2)
    action = AVAILABILITY.next_action([old, other, view(2, state, key=4)])
    assert action == (load(4) if state is State.NEW else None)
    assert AVAILABILITY.next_action([old, other, view(2, State.AVAILABLE, key=4)]) == unload(1)


@pytest.mark.parametrize(
    ("successor", "goes"),
    [
        (view(1, State.FAILED), True),
        (view(1, State.WAITING, starved=True), True),
        (view(1, State.WAITING), False),
        (view(1, State.LOADING), False),
    ],
)
def test_an_operators_unload_waits_only_for_a_replacement_that_can_come(
    successor: VersionView, goes: bool
) -> None:
    old = view(2, State.AVAILABLE, aspired=False, forced=True)
    assert AVAILABILITY.next_action([old, successor]) == (unload(2) if goes else None)


def test_availability_never_takes_the_last_serving_version_while_a_replacement_may_come() -> None:
    """For every snapshot of three versions."""
    kinds = [(state, aspired) for state in State for aspired in (True, False)]
    for combination in itertools.product(kinds, repeat=3):
        views = [view(n, state, aspired) for n, (state, aspired) in enumerate(combination, start=1)]
        action = AVAILABILITY.next_action(views)
        if action is None or action.kind is ActionKind.LOAD:
            continue
        target = views[action.key - 1]
        assert not target.aspired
        if target.state is State.AVAILABLE and any(v.aspired for v in views):
            assert any(v.aspired and v.state is State.AVAILABLE for v in views)


@pytest.mark.parametrize("policy", [AVAILABILITY, RESOURCE])
def test_actions_are_always_legal(policy: AvailabilityPreservingPolicy) -> None:
    kinds = [(state, aspired) for state in State for aspired in (True, False)]
    for combination in itertools.product(kinds, repeat=2):
        views = [view(n, state, aspired) for n, (state, aspired) in enumerate(combination, start=1)]
        action = policy.next_action(views)
        if action is None:
            continue
        target = views[action.key - 1]
        if action.kind is ActionKind.LOAD:
            assert target.aspired
            assert target.state is State.NEW
        else:
            assert not target.aspired
            assert target.state not in (State.UNLOADING, State.UNLOADED, State.CANCELLING)


def test_names_in_the_configuration() -> None:
    assert isinstance(policy_for("availability"), AvailabilityPreservingPolicy)
    assert isinstance(policy_for("resource"), ResourcePreservingPolicy)
