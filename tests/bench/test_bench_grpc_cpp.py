"""The gRPC peer in C++: what its build says, and the whole of it where it was built."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil
import pytest
from tensorwire.bench.peers import grpc_cpp
from tensorwire.bench.peers.grpc_cpp.peer import binaries, start
from tensorwire.bench.peers.native import Load
from tensorwire.bench.processes import ChildError, NotBuiltError


def is_built() -> bool:
    try:
        binaries()
    except NotBuiltError:
        return False
    return True


def test_no_binaries_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="run make bench-peers"):
        binaries(tmp_path)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_a_build_names_what_is_missing(tmp_path: Path) -> None:
    folder = Path(grpc_cpp.__file__).parent
    command = ["make", "-s", "-C", str(folder), f"BUILD={tmp_path / 'build'}", "PLUGIN=no-such-plugin"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode
    said = result.stderr.splitlines()[0]
    assert "missing:" in said
    assert "no-such-plugin" in said
    assert "apt-get install" in said
    assert not (tmp_path / "build").exists()


@pytest.mark.skipif(not is_built(), reason="not built: run make bench-peers")
def test_the_peer_echoes_and_ends(tmp_path: Path) -> None:
    with start(tmp_path) as peer:
        pid = peer.pid
        for nbytes, channels in ((64, 1), (602_112, 2)):
            load = Load(in_flight=4, channels=channels, nbytes=nbytes, warmup=0.05, duration=0.1)
            measurement = peer.measure(load)
            assert measurement.errors == {}
            assert measurement.requests > 4
            assert measurement.max >= measurement.p99 >= measurement.p50 > 0
            assert measurement.client_cpu_per_request > 0
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(not is_built(), reason="not built: run make bench-peers")
def test_who_asks_for_another_answer_than_it_gets_counts_wrong_ones(tmp_path: Path) -> None:
    with start(tmp_path) as peer, pytest.raises(ChildError, match="wrong answer"):
        peer.measure(Load(in_flight=1, model="head", nbytes=64, warmup=0.0, duration=0.05))
