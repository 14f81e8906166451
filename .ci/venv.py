"""Make a virtual environment with the interpreter that runs this, unless there is one already.

    python3 .ci/venv.py DIRECTORY

Runs with any Python 3, so that an old one gets a message and not a SyntaxError.
"""

import os
import subprocess
import sys

LOWEST = (3, 11)


def version_of(directory):
    """(major, minor) of an environment's interpreter; None where there is none, or a broken one."""
    python = os.path.join(directory, "bin", "python")
    code = "import sys, pip; print(*sys.version_info[:2])"
    try:
        found = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(map(int, found.stdout.split()))


def main(directory):
    mine = sys.version_info[:2]
    if mine < LOWEST:
        sys.exit(
            "%s is Python %d.%d; tensorwire needs %d.%d or newer: make PYTHON=python3.12 ..."
            % ((sys.executable,) + mine + LOWEST)
        )
    if version_of(directory) == mine:
        return 0
    # ensurepip and venv are a package of their own on Debian and Ubuntu; venv's message says which.
    return subprocess.call([sys.executable, "-m", "venv", "--clear", directory])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
