"""Locust's users against real servers, and a client that does not hold up gevent's hub.

Locust patches the whole process when it is imported, so everything of it runs in processes of its own.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from tensorwire.bench.ramp import Step, steps_of, users_at
from tensorwire.bench.servers import free_port, start_server

locust = pytest.mark.skipif(
    find_spec("locust") is None, reason="Locust is not installed: pip install 'tensorwire[locust]'"
)
ROOT = Path(__file__).parents[2]
RUN = (sys.executable, "-m", "tensorwire.bench.locust_run")

#: Waits for somebody to open the gate, unless it is warmed up.
GATED = """
import numpy as np

class Model:
    inputs = [("x", "float32", (None, 1))]
    outputs = [("y", "float32", (None, 1))]
    batched = True

    def load(self, directory, config):
        self.gate = config["gate"]

    def predict(self, x):
        if (x < 0).any():
            open(self.gate, "rb").read()
        return {"y": -x}
"""

#: Users whose answers come only if the ticker ticks while they wait.
TICKING = """
import sys

import gevent.monkey

kind, address, gate, patched = sys.argv[1:]
if patched == "patched":
    gevent.monkey.patch_all()

import errno
import os

import gevent
import numpy as np
from tensorwire.bench.gevent_client import GeventClient
from tensorwire.bench.models import Case

x = np.full((1, 1), -1, np.float32)

def open_gate():
    try:
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise

def tick():
    while True:
        for _ in range(10):
            gevent.sleep(0.001)
        open_gate()

def run(call):
    ticker = gevent.spawn(tick)
    users = [gevent.spawn(call) for _ in range(8)]
    print([user.get()["y"].item() for user in users])
    ticker.kill()

if kind == "tensorwire":
    with GeventClient(address, timeout=10.0) as client:
        # The next ones of this kind could take short cuts.
        client.predict("gated", {"x": -x})
        run(lambda: client.predict("gated", {"x": x}))
else:
    from tensorwire.bench.locust_clients import GrpcConnection

    connection = GrpcConnection(address, 10.0)
    run(connection.caller(Case("gated", "gated", (1, 1), np.negative), x))
    connection.close()
"""

#: What a greenlet gets from a future, whoever finishes it, and when it is killed or the client closed.
WAITING = """
import threading
from concurrent.futures import Future

import gevent
import numpy as np
import zmq
from tensorwire.bench.gevent_client import FutureWaiter, GeventClient
from tensorwire.rpc.errors import UnavailableError

waiter = FutureWaiter()
future = Future()
waiting = gevent.spawn(waiter.wait, future)
gevent.sleep(0)
thread = threading.Thread(target=future.set_result, args=(7,))
thread.start()
assert waiting.get() == 7
thread.join()
assert waiter.wait(future) == 7

future = Future()
future.set_exception(KeyError("no"))
try:
    waiter.wait(future)
except KeyError:
    pass
else:
    raise AssertionError("the error was lost")

future = Future()
waiting = gevent.spawn(waiter.wait, future)
gevent.sleep(0)
waiting.kill()
assert future.cancelled()
waiter.close()

with zmq.Context() as context, context.socket(zmq.ROUTER) as silent:
    port = silent.bind_to_random_port("tcp://127.0.0.1")
    with GeventClient(f"tcp://127.0.0.1:{port}", timeout=None) as client:
        waiting = gevent.spawn(client.predict, "m", {"x": np.zeros(1)})
        gevent.sleep(0)
    waiting.join()
    assert isinstance(waiting.exception, UnavailableError), waiting.exception
