"""The value that stands for "the client's default timeout", where None means "no limit"."""

from __future__ import annotations

from enum import Enum
from typing import Final


class DefaultTimeout(Enum):
    """Type of :data:`DEFAULT`."""

    DEFAULT = "default"


DEFAULT: Final = DefaultTimeout.DEFAULT
