"""Becomes a program that gets SIGTERM when its parent dies: ``python -m MODULE PROGRAM [ARGUMENT ...]``."""

from __future__ import annotations

import os
import sys

from ...child import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    # What was asked of the kernel outlasts the change of program.
    os.execv(sys.argv[1], sys.argv[1:])
