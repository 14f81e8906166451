"""Worker processes as the tests use them, and the models that they load."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from tensorwire.manager.config import ModelConfig
from tensorwire.server.processes.framing import ChildSpec
from tensorwire.server.processes.parent import Answer, WorkerProcess
from tensorwire.server.processes.process import WorkerLost
from tensorwire.server.processes.spawner import Spawner

Array = np.ndarray[Any, Any]

#: Does what its input says. Its output is a text.
OBEYS = """
import ctypes, os, signal, socket, sys, threading
from pathlib import Path

import numpy as np
from tensorwire.rpc.errors import NotFoundError

LINK = int(sys.argv[3])


class Model:
    inputs = [("action", "string", ())]
    outputs = [("text", "string", ())]

    def load(self, directory, config):
        self.nice = os.getpriority(os.PRIO_PROCESS, 0)
        gate = threading.Event()
        self.thread = threading.Thread(target=gate.wait, daemon=True)
        self.thread.start()
        print("a word at loading", file=sys.stderr)

    def predict(self, action):
        name, _, argument = action.item().partition(" ")
        found = np.empty((), object)
        found[...] = str(getattr(self, name)(argument))
        return {"text": found}

    def say(self, what): return what
    def shout(self, what): print(what); print(what, file=sys.stderr); return ""
    def exit(self, status): sys.exit(int(status))
    def leave(self, status): os._exit(int(status))
    def crash(self, _): ctypes.string_at(0)
    def refuse(self, what): raise NotFoundError(what)
    def fail(self, what): raise ValueError(what)
    def wait(self, _): threading.Event().wait()
    def read(self, path): return Path(path).read_text()
    def hold_the_lock(self, path): Path(path).write_text("x"); ctypes.PyDLL(None).sleep(1000)
    def signals(self, _): os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM)
    def cpus(self, _): return sorted(os.sched_getaffinity(0))
    def session(self, _): return os.getsid(0) == os.getpid()
    def path(self, _): return sys.path[0]
    def write(self, what): os.write(LINK, bytes.fromhex(what)); threading.Event().wait()
    def disconnect(self, _):
        socket.socket(fileno=os.dup(LINK)).shutdown(socket.SHUT_WR)
        threading.Event().wait()
    def priorities(self, _):
        now = {os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}
        return f"{self.nice} {now}"
    def fork(self, _):
        pid = os.fork()
        if not pid:
            threading.Event().wait()
        return pid
"""


class Worker:
    """A :class:`WorkerProcess` as a server's loop uses it."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self._poll = select.poll()
        for fd in process.filenos():
            self._poll.register(fd, select.POLLIN)
        self._next = 0

    def send(self, inputs: Mapping[str, Sequence[Array]], outputs: Sequence[str], padding: int = 0) -> int:
        self._next += 1
        self.process.send_call(self._next, inputs, padding, outputs)
        return self._next

    def answer(self) -> Answer:
        while (answer := self.process.receive()) is None:
            if self.process.filenos()[1] in dict(self._poll.poll()):
                self.process.note_gone()
        return answer

    def call(
        self, outputs: Sequence[str], padding: int = 0, **inputs: Array | Sequence[Array]
    ) -> list[Array]:
        pieces = {name: [given] if isinstance(given, np.ndarray) else given for name, given in inputs.items()}
        call_id = self.send(pieces, outputs, padding)
        answer = self.answer()
        assert answer.call_id == call_id
        if answer.error is not None:
            raise answer.error
        assert answer.outputs is not None
        return answer.outputs

    def order(self, action: str) -> None:
        """Have the model that obeys do something."""
        self.send({"action": [np.array(action, object)]}, ["text"])

    def ask(self, action: str) -> str:
        self.order(action)
        answer = self.answer()
        if answer.error is not None:
            raise answer.error
        assert answer.outputs is not None
        return str(answer.outputs[0].item())

    def lost(self) -> str:
        """Why it has gone; waits for it."""
        with pytest.raises(WorkerLost) as caught:
            self.answer()
        return caught.value.reason


class Start(Protocol):
    """Starts workers."""

    def __call__(self, directory: Path, config: ModelConfig | None = None, **spec: Any) -> Worker:
        """A loaded worker."""
        ...


def starting(spawner: Spawner) -> Iterator[Start]:
    workers: list[Worker] = []

    def start(directory: Path, config: ModelConfig | None = None, **spec: Any) -> Worker:
        what = ChildSpec("m", 1, str(directory), config or ModelConfig(), **spec)
        workers.append(Worker(WorkerProcess.start(what, spawner=spawner)))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill("the test is over")
        assert worker.process.join(10)


def write_model(directory: Path, code: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.py").write_text(code)
    return directory


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
