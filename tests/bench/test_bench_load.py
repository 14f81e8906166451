"""The load generator and the child processes; counts and states, no timings."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from tensorwire.bench.calls import Calls
from tensorwire.bench.child import Ready
from tensorwire.bench.cli import main
from tensorwire.bench.clients import Clients
from tensorwire.bench.closed_load import closed_loop, closed_threads
from tensorwire.bench.load import Job, run_sync, verify_sync
from tensorwire.bench.meters import CpuMeter
from tensorwire.bench.models import CASE_OF_NAME, OUTPUT, Array, Case
from tensorwire.bench.processes import Child, ChildError, watch
from tensorwire.bench.quick import Group, run
from tensorwire.bench.recorder import Measurement, latencies, merge
from tensorwire.bench.results import Settings
from tensorwire.bench.servers import Server
from tensorwire.bench.systems import CALL_TIMEOUT, ECHO, GRPC, NULL


def name_of(error: Exception) -> str:
    return type(error).__name__


def test_closed_loop_keeps_every_caller_busy_and_counts_errors() -> None:
    in_flight = most = 0

    async def good() -> Mapping[str, Any]:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.001)
        in_flight -= 1
        return {}

    async def bad() -> Mapping[str, Any]:
        raise OSError("no")

    calls = Calls([good] * 8 + [bad], name_of)
    measurement = merge([asyncio.run(closed_loop(calls, 9, 0.01, 0.05, CpuMeter(os.getpid())))])
    assert most == 8
    assert in_flight == 0
    assert measurement.requests > 8
    assert measurement.errors["OSError"] > 0
    assert measurement.max >= measurement.p99 >= measurement.p50 > 0


@pytest.mark.parametrize("blocking", [False, True])
def test_the_processes_of_one_load_meet_before_it_and_when_all_have_warmed_up(blocking: bool) -> None:
    ended = 0
    seen: list[int] = []

    def call() -> None:
        nonlocal ended
        time.sleep(0)
        ended += 1

    async def call_later() -> None:
        await asyncio.sleep(0)
        call()

    def meeting() -> float:
        seen.append(ended)
        return time.monotonic()

    meter = CpuMeter(os.getpid())
    if blocking:
        samples = closed_threads(Calls([call], name_of), 3, 0.01, 0.02, meter, meeting=meeting)
    else:
        calls = Calls([call_later], name_of)
        samples = asyncio.run(closed_loop(calls, 3, 0.01, 0.02, meter, meeting=meeting))
    before, warm = seen
    assert before == 0
    assert warm >= 3
    assert samples.answered > 0


def test_processes_that_cannot_measure_together_say_why_and_end(tmp_path: Path) -> None:
    log = tmp_path / "echo.log"
    with Child("the echo", ["-m", "tensorwire.bench.echo"], log) as echo:
        server = Server(echo.receive(Ready, 30).address, echo.pid)
        job = Job(case="no such case", concurrency=2, warmup=0.0, duration=0.01)
        clients = Clients(NULL, server, 2, tmp_path)
        with clients, pytest.raises(ChildError, match=r"could not measure: .*no such case"):
            clients.measure(job, 2)


class FakeSync:
    """Answers at once."""

    def __init__(self, *, wrong: bool = False) -> None:
        self.wrong = wrong

    def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> Any:
        answer = {OUTPUT: case.reference(inputs) + (1 if self.wrong else 0)}
        return lambda: answer

    def code_of(self, error: Exception) -> str:
        return name_of(error)


def job(concurrency: int = 1) -> Job:
    return Job(case="64 B", concurrency=concurrency, warmup=0.01, duration=0.02)


def test_blocking_loop_measures() -> None:
    measurement = merge([run_sync(FakeSync(), job(), CpuMeter(os.getpid()))])
    assert measurement.requests > 10
    assert measurement.errors == {}


def test_threads_share_a_blocking_client() -> None:
    seen: set[str] = set()
    all_there = threading.Barrier(4)

    class Meeting(FakeSync):
        def caller(self, case: Case, inputs: Array, timeout: float = CALL_TIMEOUT) -> Any:
            first = True

            def call() -> None:
                nonlocal first
                if first:  # nobody goes on before everybody has called
                    all_there.wait(10)
                    seen.add(threading.current_thread().name)
                first = False

            return call

    measurement = merge([run_sync(Meeting(), job(4), CpuMeter(os.getpid()))])
    assert len(seen) == 4
    assert measurement.requests > 4


@pytest.mark.parametrize("blocking", [False, True])
def test_slow_calls_of_a_closed_loop_count_but_not_their_latency(blocking: bool) -> None:
    def quick() -> None:
        time.sleep(0)

    def slow() -> None:
        time.sleep(0.02)

    async def quick_later() -> None:
        await asyncio.sleep(0)

    async def slow_later() -> None:
        await asyncio.sleep(0.02)

    meter = CpuMeter(os.getpid())
    if blocking:
        calls = Calls([quick], name_of, slow=[slow], slow_share=0.2)
        samples = closed_threads(calls, 2, 0.01, 0.15, meter)
    else:
        later = Calls([quick_later], name_of, slow=[slow_later], slow_share=0.2)
        samples = asyncio.run(closed_loop(later, 2, 0.01, 0.15, meter))
    measurement = merge([samples])
    assert measurement.slow > 0
    assert measurement.requests == len(latencies([samples])) + measurement.slow
    assert measurement.p50 < 0.02


def test_a_meter_sees_all_processes_of_a_server(tmp_path: Path) -> None:
    spin = """import sys
