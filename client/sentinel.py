"""The value that stands for "the client's default timeout", where None means "no limit"."""

from __future__ import annotations

from enum import Enum
from typing import Final

from ..rpc.errors import InvalidArgumentError


class DefaultTimeout(Enum):
    """Type of :data:`DEFAULT`."""

    DEFAULT = "default"


DEFAULT: Final = DefaultTimeout.DEFAULT


def resolved(timeout: float | DefaultTimeout | None, default: float | None) -> float | None:
    """The timeout of a call, in seconds.

    Raises:
        InvalidArgumentError: it is negative or not a number.
    """
    seconds = default if timeout is DEFAULT else timeout
    # Written so that NaN fails too.
    if seconds is not None and not seconds >= 0:
        raise InvalidArgumentError(f"timeout is {seconds}, expected seconds >= 0, or None for no limit")
    return seconds
