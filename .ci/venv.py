"""Make a virtual environment with the interpreter that runs this, unless there is one of its version already.

    python3 .ci/venv.py DIRECTORY

Runs with older versions than tensorwire does, so that they get a message and not a SyntaxError.
"""

import os
import subprocess
import sys

LOWEST = (3, 11)


def version_of(directory):
    """(major, minor) of an environment's interpreter; None where there is none, or a broken one."""
    command = [
        os.path.join(directory, "bin", "python"),
        "-c",
        "import sys, pip; print(*sys.version_info[:2])",
    ]
    try:
        found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(map(int, found.stdout.split()))


def main(directory):
    """Exit status of venv; 0 where there is nothing to do."""
    mine = sys.version_info[:2]
    if mine < LOWEST:
        needed = ".".join(map(str, LOWEST))
        found = ".".join(map(str, mine))
        sys.exit(
            f"{sys.executable} is Python {found}; {needed} or newer is needed: make PYTHON=python{needed} ..."
        )
    if version_of(directory) == mine:
        return 0
    # ensurepip and venv are a package of their own on Debian and Ubuntu; venv's message says which.
    return subprocess.call([sys.executable, "-m", "venv", "--clear", directory])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