print('{}', flush=True)
for line in sys.stdin:
    sum(range(3_000_000))
    print('{}', flush=True)"""
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"
    with child(inner, tmp_path / "log") as parent:
        parent.receive(Ready, 10)
        meter = CpuMeter(parent.pid)
        meter.start()
        parent.send(Ready())
        parent.receive(Ready, 10)
        used = meter.stop()
        server, client = meter.resident()
        alone = psutil.Process(parent.pid).memory_info().rss
    assert used.server > 0
    assert meter.finish(used).server == used.server
    assert server > alone > 0
    assert client > 0


def test_a_meter_finds_processes_that_a_server_starts_later(tmp_path: Path) -> None:
    spin = "sum(range(3_000_000)); print('{}', flush=True); sys.stdin.read()"
    outer = f"""import subprocess, sys
print('{{}}', flush=True)
sys.stdin.readline()
subprocess.run([sys.executable, '-c', {"import sys; " + spin!r}])"""
    with child(outer, tmp_path / "log") as parent:
        parent.receive(Ready, 10)
        meter = CpuMeter(parent.pid)
        meter.start()
        parent.send(Ready())
        parent.receive(Ready, 10)
        used = meter.stop()
        assert meter.finish(used).server > used.server


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels count ticks")
def test_a_meter_sees_less_than_a_tick_of_the_kernel(tmp_path: Path) -> None:
    with child(
        "import sys\nfor line in sys.stdin: print(line, end='', flush=True)", tmp_path / "log"
    ) as echo:
        meter = CpuMeter(echo.pid)
        echo.send(Ready())
        echo.receive(Ready, 10)
        meter.start()
        echo.send(Ready())
        echo.receive(Ready, 10)
        used = meter.stop()
    assert 0 < used.server < 1
    meter.start()
    assert meter.stop().server == 0  # it is gone


def test_wrong_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="answered wrongly"):
        verify_sync(FakeSync(wrong=True), CASE_OF_NAME["64 B"])


def child(code: str, log: Path, **options: Any) -> Child:
    return Child("the test child", ["-c", code], log, **options)


def test_child_talks_and_ends_with_its_stdin(tmp_path: Path) -> None:
    code = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    with child(code, tmp_path / "log") as echo:
        pid = echo.pid
        echo.send(Ready("here"))
        echo.send(Ready("there"))
        assert echo.receive(Ready, 10).address == "here"
        assert echo.receive(Ready, 10).address == "there"
    assert not psutil.pid_exists(pid)


def test_child_that_ignores_its_stdin_gets_a_signal(tmp_path: Path) -> None:
    with child(
        "import signal; print('{}', flush=True); signal.pause()", tmp_path / "log", ends_with_stdin=False
    ) as c:
        pid = c.pid
        c.receive(Ready, 10)
    assert not psutil.pid_exists(pid)


def test_a_dead_child_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with child("import sys; sys.exit('the disk is full')", tmp_path / "log") as dead:
        with pytest.raises(ChildError, match=r"the test child ended; its last words:\n +the disk is full"):
            dead.receive(Ready, 10)
        with pytest.raises(ChildError, match="ended"):
            dead.wait_until(lambda: False, 10)


def test_a_child_that_is_gone_takes_no_messages_and_is_left_in_peace(tmp_path: Path) -> None:
    with child("", tmp_path / "log") as gone:
        # Until it has exited: its output may end before its input does.
        with pytest.raises(ChildError, match="ended"):
            gone.wait_until(lambda: False, 10)
        with pytest.raises(ChildError, match="is gone"):
            gone.send(Ready())


def test_a_server_of_several_processes_notices_that_one_has_ended(tmp_path: Path) -> None:
    stays, ends = (
        child(code, tmp_path / name)
        for name, code in (("stays", "import sys; sys.stdin.read()"), ("ends", "import sys; sys.exit('no')"))
    )
    stopped = threading.Event()
    with stays, ends, pytest.raises(ChildError, match=r"ended; its last words:\n +no"):
        watch([stays, ends], stopped)
    stopped.set()
    watch([stays, ends], stopped)


LAUNCHED = """import os, subprocess, sys
subprocess.run([sys.executable, '-m', 'tensorwire.bench.peers.triton.launch', sys.executable, '-c',
    "import os, signal; print(os.getpid(), flush=True); signal.pause()"])"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_a_launched_program_does_not_outlive_its_parent(tmp_path: Path) -> None:
    with child(LAUNCHED, tmp_path / "log") as parent:
        launched = psutil.Process(parent.receive(int, 10))
        psutil.Process(parent.pid).kill()
        launched.wait(10)
    assert not launched.is_running()


