"""The echo in C of ``bench/peers/echo_c``: built where a C compiler and libzmq's header are, and run."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..child import Ready
from ..processes import Child, NotBuiltError
from ..servers import Server

SOURCE: Final = Path(__file__).parents[1] / "peers" / "echo_c"
#: Where the Makefile of a checkout puts it; ignored by git.
BUILT: Final = Path(__file__).parents[2] / "build" / "echo_c"
_BUILD_SECONDS: Final = 60.0
_START_SECONDS: Final = 10.0


def build(source: Path = SOURCE, out: Path = BUILT) -> Path:
    """The program, built if it is not there yet or older than its source.

    Raises:
        NotBuiltError: something that it takes is missing.
    """
    if not (source / "Makefile").exists():
        raise NotBuiltError(f"{source.name}: the source is only in a checkout")
    try:
        made = subprocess.run(
            ["make", "-s", "-C", str(source), f"OUT={out}"],
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuiltError(f"{source.name}: {error}") from None
    if made.returncode:
        reason = next((line for line in made.stderr.splitlines() if "rror" in line), made.stderr.strip())
        raise NotBuiltError(f"{source.name}: {reason} (it needs a C compiler and libzmq3-dev)")
    return out / "echo"


@contextmanager
def start(program: Path, log: Path) -> Generator[Server]:
    """Run it until the block ends.

    Raises:
        ChildError: it did not start.
    """
    with Child("the echo in C", [], log, program=program) as child:
        yield Server(child.receive(Ready, _START_SECONDS).address, child.pid)