print("done")
"""


def python(source: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", source, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_gated(repository: Path, gate: Path) -> None:
    os.mkfifo(gate)
    (repository / "gated/1").mkdir(parents=True)
    (repository / "gated/1/model.py").write_text(GATED)
    (repository / "gated/model.toml").write_text(
        f'[workers]\ncount = 1\n[batching]\nenabled = false\n[engine.options]\ngate = "{gate}"\n'
    )


# ---------------------------------------------------------------- the ramp


def test_a_ramp_is_written_as_users_and_seconds() -> None:
    assert steps_of(" 8:5, 32:2.5") == (Step(8, 5.0), Step(32, 2.5))
    assert steps_of("") == ()


@pytest.mark.parametrize("text", ["8", "8:", ":5", "0:5", "8:0", "8:-1", "8:nan", "8:inf", "8:5,", "a:b"])
def test_what_is_not_a_ramp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected USERS:SECONDS"):
        steps_of(text)


@pytest.mark.parametrize(("seconds", "users"), [(0, 8), (4.9, 8), (5, 32), (7.4, 32), (7.5, None)])
def test_each_step_has_its_time(seconds: float, users: int | None) -> None:
    assert users_at((Step(8, 5.0), Step(32, 2.5)), seconds) == users


# ---------------------------------------------------------------- the hub


@locust
@pytest.mark.parametrize("patched", ["patched", "plain"])
def test_greenlets_run_while_others_wait_for_tensorwire(serve, tmp_path: Path, patched: str) -> None:
    write_gated(tmp_path / "models", tmp_path / "gate")
    server = serve(tmp_path / "models")
    said = python(TICKING, "tensorwire", server.endpoint, tmp_path / "gate", patched)
    assert said == str([1.0] * 8)


@locust
def test_greenlets_run_while_others_wait_for_grpc(tmp_path: Path) -> None:
    write_gated(tmp_path / "models", tmp_path / "gate")
    with start_server("grpc", tmp_path / "models", tmp_path) as server:
        said = python(TICKING, "gRPC", server.address, tmp_path / "gate", "patched")
    assert said == str([1.0] * 8)


@locust
def test_a_greenlet_gets_what_becomes_of_its_future() -> None:
    assert python(WAITING) == "done"


# ---------------------------------------------------------------- Locust


@locust
@pytest.mark.slow
def test_users_of_both_systems_succeed(tmp_path: Path) -> None:
    command = [*RUN, "--steps", "4:1,8:1", "--case", "sized:256", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "locust_stats.csv").open() as file:
        rows = {row["Type"]: row for row in csv.DictReader(file)}
    for kind in ("tensorwire", "gRPC"):
        assert rows[kind]["Name"] == "sized:256"
        assert int(rows[kind]["Request Count"]) > 8
        assert int(rows[kind]["Failure Count"]) == 0
    assert "updating to 4 users" in done.stderr
    assert "updating to 8 users" in done.stderr
    assert (tmp_path / "locust.html").stat().st_size > 0


@locust
def test_failed_calls_are_counted_by_code(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless", "--steps", "2:1"]
    command += ["--call-timeout", "0.2", "--tensorwire-address", f"tcp://127.0.0.1:{port}"]
    command += ["--grpc-address", f"127.0.0.1:{port}", "--csv", str(tmp_path / "failed")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    with (tmp_path / "failed_failures.csv").open() as file:
        rows = {row["Method"]: row for row in csv.DictReader(file)}
    for kind in ("tensorwire", "gRPC"):
        assert "UNAVAILABLE: " in rows[kind]["Error"]


@locust
@pytest.mark.slow
def test_the_page_is_there_until_ctrl_c(tmp_path: Path) -> None:
    command = [*RUN, "--web", "--port", str(free_port()), "--only", "tensorwire", "--out", tmp_path]
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as run,
    ):
        assert run.stdout is not None
        server, page = run.stdout.readline(), run.stdout.readline()
        assert server.startswith("tensorwire server: tcp://127.0.0.1:"), log.read_text()
        assert page.startswith("web UI: http://127.0.0.1:"), log.read_text()
        url = page.split()[2]
        with urlopen(url, timeout=10) as answer:
            assert "TensorwireUser" in answer.read().decode()
        form = b"user_count=4&spawn_rate=4&user_classes=TensorwireUser&user_rate=0"
        with urlopen(f"{url}/swarm", form, timeout=10) as answer:
            assert '"success": true' in answer.read().decode()
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
