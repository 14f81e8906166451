"""``tensorwire serve`` as a child of the benchmark; it ends when the harness is gone."""

from __future__ import annotations

import sys

from ...server.cli import main
from ..child import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    sys.exit(main())
