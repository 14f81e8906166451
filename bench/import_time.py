"""What importing the client costs beside importing NumPy: ``python -m tensorwire.bench.import_time``.

Services import the client at their start and in every worker process, so this is part of their start-up.
Each import is timed in a fresh interpreter; the statements take turns, and the medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

BASELINE: Final = "import numpy"
STATEMENTS: Final = (BASELINE, "import tensorwire.client")
#: Seconds that the client may take more than NumPy, which every user of it has anyway.
LIMIT: Final = 0.150
_PROGRAM: Final = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def seconds_of(statement: str) -> float:
    """How long a statement takes in a fresh interpreter."""
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of every statement, in every round; the files are in the page cache from a first round."""
    taken: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for statement in STATEMENTS:
        seconds_of(statement)
    for round_number in range(rounds):
        order = STATEMENTS if round_number % 2 else reversed(STATEMENTS)
        for statement in order:
            taken[statement].append(seconds_of(statement))
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the medians; 1 if the client is over its limit."""
    parser = argparse.ArgumentParser(prog="python -m tensorwire.bench.import_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="default %(default)s")
    taken = measure(max(1, parser.parse_args(arguments).rounds))
    for statement, seconds in taken.items():
        median, low, high = statistics.median(seconds), min(seconds), max(seconds)
        print(f"{statement:26}  {median * 1e3:6.1f} ms  ({low * 1e3:.1f} to {high * 1e3:.1f})")
    baseline, client = (statistics.median(taken[statement]) for statement in STATEMENTS)
    passed = client - baseline <= LIMIT
    verdict = "PASS" if passed else "FAIL"
    print(f"{verdict}  {(client - baseline) * 1e3:.1f} ms more than NumPy; expected <= {LIMIT * 1e3:.0f} ms")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
