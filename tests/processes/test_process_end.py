"""How worker processes begin and end, by themselves and with others' help; nothing is left of them."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes_helpers import Start, gone, write_model
from tensorwire.manager.config import EngineConfig, ModelConfig, WorkersConfig
from tensorwire.rpc.errors import (
    AbortedError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from tensorwire.rpc.wire.message import build
from tensorwire.rpc.wire.prefix import Kind
from tensorwire.server.processes.framing import ChildSpec, Stop, encode_control
from tensorwire.server.processes.parent import WorkerProcess
from tensorwire.server.processes.process import WorkerLost, describe_status
from tensorwire.server.processes.spawner import Spawner


class TestCircumstances:
    def test_what_a_worker_finds(self, start: Start, obeys: Path) -> None:
        worker = start(obeys, ModelConfig(workers=WorkersConfig(cpus="0")))
        assert worker.ask("say hello") == "hello"
        assert worker.ask("signals") == "None"
        assert worker.ask("cpus") == "[0]"
        assert worker.ask("session") == "True"
        assert worker.ask("path") == (sys.path[0] or os.getcwd())
        assert worker.process.pid != os.getpid()
        assert worker.process.resident_bytes() > 1 << 20
        worker.process.kill("that was all")
        assert worker.process.join(10)
        assert worker.process.resident_bytes() == 0

    def test_loads_have_less_priority_and_calls_do_not(self, start: Start, obeys: Path) -> None:
        normal = os.getpriority(os.PRIO_PROCESS, 0)
        answer = start(obeys).ask("priorities")
        lowered, _, rest = answer.partition(" ")
        assert int(lowered) == min(19, normal + 10)
        if os.getuid() == 0:
            assert rest == f"{{{normal}}}"

    def test_what_a_model_says_is_seen(
        self, start: Start, obeys: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        worker = start(obeys)
        assert "a word at loading" in capfd.readouterr().err
        worker.ask("shout hear this")
        captured = capfd.readouterr()
        assert "hear this" in captured.out
        assert "hear this" in captured.err


class TestLoading:
    def load(self, spawner: Spawner, directory: Path, config: ModelConfig | None = None, **spec: Any) -> None:
        WorkerProcess.start(
            ChildSpec("m", 3, str(directory), config or ModelConfig(), **spec), spawner=spawner
        )

    def test_the_error_is_that_of_the_load(self, spawner: Spawner, tmp_path: Path) -> None:
        with pytest.raises(FailedPreconditionError, match="it contains: nothing"):
            self.load(spawner, tmp_path)
        directory = write_model(tmp_path, "import no_such_module")
        with pytest.raises(FailedPreconditionError, match="No module named 'no_such_module'; install it"):
            self.load(spawner, directory)

    @pytest.mark.parametrize(
        ("statement", "kind", "text"),
        [
            ("raise NotFoundError('no weights')", NotFoundError, "no weights"),
            ("sys.exit('enough')", FailedPreconditionError, "load.. raised SystemExit: enough"),
            ("raise MemoryError('none')", FailedPreconditionError, "MemoryError"),
            (
                "print('famous', file=sys.stderr); os._exit(3)",
                InternalError,
                "exited with status 3 while it loaded the model; its last words: famous",
            ),
            ("ctypes.string_at(0)", InternalError, r"signal 11 \(SIGSEGV\).*Segmentation fault.*in load"),
            ("os.kill(os.getpid(), 9)", UnavailableError, r"was killed by signal 9 \(SIGKILL\) while"),
            ("os.write(int(sys.argv[3]), b'hello')", InternalError, "because of what it sent: head frame"),
        ],
    )
    def test_how_a_load_can_end(
        self, spawner: Spawner, tmp_path: Path, statement: str, kind: type[Exception], text: str
    ) -> None:
        code = f"""
            import ctypes, os, sys
            from tensorwire.rpc.errors import NotFoundError

            class Model:
                inputs = []
                outputs = [("y", "float32", ())]
                def load(self, directory, config): {statement}
                def predict(self): pass
            """
        with pytest.raises(kind, match=text):
            self.load(spawner, write_model(tmp_path, textwrap.dedent(code)))

    def test_the_warm_up_is_part_of_it(self, spawner: Spawner, obeys: Path) -> None:
        with pytest.raises(InternalError, match=r"predict\(\) raised AttributeError"):
            self.load(spawner, obeys, batch_sizes=(1,))

    def test_a_core_that_is_not_there(self, spawner: Spawner, obeys: Path) -> None:
        config = ModelConfig(workers=WorkersConfig(cpus="0,4000"))
        with pytest.raises(InvalidArgumentError, match=r"workers.cpus: found '0,4000'; expected .* there: 0"):
            self.load(spawner, obeys, config)

    def test_a_configuration_that_does_not_fit(self, spawner: Spawner, obeys: Path) -> None:
        config = ModelConfig(engine=EngineConfig(options={"a": "x" * 300_000}))
        with pytest.raises(InvalidArgumentError, match="at most"):
            self.load(spawner, obeys, config)

    def test_no_process_to_be_had(
        self, spawner: Spawner, obeys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", str(obeys / "missing"))
        with pytest.raises(ResourceExhaustedError, match="cannot be started"):
            self.load(spawner, obeys)

    def test_it_can_be_given_up(self, spawner: Spawner, tmp_path: Path) -> None:
        loading = tmp_path / "loading"
        code = f"""
            import os, threading
            from pathlib import Path

            class Model:
                inputs = []
                outputs = [("y", "float32", ())]
                def load(self, directory, config):
                    Path({str(loading)!r} + "~").write_text(str(os.getpid()))
                    os.rename({str(loading)!r} + "~", {str(loading)!r})
                    threading.Event().wait()
                def predict(self): pass
            """
        spec = ChildSpec("m", 1, str(write_model(tmp_path, textwrap.dedent(code))))
        with pytest.raises(AbortedError):
            WorkerProcess.start(spec, stop=loading.exists, spawner=spawner)
        assert gone(int(loading.read_text()))


class TestEnds:
    @pytest.mark.parametrize(
        ("action", "reason"),
        [
            ("leave 3", "exited with status 3"),
            ("exit 4", "exited with status 4"),
            ("crash", "was killed by signal 11 (SIGSEGV)"),
            (
                "write 00",
                "was stopped because of what it sent: head frame has 1 bytes; a prefix alone has 48",
            ),
            ("disconnect", "closed its connection to the server"),
        ],
    )
    def test_of_its_own_doing(self, start: Start, obeys: Path, action: str, reason: str) -> None:
        worker = start(obeys)
        worker.order(action)
        assert worker.lost() == reason
        with pytest.raises(WorkerLost):
            worker.order("say something")
        assert worker.process.join(10)
        assert gone(worker.process.pid)

    def test_killed_while_idle_and_in_a_call(self, start: Start, obeys: Path) -> None:
        idle, busy = start(obeys), start(obeys)
        os.kill(idle.process.pid, signal.SIGKILL)
        assert idle.lost() == "was killed by signal 9 (SIGKILL)"
        busy.order("wait")
        busy.process.kill("was stopped after it had hung for 60 s")
        busy.process.kill("a second time")
        assert busy.lost() == "was stopped after it had hung for 60 s"

    def test_an_error_in_a_call_is_no_end(self, start: Start, obeys: Path) -> None:
        worker = start(obeys)
        with pytest.raises(NotFoundError, match="NOT_FOUND: it"):
            worker.ask("refuse it")
        with pytest.raises(InternalError, match=r"predict\(\) raised ValueError: that \(model.py:\d+\)"):
            worker.ask("fail that")
        assert worker.ask("say hello") == "hello"

    def test_stopped_after_its_call(self, start: Start, obeys: Path, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        worker = start(obeys)
        worker.order(f"read {fifo}")
        worker.process.stop()
        assert not worker.process.join(0)
        fifo.write_text("at last")
        answer = worker.answer()
        assert answer.outputs is not None
        assert answer.outputs[0].item() == "at last"
        assert worker.lost() == "exited with status 0"
        worker.process.stop()
        assert worker.process.join(10)
        assert worker.process.join(0)

    def test_nothing_keeps_its_memory(self, spawner: Spawner, obeys: Path) -> None:
        worker = WorkerProcess.start(ChildSpec("m", 1, str(obeys)), spawner=spawner)
        memory = weakref.ref(worker._process.calls)
        worker.run({"action": np.array("say hello", object)}, ["text"])
        worker.stop()
        assert worker.join(10)
        gc.disable()
        try:
            del worker
            assert memory() is None
        finally:
            gc.enable()

    def test_what_it_has_started_does_not_hide_its_end(self, start: Start, obeys: Path) -> None:
        worker = start(obeys)
        forked = int(worker.ask("fork"))
        try:
            worker.order("leave 5")
            assert worker.lost() == "exited with status 5"
        finally:
            os.kill(forked, signal.SIGKILL)

    def test_a_blocking_call_tells_it_as_an_error(self, start: Start, obeys: Path) -> None:
        worker = start(obeys)
        with pytest.raises(
            UnavailableError, match="model 'm' version 1: the worker process exited with status 6"
        ):
            worker.process.run({"action": np.array("leave 6", object)}, ["text"])

    @pytest.mark.parametrize(
        "message",
        [
            encode_control(Stop()),
            encode_control(Stop())[:-1],
            b"",
        ],
    )
    def test_what_is_no_answer(self, start: Start, obeys: Path, message: bytes) -> None:
        worker = start(obeys)
        worker.order(f"write {message.hex()}")
        assert worker.lost().startswith(
            "was stopped because of what it sent" if message else "closed its connection"
        )

    def test_an_answer_to_nothing(self, start: Start, obeys: Path) -> None:
        (reply,) = build(Kind.ERROR, first_id=99)
        worker = start(obeys)
        worker.order(f"write {bytes(reply).hex()}")
        assert worker.lost().endswith("an answer to call 99, which is not in hand")


HELPER = """
import sys
import numpy as np
from tensorwire.server.processes.framing import ChildSpec
from tensorwire.server.processes.parent import WorkerProcess
from tensorwire.server.processes.spawner import Spawner

