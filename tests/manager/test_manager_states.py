from __future__ import annotations

import itertools

import pytest
from tensorwire.manager.states import (
    BUSY,
    LEAVING,
    PENDING,
    TRANSITIONS,
    Event,
    IllegalTransition,
    State,
    next_state,
)

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_is_either_in_the_table_or_refused(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.value} cannot happen in state {state.value}"):
            next_state(state, event)


def test_only_a_warm_up_makes_a_version_available() -> None:
    ways = [pair for pair, target in TRANSITIONS.items() if target is State.AVAILABLE]
    assert ways == [(State.WARMING, Event.WARMED)]


def test_what_served_gives_its_memory_back_before_it_is_gone_or_failed() -> None:
    assert {t for (s, _), t in TRANSITIONS.items() if s is State.AVAILABLE} == {
        State.UNLOADING,
        State.BROKEN,
    }
    assert {t for (s, _), t in TRANSITIONS.items() if s is State.BROKEN} == {
        State.BROKEN,
        State.UNLOADING,
        State.FAILED,
    }
    assert {t for (s, _), t in TRANSITIONS.items() if s is State.UNLOADING} == {
        State.UNLOADING,
        State.UNLOADED,
    }


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_retired_and_ends_unloaded(state: State) -> None:
    assert (state, Event.RETIRE) in TRANSITIONS
    reached, frontier = {state}, {state}
    while frontier:
        frontier = {t for (s, _), t in TRANSITIONS.items() if s in frontier} - reached
        reached |= frontier
    assert State.UNLOADED in reached


@pytest.mark.parametrize("state", State)
def test_a_retired_version_never_serves_again(state: State) -> None:
    reached = frontier = {next_state(state, Event.RETIRE)}
    while frontier:
        frontier = {t for (s, _), t in TRANSITIONS.items() if s in frontier} - reached
        reached = reached | frontier
    assert State.AVAILABLE not in reached


def test_unloaded_is_the_end() -> None:
    assert {t for (s, _), t in TRANSITIONS.items() if s is State.UNLOADED} == {State.UNLOADED}


def test_every_state_but_the_first_is_reached_from_another() -> None:
    entered = {t for (s, _), t in TRANSITIONS.items() if s is not t}
    assert entered == set(State) - {State.NEW}


def test_groups_of_states_do_not_contradict() -> None:
    assert not PENDING & LEAVING
    assert {State.LOADING, State.WARMING} == BUSY & PENDING
