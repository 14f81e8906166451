"""The state machine of one model version: states, events and the one table that joins them.

The names follow TensorFlow Serving's ``LoaderHarness::State``; ``CANCELLING`` exists because a load
that is running inside an engine cannot be stopped, only its result thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """Where one version stands."""

    #: Wanted; the version policy has not let it load yet.
    NEW = "NEW"
    #: May load; waits for a load thread, for memory, or for the time of its next attempt.
    WAITING = "WAITING"
    #: A load thread reads the files.
    LOADING = "LOADING"
    #: Loaded; every allowed batch size is being run once.
    WARMING = "WARMING"
    #: Serves requests.
    AVAILABLE = "AVAILABLE"
    #: Its workers keep dying: takes no new requests and gives its memory back, then it is FAILED.
    BROKEN = "BROKEN"
    #: Takes no new requests; waits until the running ones are done, then frees its memory.
    UNLOADING = "UNLOADING"
    #: No longer wanted while a load thread was at work; its result is thrown away.
    CANCELLING = "CANCELLING"
    #: Given up; starts afresh when its files or its configuration change, or when told to load.
    FAILED = "FAILED"
    #: Nothing of it is left in memory.
    UNLOADED = "UNLOADED"


class Event(StrEnum):
    """What can happen to one version."""

    #: The policy lets it load.
    APPROVE = "APPROVE"
    #: A load thread takes it.
    START = "START"
    #: Its memory does not fit at present.
    BLOCK = "BLOCK"
    #: The engine has loaded it.
    LOADED = "LOADED"
    #: The warm-up succeeded: it can serve.
    WARMED = "WARMED"
    #: The attempt failed and another one follows.
    RETRY = "RETRY"
    #: The attempt failed and no other follows.
    FAIL = "FAIL"
    #: Its workers keep dying.
    BREAK = "BREAK"
    #: Not wanted any longer: unaspired, replaced, or the manager closes.
    RETIRE = "RETIRE"
    #: Its memory has been given back.
    RELEASED = "RELEASED"


class IllegalTransition(RuntimeError):
    """An event that cannot happen in the present state: a fault in the manager, never in a model."""


_S, _E = State, Event

#: (state, event) -> next state. A pair that is missing is illegal.
TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (_S.NEW, _E.APPROVE): _S.WAITING,
        (_S.NEW, _E.RETIRE): _S.UNLOADED,
        (_S.WAITING, _E.START): _S.LOADING,
        (_S.WAITING, _E.RETIRE): _S.UNLOADED,
        (_S.LOADING, _E.BLOCK): _S.WAITING,
        (_S.LOADING, _E.LOADED): _S.WARMING,
        (_S.LOADING, _E.RETRY): _S.WAITING,
        (_S.LOADING, _E.FAIL): _S.FAILED,
        (_S.LOADING, _E.RETIRE): _S.CANCELLING,
        (_S.WARMING, _E.WARMED): _S.AVAILABLE,
        (_S.WARMING, _E.RETRY): _S.WAITING,
        (_S.WARMING, _E.FAIL): _S.FAILED,
        (_S.WARMING, _E.RETIRE): _S.CANCELLING,
        (_S.AVAILABLE, _E.RETIRE): _S.UNLOADING,
        (_S.AVAILABLE, _E.BREAK): _S.BROKEN,
        (_S.BROKEN, _E.RELEASED): _S.FAILED,
        (_S.BROKEN, _E.RETIRE): _S.UNLOADING,
        # The load thread still reports what it did; a servable that it brings is unloaded like any other.
        (_S.CANCELLING, _E.LOADED): _S.CANCELLING,
        (_S.CANCELLING, _E.WARMED): _S.UNLOADING,
        (_S.CANCELLING, _E.BLOCK): _S.UNLOADED,
        (_S.CANCELLING, _E.RETRY): _S.UNLOADED,
        (_S.CANCELLING, _E.FAIL): _S.UNLOADED,
        (_S.UNLOADING, _E.RELEASED): _S.UNLOADED,
        (_S.FAILED, _E.RETIRE): _S.UNLOADED,
        # Breaking what has left, or is broken, is harmless: the news takes its time.
        (_S.BROKEN, _E.BREAK): _S.BROKEN,
        (_S.UNLOADING, _E.BREAK): _S.UNLOADING,
        # Retiring twice is harmless: the wish and the end of the version may cross.
        (_S.CANCELLING, _E.RETIRE): _S.CANCELLING,
        (_S.UNLOADING, _E.RETIRE): _S.UNLOADING,
        (_S.UNLOADED, _E.RETIRE): _S.UNLOADED,
    }
)

#: On the way to AVAILABLE.
PENDING: Final = frozenset({State.NEW, State.WAITING, State.LOADING, State.WARMING})
#: A load thread is at work on it.
BUSY: Final = frozenset({State.LOADING, State.WARMING, State.CANCELLING})
#: On the way out.
LEAVING: Final = frozenset({State.UNLOADING, State.CANCELLING, State.BROKEN})


def next_state(state: State, event: Event) -> State:
    """State after ``event``.

    Raises:
        IllegalTransition: the event cannot happen in this state.
    """
    following = TRANSITIONS.get((state, event))
    if following is None:
        allowed = ", ".join(other.value for (source, other) in TRANSITIONS if source is state)
        raise IllegalTransition(f"{event.value} cannot happen in state {state.value}; expected {allowed}")
    return following