spawner = Spawner()
spawner.start()
worker = WorkerProcess.start(ChildSpec("m", 1, sys.argv[1]), spawner=spawner)
worker.send_call(1, {"action": [np.array(sys.argv[2], object)]}, 0, ["text"])
print(worker.pid, flush=True)
while True:
    worker._process.wait()
"""


@pytest.mark.parametrize("action", ["wait", "hold_the_lock {}"])
def test_workers_do_not_outlive_their_parent(obeys: Path, tmp_path: Path, action: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    action = action.format(fifo)
    helper = subprocess.Popen(
        [sys.executable, "-c", HELPER, str(obeys), action], stdout=subprocess.PIPE, text=True
    )
    assert helper.stdout is not None
    pidfd = os.pidfd_open(int(helper.stdout.readline()))
    if action != "wait":
        fifo.read_text()
    helper.kill()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000)
    os.close(pidfd)
    helper.wait()
    helper.stdout.close()


def test_closing_the_spawner_ends_what_is_left(obeys: Path) -> None:
    with Spawner() as spawner:
        worker = WorkerProcess.start(ChildSpec("m", 1, str(obeys)), spawner=spawner)
    assert worker.join(10)
    spawner.close()
    with pytest.raises(RuntimeError, match="not running"):
        WorkerProcess.start(ChildSpec("m", 1, str(obeys)), spawner=spawner)


def test_how_ends_are_described() -> None:
    assert describe_status(7) == "exited with status 7"
    assert describe_status(-6) == "was killed by signal 6 (SIGABRT)"
    assert describe_status(-61) == "was killed by signal 61"
