"""Whether compiled modules are used where they were built."""

from __future__ import annotations

import os
from typing import Final

#: Set to anything but 0 or nothing, this environment variable keeps the compiled modules out of use.
PURE_PYTHON: Final = "TENSORWIRE_PURE_PYTHON"


def pure_python() -> bool:
    """Whether everything is to run in plain Python."""
    return os.environ.get(PURE_PYTHON, "0") not in ("", "0")
