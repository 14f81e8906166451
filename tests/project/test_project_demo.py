"""The demos end by themselves, tell by their exit status how it went, and leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
BUILT_IN = [sys.executable, "-m", "tensorwire.server.cli", "demo"]
EXAMPLES = [sys.executable, "-u", "examples/demo.py"]


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_built_in_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        BUILT_IN, capture_output=True, text=True, env=environment(tmp_path), timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3000 calls" in done.stdout
    assert "failed: 0" in done.stdout
    assert left_in(tmp_path) == []


def left_in(directory: Path) -> list[str]:
    # ONNX Runtime writes a file .ses into the temporary directory when it is imported.
    return [path.name for path in directory.iterdir() if path.name != ".ses"]


def read_until(process: subprocess.Popen[bytes], text: bytes, timeout: float) -> None:
    assert process.stdout is not None
    said = bytearray()
    end = time.monotonic() + timeout
    while text not in said:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))
        data = os.read(process.stdout.fileno(), 4096) if ready else b""
        assert data, f"no {text!r} in {said!r}"
        said += data


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("command", "moment"),
    [(BUILT_IN, b"calls a second"), (EXAMPLES, b"What kind of files")],
    ids=["built-in", "examples"],
)
def test_interrupted_demo_cleans_up(
    command: list[str], moment: bytes, number: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env=environment(tmp_path)
    )
    try:
        read_until(process, moment, 60)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children, "there is a server to stop"
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said.decode()
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert [child for child in children if child.is_running()] == []
    assert left_in(tmp_path) == []
