"""The blocking client while one caller has it to itself, and what happens when others come. With the pump in
Python there is no short way for that caller; everything else must be the same."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from pumps import NAMES, pump_named
from router import Received, Router
from tensorwire.client import Client, lead, lone
from tensorwire.rpc.errors import DeadlineExceededError, InvalidArgumentError, NotFoundError, UnavailableError
from tensorwire.rpc.wire.extra import encode_body
from tensorwire.rpc.wire.message import build_control
from tensorwire.rpc.wire.prefix import Kind

LONG = 30.0
Array = np.ndarray[Any, Any]


def x(value: float) -> dict[str, Array]:
    return {"x": np.full((1, 2), value, np.float32)}


class Rig:
    """A client that is connected and knows the headers, its server, and a thread that is its lone caller."""

    def __init__(self, compiled: bool, spin: float = 0.0, timeout: float | None = LONG) -> None:
        self.compiled = compiled
        self.router = Router()
        self.client = Client(self.router.endpoint, timeout=timeout, spin=spin)
        self.pool = ThreadPoolExecutor(8)
        while self.client._channel.down is not None or not self.client._channel.replies.known:
            future = self.client.submit("m", x(0))
            self.router.answer(self.router.receive())
            future.result(LONG)
        # The template of such calls, too.
        self.answered(self.pool.submit(self.client.predict, "m", x(0)))
        self.rest_is_over()

    def rest_is_over(self) -> None:
        if self.client._lone is not None:
            self.client._lone._rest = 0

    @property
    def alone(self) -> bool:
        """Whether a caller keeps the mutex now."""
        return self.client._gate.holder is not None

    def begin(self, value: float = 1.0, **options: Any) -> tuple[Future[Any], Received]:
        """A lone call, whose request has arrived."""
        call = self.pool.submit(self.client.predict, "m", x(value), **options)
        request = self.router.receive()
        assert self.alone is self.compiled
        assert bool(self.client._channel.pending.envelopes) is not self.compiled
        return call, request

    def answered(self, call: Future[Any]) -> Array:
        """The output of a call, whose request is answered first."""
        while (message := self.router.receive()).kind != Kind.REQUEST:
            pass
        self.router.answer(message)
        return call.result(LONG)["y"]

    def works(self) -> bool:
        """Whether calls are answered, and alone again after some."""
        self.rest_is_over()
        call, request = self.begin(7)
        self.router.answer(request)
        return call.result(LONG)["y"].tolist() == [[7, 7]] and not self.client._channel.pending.envelopes

    def close(self) -> None:
        self.client.close()
        self.pool.shutdown()
        self.router.close()


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Rig]]:
    pump_named(request.param)  # skips what was not built
    monkeypatch.setenv("TENSORWIRE_PURE_PYTHON", "1" if request.param == "python" else "0")
    rigs: list[Rig] = []

    def made(**options: Any) -> Rig:
        rigs.append(Rig(request.param == "compiled", **options))
        return rigs[-1]

    yield made
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    return make()


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("spin", [0.0, 1.0])
@pytest.mark.parametrize("timeout", [LONG, None])
def test_answers(make: Callable[..., Rig], spin: float, timeout: float | None) -> None:
    rig = make(spin=spin, timeout=timeout)
    for value in range(20):
        call, request = rig.begin(value)
        rig.router.answer(request)
        assert call.result(LONG)["y"].tolist() == [[value, value]]
    assert rig.client._channel.stray == 0


@pytest.mark.parametrize(
    "output",
    [
        np.zeros((1, 7), np.int64),  # a header that is new
        np.arange(30_000, dtype=np.float64).reshape(1, -1),  # a frame of its own
        np.array([["ä", ""]], object),
    ],
    ids=["new", "framed", "text"],
)
def test_unusual_answers(rig: Rig, output: Array) -> None:
    for _ in range(3):
        call, request = rig.begin()
        if output.dtype == object:
            rig.router.send(request.peer, *text_reply(request, output))
        else:
            rig.router.answer(request, output)
        assert call.result(LONG)["y"].tolist() == output.tolist()
    assert rig.works()
    assert rig.client._channel.stray == 0


def text_reply(request: Received, output: Array) -> list[Any]:
    from tensorwire.rpc.wire.header import Layout, ReplyHeader, TensorHeader, encode_header
    from tensorwire.rpc.wire.message import build, payload_of

    tensors = (TensorHeader("y", "string", output.shape[1:]),)
    return build(
        Kind.REPLY,
        first_id=request.first_id,
        layout=Layout(tensors, True),
        header=encode_header(ReplyHeader("m", 1, tensors)),
        rows=[len(output)],
        payloads=[payload_of(output)],
    )


def test_large_inputs(rig: Rig) -> None:
    inputs = {"x": np.arange(100_000, dtype=np.float32).reshape(1, -1)}
    for _ in range(3):
        call = rig.pool.submit(rig.client.predict, "m", inputs)
        request = rig.router.receive()
        np.testing.assert_array_equal(request.inputs["x"], inputs["x"])
        rig.router.answer(request, np.ones((1, 2), np.float32))
        assert call.result(LONG)["y"].tolist() == [[1, 1]]
    assert rig.alone is False
    assert rig.works()


def test_inputs_in_pieces(rig: Rig) -> None:
    inputs = {"x": np.arange(4, dtype=np.float32).reshape(1, 4)[:, ::2]}
    assert rig.answered(rig.pool.submit(rig.client.predict, "m", inputs)).tolist() == [[0, 2]]
    assert rig.works()


def test_errors(rig: Rig) -> None:
    call, request = rig.begin()
    rig.router.fail(request, 5, "no such model")
    with pytest.raises(NotFoundError, match="no such model"):
        call.result(LONG)
    assert rig.works()
    assert rig.client._channel.stray == 0


def test_garbage_does_no_harm(rig: Rig) -> None:
    call, request = rig.begin()
    for garbage in ([b""], [b"x" * 10], [b"\0" * 100], [b"", b"", b""], [b"TWIR" * 30]):
        rig.router.send(request.peer, *garbage)
    rig.router.answer(request)
    assert call.result(LONG)["y"].tolist() == [[1, 1]]
    assert rig.client._channel.stray == 5
    assert rig.works()


# ---------------------------------------------------------------- time


def test_a_late_answer_is_never_that_of_the_next_call(rig: Rig) -> None:
    late: list[Received] = []
    for value in (1, 2):  # the first one makes the template
        with pytest.raises(DeadlineExceededError, match=r"no answer from tcp://.* within 0\.02 s"):
            rig.client.predict("m", x(value), timeout=0.02)
        late.append(rig.router.receive())
    call, request = rig.begin(3)
    for message in (*late, request):
        rig.router.answer(message)
    assert call.result(LONG)["y"].tolist() == [[3, 3]]
    assert rig.client._channel.stray == 2
    assert rig.works()


def test_impossible_timeouts_are_refused(rig: Rig) -> None:
    for timeout in (-1.0, float("nan")):
        with pytest.raises(InvalidArgumentError, match="timeout"):
            rig.client.predict("m", x(1), timeout=timeout)
    assert rig.router.silent()


# ---------------------------------------------------------------- others come


def test_a_second_caller(rig: Rig) -> None:
    first, one = rig.begin(1)
    second = rig.pool.submit(rig.client.predict, "m", x(2))
    two = rig.router.receive()
    assert not rig.alone
    rig.router.answer(two)
    assert second.result(LONG)["y"].tolist() == [[2, 2]]
    assert not first.done()
    rig.router.answer(one)
    assert first.result(LONG)["y"].tolist() == [[1, 1]]
    assert rig.works()


def test_a_future(rig: Rig) -> None:
    call, one = rig.begin(1)
    future = rig.client.submit("m", x(2))
    two = rig.router.receive()
    rig.router.answer(two)
    assert future.result(LONG)["y"].tolist() == [[2, 2]]
    assert not call.done()
    rig.router.answer(one)
    assert call.result(LONG)["y"].tolist() == [[1, 1]]
    assert rig.works()


def test_a_future_that_is_cancelled(rig: Rig) -> None:
    future = rig.client.submit("m", x(1))
    rig.router.receive()
    other, request = rig.pool.submit(rig.client.predict, "m", x(2)), rig.router.receive()
    assert future.cancel()
    assert rig.router.receive().kind == Kind.CANCEL
    rig.router.answer(request)
    assert other.result(LONG)["y"].tolist() == [[2, 2]]


def test_a_control_call(rig: Rig) -> None:
    call, one = rig.begin(1)
    control = rig.pool.submit(rig.client.control, "anything")
    message = rig.router.receive()
    assert message.kind == Kind.CONTROL
    body = encode_body({"fine": True})
    rig.router.send(message.peer, build_control(Kind.CONTROL_REPLY, message.first_id, body))
    assert control.result(LONG) == {"fine": True}
    assert not call.done()
    rig.router.answer(one)
    assert call.result(LONG)["y"].tolist() == [[1, 1]]
    assert rig.works()


def test_closing(rig: Rig) -> None:
    call, _ = rig.begin(timeout=LONG)
    rig.client.close()
    with pytest.raises(UnavailableError, match="the client was closed"):
        call.result(LONG)
    with pytest.raises(UnavailableError, match="the client was closed"):
        rig.client.predict("m", x(1))


def test_a_server_that_goes_and_one_that_comes(rig: Rig) -> None:
    port = rig.router.port
    call, _ = rig.begin(timeout=LONG)
    rig.router.close()
    with pytest.raises(UnavailableError, match="was lost while the call was in flight"):
        call.result(LONG)
    rig.router = Router(port)
    assert rig.answered(rig.pool.submit(rig.client.predict, "m", x(3))).tolist() == [[3, 3]]


def serving(rig: Rig, stop: threading.Event) -> None:
    while not stop.is_set():
        if not rig.router.silent(0.05):
            message = rig.router.receive()
            if message.kind == Kind.REQUEST:
                rig.router.answer(message)


@pytest.fixture
def served(rig: Rig) -> Iterator[Rig]:
    """Its server answers by itself."""
    stop = threading.Event()
    thread = threading.Thread(target=serving, args=(rig, stop))
    thread.start()
    yield rig
    stop.set()
    thread.join(LONG)


@pytest.mark.parametrize("threads", [2, 8])
def test_each_of_many_threads_gets_its_own_answers(served: Rig, threads: int) -> None:
    client, calls = served.client, 300

    def call(base: int) -> None:
        for value in range(base, base + calls):
            assert client.predict("m", x(value))["y"].tolist() == [[value, value]]
            if value % 50 == 0:
                assert client.submit("m", x(value)).result(LONG)["y"].tolist() == [[value, value]]

    for done in [served.pool.submit(call, 1000 * thread) for thread in range(threads)]:
        done.result(LONG)
    assert client._channel.stray == 0
    assert not client._channel.pending.envelopes


def test_two_threads_that_take_turns(served: Rig) -> None:
    """They never meet: both go the short way, and nobody is disturbed."""
    turns = [threading.Semaphore(1), threading.Semaphore(0)]

    def call(mine: int) -> None:
        for value in range(100):
            turns[mine].acquire()
            assert served.client.predict("m", x(value))["y"].tolist() == [[value, value]]
            assert not served.client._channel.pending.envelopes
            turns[1 - mine].release()

    for done in [served.pool.submit(call, mine) for mine in range(2)]:
        done.result(LONG)
    if served.client._lone is not None:
        assert served.client._lone._rest == 0


def test_callers_that_meet_do_not_disturb_each_other_every_time(
    served: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = served.client._lone
    if way is None:
        return  # nobody keeps the mutex
    disturbed: list[None] = []
    disturb = way._exchange.disturb

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(exchange, name)

        def disturb(self) -> None:
            disturbed.append(None)
            disturb()

    exchange = way._exchange
    monkeypatch.setattr(way, "_exchange", Counting())
    calls = 500

    def call() -> None:
        for value in range(calls):
            served.client.predict("m", x(value))

    for done in [served.pool.submit(call) for _ in range(4)]:
        done.result(LONG)
    # Each that is disturbed can be so by each of the others.
    assert len(disturbed) <= 3 * (4 * calls / lone.REST + 1)


# ---------------------------------------------------------------- signals


@pytest.fixture
def keeping(rig: Rig) -> Rig:
    """A client whose lone caller keeps the mutex. Elsewhere a handler may run on top of code that holds it
    for a moment, and must not use the client."""
    if not rig.compiled:
        pytest.skip("without the compiled pump nobody keeps the mutex")
    return rig


@pytest.fixture
def on_signal() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Sets what this thread does on SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: (signal.signal(signal.SIGUSR1, lambda *_: handler()), None)[1]
    signal.signal(signal.SIGUSR1, before)


def signal_on_arrival(rig: Rig, number: signal.Signals) -> Future[Received]:
    """Sends the signal when a request has arrived."""

    def wait_and_kill() -> Received:
        request = rig.router.receive()
        os.kill(os.getpid(), number)
        return request

    return rig.pool.submit(wait_and_kill)


def test_an_interrupt_cancels_the_call(rig: Rig) -> None:
    request = signal_on_arrival(rig, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        rig.client.predict("m", x(1))
    cancel = rig.router.receive()
    assert (cancel.kind, cancel.first_id) == (Kind.CANCEL, request.result(LONG).first_id)
    assert not rig.client._channel.pending.envelopes
    assert rig.works()


def test_a_signal_handler_that_returns_changes_nothing(rig: Rig, on_signal: Any) -> None:
    handled = threading.Event()
    on_signal(handled.set)
    request = signal_on_arrival(rig, signal.SIGUSR1)

    def answer() -> None:
        assert handled.wait(LONG)
        rig.router.answer(request.result(LONG))

    answering = rig.pool.submit(answer)
    assert rig.client.predict("m", x(1))["y"].tolist() == [[1, 1]]
    answering.result(LONG)
    assert rig.works()


def test_a_signal_handler_may_use_the_client(keeping: Rig, on_signal: Any) -> None:
    """It runs on top of a call that keeps the mutex."""
    futures: SimpleQueue[Future[Any]] = SimpleQueue()
    on_signal(lambda: futures.put(keeping.client.submit("m", x(2))))
    request = signal_on_arrival(keeping, signal.SIGUSR1)

    def answer() -> list[list[float]]:
        first = request.result(LONG)
        keeping.router.answer(keeping.router.receive())
        second = futures.get(timeout=LONG).result(LONG)
        keeping.router.answer(first)
        return second["y"].tolist()

    answering = keeping.pool.submit(answer)
    assert keeping.client.predict("m", x(1))["y"].tolist() == [[1, 1]]
    assert answering.result(LONG) == [[2, 2]]
    assert keeping.works()


def test_a_signal_handler_may_use_the_client_and_raise(keeping: Rig, on_signal: Any) -> None:
    futures: list[Future[Any]] = []

    def handler() -> None:
        futures.append(keeping.client.submit("m", x(2)))
        raise KeyboardInterrupt

    on_signal(handler)
    request = signal_on_arrival(keeping, signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt):
        keeping.client.predict("m", x(1))
    second, cancel = keeping.router.receive(), keeping.router.receive()
    assert (cancel.kind, cancel.first_id) == (Kind.CANCEL, request.result(LONG).first_id)
    keeping.router.answer(second)
    assert futures[0].result(LONG)["y"].tolist() == [[2, 2]]
    assert not keeping.client._channel.pending.envelopes


def test_a_signal_handler_may_close_the_client(
    keeping: Rig, on_signal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The caller cannot leave the socket while the handler runs on top of it.
    monkeypatch.setattr(lead, "_DEPARTURE", 0.0)
    on_signal(keeping.client.close)
    signal_on_arrival(keeping, signal.SIGUSR1)
    with pytest.raises(UnavailableError, match="the client was closed"):
        keeping.client.predict("m", x(1))
