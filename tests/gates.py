"""Python models that stop where a test wants them to, in whichever process they run.

A gate is a lock on a file, and what has come to it is written into another.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Literal

WorkerKind = Literal["thread", "process"]
WORKER_KINDS: tuple[WorkerKind, ...] = ("thread", "process")

_MODEL = """
import fcntl, json, os

class Model:
    inputs = [("x", "float32", (None, 2))]
    outputs = [("y", "float32", (None, 2))]
    batched = True
    concurrent = True

    def load(self, directory, config):
        self.lock = os.open({lock!r}, os.O_RDWR)
        self.seen, self.gone = (os.open(path, os.O_WRONLY | os.O_APPEND) for path in {notes!r})

    def predict(self, x):
        os.write(self.seen, (json.dumps(x[:, 0].tolist()) + "\\n").encode())
        fcntl.flock(self.lock, fcntl.LOCK_SH)
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        os.write(self.gone, b".")
        if (x == 13).any():
            raise ValueError("thirteen")
        return {{"y": x * 2}}

    def close(self):
        for fd in (self.lock, self.seen, self.gone):
            os.close(fd)
"""


class Gate:
    """Where a model waits. Open until a test closes it; close it for good with :meth:`discard`.

    Args:
        directory: where its files are.
        name: of the files.
    """

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self._lock_path, self._seen_path, self._gone_path = (
            directory / f"{name}.{kind}" for kind in ("lock", "seen", "gone")
        )
        for path in (self._lock_path, self._seen_path, self._gone_path):
            path.touch()
        self._lock = os.open(self._lock_path, os.O_RDWR)
        self._before = 0
        self._counted = 0

    def close(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def open(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def discard(self) -> None:
        """Open it, and let go of its files."""
        os.close(self._lock)

    def forget(self) -> None:
        """Nothing has come yet: what the warm-up sent does not count."""
        self._before, self._counted = len(self._lines()), 0

    @property
    def seen(self) -> list[list[float]]:
        """The values that have come, a batch each."""
        return [json.loads(line) for line in self._lines()[self._before :]]

    @property
    def waiting(self) -> int:
        """Batches that have come and not gone on."""
        gone = self._gone_path.stat().st_size
        return len(self._lines()) - gone

    def entered(self, seconds: float = 10.0) -> bool:
        """Wait until a batch has come; each counts once."""
        until = time.monotonic() + seconds
        while len(self._lines()) - self._before <= self._counted:
            if time.monotonic() > until:
                return False
            time.sleep(0.001)
        self._counted += 1
        return True

    def write_model(self, directory: Path) -> None:
        """Write ``model.py``, which waits here and doubles what is not 13."""
        directory.mkdir(parents=True)
        notes = (str(self._seen_path), str(self._gone_path))
        code = _MODEL.format(lock=str(self._lock_path), notes=notes)
        (directory / "model.py").write_text(code)

    def _lines(self) -> list[str]:
        # The last line may be on its way still.
        return self._seen_path.read_text().split("\n")[:-1]


def configure(directory: Path, config: str, kind: WorkerKind) -> None:
    """Write ``model.toml``, with workers of this kind."""
    config = config if "[workers]" in config else f"{config}\n[workers]\n"
    (directory / "model.toml").write_text(config.replace("[workers]", f'[workers]\nkind = "{kind}"'))
