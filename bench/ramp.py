"""A load that grows by steps, and how it is written: ``8:5,32:5`` is 8 users for 5 s, then 32 for 5 s."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Step(msgspec.Struct, frozen=True):
    """So many users for so many seconds."""

    users: int
    seconds: float


def steps_of(text: str) -> tuple[Step, ...]:
    """The steps of ``USERS:SECONDS,USERS:SECONDS,...``; none for an empty text.

    Raises:
        ValueError: it says something else, or a number is not positive.
    """
    return tuple(_step(part.strip()) for part in text.split(",")) if text.strip() else ()


def _step(part: str) -> Step:
    users, _, seconds = part.partition(":")
    try:
        step = Step(int(users), float(seconds))
    except ValueError:
        step = Step(0, 0.0)
    if step.users <= 0 or not 0 < step.seconds < float("inf"):
        raise ValueError(f"{part!r} is not a step; expected USERS:SECONDS, both positive, such as 32:5")
    return step


def users_at(steps: Sequence[Step], seconds: float) -> int | None:
    """How many users there are so many seconds after the start; None: it is over."""
    for step in steps:
        if seconds < step.seconds:
            return step.users
        seconds -= step.seconds
    return None
