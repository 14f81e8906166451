"""Worker processes that share GPUs: each sees one. Their environment is looked at, so it needs none."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
import numpy as np
from front_ends import LONG, until
from tensorwire.client import Client

if TYPE_CHECKING:
    from conftest import Serve

X = {"x": np.ones((1, 16), np.float32)}


def stats(client: Client) -> dict[str, Any]:
    (version,) = client.control("stats")["versions"]
    return version


def device_of(pid: int) -> str:
    """What a process sees; empty for one that has ended."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return dict(pair.decode().split("=", 1) for pair in pairs if pair).get("CUDA_VISIBLE_DEVICES", "")


def test_each_process_sees_one_and_its_successor_the_same(serve: Serve, tmp_path: Path) -> None:
    model = tmp_path / "repository" / "m"
    models.matmul(model / "1")
    (model / "model.toml").write_text('[workers]\nkind = "process"\ncount = 2\ndevice = "3, 5"\n')
    server = serve(tmp_path / "repository")
    with Client(server.endpoint, timeout=LONG) as client:
        client.predict("m", X)

        def seen() -> dict[int, str]:
            return {pid: device_of(pid) for pid in stats(client)["worker_processes"]}

        until(lambda: len(seen()) == 2)
        assert sorted(seen().values()) == ["3", "5"]
        (second,) = (pid for pid, device in seen().items() if device == "5")
        os.kill(second, signal.SIGKILL)
        until(lambda: second not in seen() and sorted(seen().values()) == ["3", "5"])
        client.control("models.set", {"model": "m", "values": {"workers.count": 4}}, timeout=LONG)
        until(lambda: sorted(seen().values()) == ["3", "3", "5", "5"])


def test_threads_cannot_have_one_of_their_own(serve: Serve, tmp_path: Path) -> None:
    model = tmp_path / "repository" / "m"
    models.matmul(model / "1")
    (model / "model.toml").write_text('[workers]\nkind = "thread"\ndevice = "0"\n')
    server = serve(tmp_path / "repository", ready=False)
    assert server.wait_ready(LONG)
    with Client(server.endpoint, timeout=LONG) as client:
        (status,) = client.status("m")
    assert status.state == "FAILED"
    assert "workers.device: found '0'; expected none" in status.reason
    assert "workers.kind = 'process'" in status.reason