def test_a_silent_child_times_out(tmp_path: Path) -> None:
    with child("import sys; sys.stdin.read()", tmp_path / "log") as silent:
        with pytest.raises(ChildError, match=r"said nothing for 0\.05 s"):
            silent.receive(Ready, 0.05)
        with pytest.raises(ChildError, match=r"not ready within 0\.05 s"):
            silent.wait_until(lambda: False, 0.05)


def check_measured(measurements: list[Measurement]) -> None:
    for measurement in measurements:
        assert measurement.requests > 0
        assert measurement.errors == {}
        assert measurement.p50 > 0


def test_grpc_and_echo_end_to_end() -> None:
    """Real processes and sockets; 0.2 s each."""
    groups = [
        Group((GRPC,), GRPC, "64 B", 4),
        Group((GRPC,), GRPC, "602,112 B", 2),
        Group((ECHO,), ECHO, "4 KiB", 1),
    ]
    seen: list[str] = []
    results = run(
        groups,
        Settings(rounds=1, warmup=0.05, duration=0.2),
        lambda done, total, what: seen.append(f"{done / total:.0%} {what}"),
    )
    assert [cell.failures for cell in results.cells] == [[], [], []]
    check_measured([cell.rounds[0] for cell in results.cells])
    assert seen[0] == "0% 64 B, 4 at a time: grpc.aio"
    assert seen[-1] == "100% done"
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize("arguments", [["quick", "--rounds", "0"], ["quick", "--case", "1 B"], []])
def test_bad_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error" in capsys.readouterr().err


def test_help_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tensorwire.bench", "quick", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--check" in done.stdout
