"""`tensorwire press` against served models, and the files that it reads. No figures."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from commands import run_command
from tensorwire.bench.press import recorded
from tensorwire.server import Server

Serve = Callable[..., Server]
#: Does not like 13.
MOODY = """
class Model:
    inputs = [("x", "float32", (None, 4)), ("names", "string", (None, None))]
    outputs = [("y", "float32", (None, 4))]
    batched = True

    def predict(self, x, names):
        if (x == 13).any():
            raise ValueError("a bad day")
        return {"y": x}
"""
COMMAND = (sys.executable, "-m", "tensorwire.server.cli", "press")


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Server:
    """An ONNX model, and one in Python that fails some calls."""
    repository = tmp_path / "repository"
    repository.mkdir()
    models.scale(repository / "ranker" / "1", 2.0)
    (repository / "moody" / "1").mkdir(parents=True)
    (repository / "moody" / "1" / "model.py").write_text(MOODY)
    (repository / "moody" / "model.toml").write_text(
        'workers.kind = "thread"\nworkers.count = 1\nbatching.max_batch_size = 1\n'
    )
    return serve(repository)


def press(server: Server, *arguments: object, status: int = 0) -> str:
    return run_command("press", *arguments, status=status, TENSORWIRE_SERVER=server.endpoint)


def test_an_open_loop_ends_with_a_table(server: Server) -> None:
    output = press(server, "ranker", "--rate", "100", "--for", "300ms", "--shape", "x=2,4")
    assert "16 different requests of x float32[2, 4], made up; 100 fixed calls/s for 0.3 s" in output
    assert "answered" in output
    assert "p99.9" in output
    assert "latency counts from when a call was due" in output
    assert "FAILED" not in output


def test_a_closed_loop_of_two_processes_in_json(server: Server) -> None:
    arguments = ("ranker", "--for", "200ms", "--callers", "3", "--processes", "2", "--connections", "2")
    output = press(server, *arguments, "--json")
    found = json.loads(output[output.index("{") :])
    assert found["requests"] > 3
    assert found["errors"] == {}
    assert (found["arrivals"], found["callers"], found["processes"]) == ("closed", 3, 2)
    assert 0 < found["p50"] <= found["p99"] <= found["max"]


def test_a_sample_is_sent_as_random_arrivals(server: Server, tmp_path: Path) -> None:
    sample = tmp_path / "sample.npz"
    np.savez(sample, x=np.ones((1, 4), np.float32), names=np.array([["a", "b"]]))
    output = press(server, "moody", "--rate", "100", "--for", "200ms", "--poisson", "--input", sample)
    assert "requests of x float32[1, 4], names string[1, 2], given; 100 poisson calls/s" in output


def test_recorded_requests_are_sent_in_turn_and_failed_calls_fail_the_command(
    server: Server, tmp_path: Path
) -> None:
    dump = tmp_path / "requests"
    for value, status in ((1, 0), (13, 1)):
        inputs = ("-i", f"x=[[{value}, 2, 3, 4]]", "-i", 'names=[["a"]]', "--record", dump)
        run_command("predict", "moody", *inputs, status=status, TENSORWIRE_SERVER=server.endpoint)
    output = press(server, "moody", "--rate", "100", "--for", "200ms", "--dump", dump, status=1)
    assert f"2 requests of {dump}, in turn" in output
    assert re.search(r"FAILED: ([89]|10) INTERNAL$", output, re.MULTILINE)
    other = press(server, "ranker", "--rate", "100", "--for", "100ms", "--dump", dump, status=1)
    assert f"the model does not answer the first request of {dump}" in other
    assert "expected inputs: x: float32[?, 4]" in other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--poisson",), "--poisson needs --rate"),
        (("--for", "soon"), "--for: found 'soon'; expected a duration"),
        (("--for", "0"), "--for: found '0'; expected more than 0"),
        (("--shape", "x=1,n"), "--shape: found 'x=1,n'; expected NAME=DIMS"),
        (("--shape", "x=1", "--input", "x=1"), "--shape is for inputs that are made up"),
        (("--dump", "none", "--rows", "1"), "--dump has whole requests"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: tuple[str, ...], message: str) -> None:
    assert message in run_command("press", "ranker", *arguments, status=2)


def test_requests_that_do_not_fit_are_refused(server: Server) -> None:
    assert "--dump: /none: [Errno 2]" in press(server, "ranker", "--dump", "/none", status=2)
    output = press(server, "ranker", "--shape", "z=1,4", status=2)
    assert "--shape: no input 'z'; expected inputs: x: float32[?, 4]" in output


def test_ctrl_c_keeps_what_was_measured(server: Server) -> None:
    command = [*COMMAND, "ranker", "--rate", "200", "--for", "30s", "--server", server.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # What is sent, where it comes from, and the first second.
        told = [process.stderr.readline() for _ in range(3)]
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 130, (told, output)
    assert "/s of 200" in told[2]
    header, _, figures, *_ = output.splitlines()
    assert header.split()[0] == "answered"
    answered, *_, failed = figures.split()
    assert 50 < int(answered) < 5000
    assert failed == "0"


# ---------------------------------------------------------------- recorded requests


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def test_requests_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    words = np.array([["one", "zwei"]], object)
    blobs = np.array([b"\0\xff\0", b""], object)
    requests: list[dict[str, Any]] = [
        {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "flag": np.array(True)},
        {"words": words, "blobs": blobs},
        {"big": np.arange(3, dtype=">i8"), "none": np.empty((0, 4), np.uint8)},
    ]
    for request in requests:
        recorded.record(tmp_path / "dump", request)
    found = recorded.read(tmp_path / "dump")
    requests[2]["big"] = requests[2]["big"].astype("<i8")
    assert [same(*pair) for pair in zip(found, requests, strict=True)] == [True, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it holds no request"),
        (b"\1", "request 1, at byte 0"),
        (struct.pack("<I", 100) + b"{}", "found 2 bytes; expected 100"),
        (struct.pack("<I", 1) + b"\xc1", "request 1, at byte 0"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dump").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        recorded.read(tmp_path / "dump")
