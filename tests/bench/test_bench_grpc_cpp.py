"""The gRPC peer in C++: what its client is asked and what it writes; the whole of it where it was built."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import psutil
import pytest
from tensorwire.bench.peers import grpc_cpp
from tensorwire.bench.peers.grpc_cpp.peer import Found, Load, NotBuiltError, binaries, start
from tensorwire.bench.recorder import CpuUse

#: As the client writes it.
LINE = (
    b'{"calls":100,"all_calls":150,"seconds":0.5,"cpu_seconds":0.002,"all_cpu_seconds":0.003,"p50":0.001,'
    b'"p90":0.002,"p99":0.003,"p999":0.004,"max":0.005,"errors":{"14: gone":2}}'
)


def is_built() -> bool:
    try:
        binaries()
    except NotBuiltError:
        return False
    return True


def test_the_command_line_has_every_setting() -> None:
    load = Load(in_flight=32, channels=3, nbytes=128, warmup=0.1, duration=0.5)
    arguments = load.arguments("127.0.0.1:1")
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
        "--address": "127.0.0.1:1",
        "--in-flight": "32",
        "--channels": "3",
        "--bytes": "128",
        "--warmup": "0.1",
        "--duration": "0.5",
        "--timeout": "10.0",
    }


def test_what_the_client_writes_becomes_a_measurement() -> None:
    found = msgspec.json.decode(LINE, type=Found)
    measurement = found.measurement(CpuUse(server=0.3, client=0.1, others=1.003), seconds=2.0)
    assert measurement.requests == 100
    assert measurement.throughput == 200
    assert measurement.server_cpu_per_request == pytest.approx(0.002)
    assert measurement.client_cpu_per_request == pytest.approx(2e-5)
    assert measurement.other_cores == pytest.approx(0.5)
    assert measurement.errors == {"14: gone": 2}


def test_no_binaries_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="run make peers"):
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


@pytest.mark.skipif(not is_built(), reason="not built: run make peers")
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
