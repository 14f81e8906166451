"""Both clients against a server that does what the test says: timeouts, losses, cancelling, closing."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, as_completed
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from router import Received, Router
from tensorwire.client import AsyncClient, Client
from tensorwire.rpc.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    ProtocolError,
    RpcError,
    UnavailableError,
)
from tensorwire.rpc.wire.extra import encode_body
from tensorwire.rpc.wire.message import build_control
from tensorwire.rpc.wire.prefix import Kind

#: An answer that must come "at once" comes within this many seconds even on a busy machine.
SOON = 2.0
LONG = 30.0
X = {"x": np.ones((1, 2), np.float32)}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine on either kind of loop."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._begin


def free_port() -> int:
    """A port that nobody listens on. (ZeroMQ would close its listener later than it says.)"""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """What would block the loop: the test's end of the connection."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


# ---------------------------------------------------------------- parity


def methods(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if inspect.isfunction(value) and name[0] != "_"}


class TestParity:
    def test_the_same_methods(self) -> None:
        assert methods(Client).keys() - methods(AsyncClient).keys() == {"submit"}
        assert methods(AsyncClient).keys() <= methods(Client).keys()

    @pytest.mark.parametrize("name", sorted(methods(AsyncClient)))
    def test_the_same_parameters(self, name: str) -> None:
        ours, theirs = methods(Client)[name], methods(AsyncClient)[name]
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert inspect.iscoroutinefunction(theirs)
        assert inspect.getdoc(ours)
        assert inspect.getdoc(theirs)

    def test_submit_is_predict_without_waiting(self) -> None:
        predict, submit = (inspect.signature(methods(Client)[name]) for name in ("predict", "submit"))
        assert predict.parameters == submit.parameters

    def test_the_same_constructor(self) -> None:
        blocking = inspect.signature(Client)
        # An event loop has other things to do than to look for one answer.
        both = [parameter for name, parameter in blocking.parameters.items() if name != "spin"]
        assert blocking.replace(parameters=both) == inspect.signature(AsyncClient)


# ---------------------------------------------------------------- timeouts


class TestTimeouts:
    def test_no_answer(self, router: Router) -> None:
        with Client(router.endpoint, timeout=0.2) as client:
            for call in (
                lambda: client.predict("m", X),
                lambda: client.predict("m", X, timeout=0.1),
                lambda: client.submit("m", X).result(LONG),
                client.health,
            ):
                took = Watch()
                # The connection may need longer than that the first time.
                with pytest.raises((DeadlineExceededError, UnavailableError)):
                    call()
                assert 0.09 < took() < SOON
            router.receive()
            with pytest.raises(DeadlineExceededError, match=r"no answer from tcp://.* within 0\.2 s"):
                client.predict("m", X)

    def test_no_answer_async(self, router: Router, run: Any) -> None:
        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                first = asyncio.ensure_future(client.predict("m", X))
                router.answer(await in_thread(router.receive))
                await first
                took = Watch()
                calls = [client.predict("m", X, timeout=0.2), client.predict("m", X, timeout=0.1)]
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(result) for result in results] == [DeadlineExceededError] * 2
                assert 0.19 < took() < SOON

        run(main())

    def test_nobody_listens(self, run: Any) -> None:
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        took = Watch()
        with Client(endpoint, timeout=0.3) as client:
            with pytest.raises(UnavailableError, match=r"cannot connect to .*is the server running"):
                client.predict("m", X)
            with pytest.raises(UnavailableError):
                client.submit("m", X).result(LONG)

        async def main() -> None:
            async with AsyncClient(endpoint, timeout=0.3) as client:
                with pytest.raises(UnavailableError, match=r"cannot connect to .*is the server running"):
                    await client.predict("m", X)

        run(main())
        assert took() < 3 * SOON

    def test_a_server_that_comes_late_is_in_time(self) -> None:
        port = free_port()
        with Client(f"tcp://127.0.0.1:{port}", timeout=LONG) as client:
            future = client.submit("m", X)
            with Router(port) as router:
                router.answer(router.receive(LONG))
                assert future.result(LONG)["y"].tolist() == [[1, 1]]

    def test_a_short_timeout_behind_a_long_one(self, router: Router, pool: ThreadPoolExecutor) -> None:
        """Whoever reads for all sleeps until the deadline of his own call."""
        with Client(router.endpoint, timeout=LONG) as client:
            long = pool.submit(client.predict, "m", X)
            router.receive()
            took = Watch()
            with pytest.raises(DeadlineExceededError):
                client.submit("m", X, timeout=0.1).result(LONG)
            with pytest.raises(DeadlineExceededError):
                client.predict("m", X, timeout=0.1)
            assert took() < 2 * SOON
            assert not long.done()
            client.close()
            assert isinstance(long.exception(LONG), UnavailableError)

    def test_a_short_timeout_behind_a_long_one_async(self, router: Router, run: Any) -> None:
        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                long = asyncio.ensure_future(client.predict("m", X))
                await in_thread(router.receive)
                took = Watch()
                with pytest.raises(DeadlineExceededError):
                    await client.predict("m", X, timeout=0.1)
                assert took() < SOON
                await client.close()
                with pytest.raises(UnavailableError):
                    await long

        run(main())

    def test_the_answers_of_others_do_not_put_a_timeout_off(self, router: Router) -> None:
        stop = threading.Event()

        def serve() -> None:
            # To the end of the last call, which would wait for its answer in vain.
            while any(thread.is_alive() for thread in callers) or not stop.is_set():
                if not router.silent(0.05):
                    message = router.receive()
                    if message.kind == Kind.REQUEST and message.signature.header.model == "quick":
                        router.answer(message)

        with Client(router.endpoint, timeout=LONG) as client:
            answered = [0]

            def call() -> None:
                while not stop.is_set():
                    client.predict("quick", X)
                    answered[0] += 1

            callers = [threading.Thread(target=call) for _ in range(2)]
            threads = [*callers, threading.Thread(target=serve)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(3):
                    took = Watch()
                    with pytest.raises(DeadlineExceededError):
                        client.predict("stuck", X, timeout=0.2)
                    assert took() < SOON
            finally:
                stop.set()
                for thread in threads:
                    thread.join(LONG)
            assert answered[0] > 10


# ---------------------------------------------------------------- answers


class TestAnswers:
    def test_fused_calls_answered_in_parts(self, router: Router, run: Any) -> None:
        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                calls = [
                    asyncio.ensure_future(client.predict("m", {"x": np.full((1, 2), float(n))}))
                    for n in range(6)
                ]
                first = await in_thread(router.receive)
                rest = await in_thread(router.receive)
                assert (first.count, rest.count) == (1, 5)
                router.answer(rest, lo=3, hi=5)
                router.answer(first)
                router.answer(rest, lo=0, hi=3)
                results = await asyncio.gather(*calls)
                assert [result["y"][0, 0] for result in results] == [0, 1, 2, 3, 4, 5]

        run(main())

    def test_without_fusing_each_has_a_message(self, router: Router, run: Any) -> None:
        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG, fuse=False) as client:
                calls = [asyncio.ensure_future(client.predict("m", X)) for _ in range(3)]
                for _ in calls:
                    message = await in_thread(router.receive)
                    assert message.count == 1
                    router.answer(message)
                await asyncio.gather(*calls)

        run(main())

    def test_garbage_does_no_harm(self, router: Router) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            for _ in range(2):
                future = client.submit("m", X)
                message = router.receive()
                for garbage in ([b""], [b"x" * 10], [b"\0" * 100], [b"", b"", b""], [b"TWIR" * 30]):
                    router.send(message.peer, *garbage)
                router.answer(message)
                assert future.result(LONG)["y"].tolist() == [[1, 1]]
            assert client._channel.stray == 10

    def test_errors_have_their_class_and_code(self, router: Router) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            future = client.submit("m", X)
            router.fail(router.receive(), 5, "no such model")
            with pytest.raises(NotFoundError, match="no such model"):
                future.result(LONG)
            future = client.submit("m", X)
            router.fail(router.receive(), 99, "from the future")
            error = future.exception(LONG)
            assert isinstance(error, RpcError)
            assert error.code == 99

    def test_an_answer_to_a_control_call_that_makes_no_sense(
        self, router: Router, pool: ThreadPoolExecutor
    ) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            call = pool.submit(client.health)
            message = router.receive()
            assert message.call is not None
            assert message.call.method == "health"
            router.send(message.peer, build_control(Kind.CONTROL_REPLY, message.first_id, encode_body(["?"])))
            with pytest.raises(ProtocolError, match="not understood"):
                call.result(LONG)

    def test_an_address_that_is_none(self, run: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="expected tcp://HOST:PORT"):
            Client("nonsense").predict("m", X)
        future = Client("nonsense").submit("m", X)
        with pytest.raises(InvalidArgumentError, match="expected tcp://HOST:PORT"):
            future.result(LONG)

        async def main() -> None:
            client = AsyncClient("nonsense")
            with pytest.raises(InvalidArgumentError, match="expected tcp://HOST:PORT"):
                await client.predict("m", X)
            await client.close()

        run(main())


# ---------------------------------------------------------------- futures


class TestFutures:
    def answer_all(self, router: Router, count: int) -> None:
        while count:
            message = router.receive()
            router.answer(message)
            count -= message.count

    def test_as_completed_and_wait(self, router: Router) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            futures = [client.submit("m", X) for _ in range(5)]
            self.answer_all(router, 5)
            assert {future.result()["y"].shape for future in as_completed(futures, LONG)} == {(1, 2)}
            assert wait_for(futures, LONG).not_done == set()

    def test_callbacks_may_call_and_wait(self, router: Router, pool: ThreadPoolExecutor) -> None:
        """They run under no lock and in nobody's way."""
        done: Future[Any] = Future()

        with Client(router.endpoint, timeout=LONG) as client:

            def callback(future: Future[Any]) -> None:
                try:
                    chained = client.submit("m", future.result())
                    direct = client.predict("m", {"x": future.result()["y"]})
                    done.set_result((chained.result(LONG), direct))
                except BaseException as error:  # noqa: BLE001 - for the test to see
                    done.set_exception(error)

            client.submit("m", X).add_done_callback(callback)
            follower = pool.submit(client.predict, "m", X)
            self.answer_all(router, 4)
            chained, direct = done.result(LONG)
            assert chained["y"].tolist() == direct["y"].tolist() == [[1, 1]]
            follower.result(LONG)

    def test_a_chain_of_callbacks(self, router: Router) -> None:
        left = 200
        done = threading.Event()
        with Client(router.endpoint, timeout=LONG) as client:

            def again(future: Future[Any]) -> None:
                nonlocal left
                left -= 1
                if left:
                    client.submit("m", X).add_done_callback(again)
                else:
                    done.set()

            client.submit("m", X).add_done_callback(again)
            self.answer_all(router, 200)
            assert done.wait(LONG)

    def test_callbacks_that_fail_harm_nobody(self, router: Router, caplog: pytest.LogCaptureFixture) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            futures = [client.submit("m", X) for _ in range(3)]
            ran = threading.Event()
            futures[0].add_done_callback(lambda _: 1 / 0)
            futures[0].add_done_callback(lambda _: ran.set())
            self.answer_all(router, 3)
            assert ran.wait(LONG)
            for future in futures:
                future.result(LONG)
        assert "ZeroDivisionError" in caplog.text

    def test_a_callback_may_close_the_client(self, router: Router) -> None:
        client = Client(router.endpoint, timeout=LONG)
        closed = threading.Event()
        other = client.submit("m", X)
        stays = router.receive()
        future = client.submit("m", X)
        future.add_done_callback(lambda _: (client.close(), closed.set()))
        router.answer(router.receive())
        assert closed.wait(LONG)
        assert isinstance(other.exception(LONG), UnavailableError)
        assert stays.count == 1

    def test_a_future_can_be_awaited(self, router: Router, run: Any) -> None:
        with Client(router.endpoint, timeout=LONG) as client:

            async def main() -> None:
                future = asyncio.wrap_future(client.submit("m", X))
                router.answer(await in_thread(router.receive))
                assert (await future)["y"].tolist() == [[1, 1]]

            run(main())


# ---------------------------------------------------------------- cancelling


class TestCancel:
    def test_a_future(self, router: Router) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            future = client.submit("m", X)
            request = router.receive()
            called = threading.Event()
            future.add_done_callback(lambda _: called.set())
            assert future.cancel()
            assert future.cancel()
            cancel = router.receive()
            assert (cancel.kind, cancel.first_id, cancel.count) == (Kind.CANCEL, request.first_id, 1)
            assert router.silent(0.02)
            assert called.wait(LONG)
            assert wait_for([future], SOON, FIRST_COMPLETED).done == {future}
            with pytest.raises(CancelledError):
                future.result(0)
            # The answer comes nevertheless.
            router.answer(request)
            future = client.submit("m", X)
            router.answer(router.receive())
            assert future.result(LONG)
            assert not future.cancel()

    def test_a_task(self, router: Router, run: Any) -> None:
        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                task = asyncio.ensure_future(client.predict("m", X))
                request = await in_thread(router.receive)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                cancel = await in_thread(router.receive)
                assert (cancel.kind, cancel.first_id) == (Kind.CANCEL, request.first_id)
                assert not client._channel.pending.envelopes
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await client.predict("m", X)
                assert (await in_thread(router.receive)).kind == Kind.REQUEST
                assert (await in_thread(router.receive)).kind == Kind.CANCEL
                task = asyncio.ensure_future(client.predict("m", X))
                router.answer(await in_thread(router.receive))
                assert (await task)["y"].tolist() == [[1, 1]]

        run(main())

    def test_one_of_a_message_async(self, router: Router, run: Any) -> None:
        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                tasks = [asyncio.ensure_future(client.predict("m", X)) for _ in range(4)]
                single = await in_thread(router.receive)
                fused = await in_thread(router.receive)
                tasks[2].cancel()
                cancel = await in_thread(router.receive)
                assert cancel.first_id == fused.first_id + 1
                router.answer(single)
                router.answer(fused)
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [isinstance(result, dict) for result in results] == [True, True, False, True]

        run(main())

    def test_many_at_once_while_answers_come(self, router: Router, pool: ThreadPoolExecutor) -> None:
        """Whether cancelled or answered: nothing is raised where somebody else waits."""
        with Client(router.endpoint, timeout=LONG) as client:
            for _ in range(20):
                futures = [client.submit("m", X) for _ in range(10)]
                messages: list[Received] = []
                while sum(message.count for message in messages) < 10:
                    message = router.receive()
                    if message.kind == Kind.REQUEST:
                        messages.append(message)
                cancelled = pool.submit(lambda mine=futures: [future.cancel() for future in mine])
                for message in messages:
                    router.answer(message)
                cancelled.result(LONG)
                for future in futures:
                    assert future.cancelled() or future.result(LONG)["y"].shape == (1, 2)
            assert client._background is not None
            assert client._background._thread.is_alive()


# ---------------------------------------------------------------- losses


class TestLosses:
    def test_a_server_that_goes_fails_calls_at_once_and_one_that_comes_serves_again(
        self, pool: ThreadPoolExecutor
    ) -> None:
        router = Router()
        port = router.port
        with Client(router.endpoint, timeout=LONG) as client:
            for _ in range(3):
                calls = [pool.submit(client.predict, "m", X) for _ in range(4)]
                calls += [client.submit("m", X) for _ in range(3)]
                seen = 0
                while seen < 7:
                    seen += router.receive().count
                took = Watch()
                router.close()
                for call in calls:
                    error = call.exception(LONG)
                    assert isinstance(error, UnavailableError), error
                    assert "was lost" in error.message
                assert took() < SOON
                router = Router(port)
                again = client.submit("m", X)
                router.answer(router.receive(LONG))
                assert again.result(LONG)["y"].tolist() == [[1, 1]]
        router.close()

    def test_a_lone_caller(self, pool: ThreadPoolExecutor) -> None:
        """Nobody else notices for it that the connection is gone."""
        for _ in range(5):
            router = Router()
            with Client(router.endpoint, timeout=None) as client:
                call = pool.submit(client.predict, "m", X)
                router.receive()
                took = Watch()
                router.close()
                assert isinstance(call.exception(LONG), UnavailableError)
                assert took() < SOON

    def test_async(self, run: Any) -> None:
        async def main() -> None:
            router = Router()
            port = router.port
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                calls = [asyncio.ensure_future(client.predict("m", X)) for _ in range(5)]
                seen = 0
                while seen < 5:
                    seen += (await in_thread(router.receive)).count
                took = Watch()
                router.close()
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(result) for result in results] == [UnavailableError] * 5
                assert took() < SOON
                router = Router(port)
                again = asyncio.ensure_future(client.predict("m", X))
                router.answer(await in_thread(router.receive, LONG))
                assert (await again)["y"].tolist() == [[1, 1]]
            router.close()

        run(main())


# ---------------------------------------------------------------- closing


class TestClose:
    def test_while_calls_wait(self, router: Router, pool: ThreadPoolExecutor) -> None:
        client = Client(router.endpoint, timeout=None)
        calls = [pool.submit(client.predict, "m", X) for _ in range(4)]
        calls += [client.submit("m", X) for _ in range(3)]
        seen = 0
        while seen < 7:
            seen += router.receive().count
        took = Watch()
        client.close()
        for call in calls:
            with pytest.raises(UnavailableError, match="the client was closed"):
                call.result(LONG)
        assert took() < SOON

    def test_while_one_caller_waits(self, router: Router, pool: ThreadPoolExecutor) -> None:
        for _ in range(10):
            client = Client(router.endpoint, timeout=None)
            call = pool.submit(client.predict, "m", X)
            router.receive()
            took = Watch()
            client.close()
            assert isinstance(call.exception(LONG), UnavailableError)
            assert took() < SOON

    def test_afterwards(self, router: Router) -> None:
        client = Client(router.endpoint)
        future = client.submit("m", X)
        client.close()
        client.close()
        assert isinstance(future.exception(0), UnavailableError)
        with pytest.raises(UnavailableError, match="the client was closed"):
            client.predict("m", X)
        with pytest.raises(UnavailableError, match="the client was closed"):
            client.submit("m", X).result(0)
        with pytest.raises(UnavailableError, match="the client was closed"):
            client.health()

    def test_never_used(self, run: Any) -> None:
        Client("tcp://127.0.0.1:1").close()
        with Client("tcp://127.0.0.1:1"):
            pass

        async def main() -> None:
            await AsyncClient("tcp://127.0.0.1:1").close()
            async with AsyncClient("tcp://127.0.0.1:1"):
                pass

        run(main())

    def test_async(self, router: Router, run: Any) -> None:
        async def main() -> None:
            client = AsyncClient(router.endpoint, timeout=None)
            calls = [asyncio.ensure_future(client.predict("m", X)) for _ in range(3)]
            await in_thread(router.receive)
            control = asyncio.ensure_future(client.health())
            await asyncio.sleep(0)
            await client.close()
            await client.close()
            results = await asyncio.gather(*calls, control, return_exceptions=True)
            assert [type(result) for result in results] == [UnavailableError] * 4
            for call in (client.predict("m", X), client.health()):
                with pytest.raises(UnavailableError, match="the client was closed"):
                    await call

        run(main())

    def test_before_a_call_of_this_pass_is_sent(self, router: Router, run: Any) -> None:
        async def main() -> None:
            client = AsyncClient(router.endpoint, timeout=LONG)
            calls = [asyncio.ensure_future(client.predict("m", X)) for _ in range(3)]
            await asyncio.sleep(0)  # the first is sent, the others are to be
            await client.close()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [UnavailableError] * 3

        run(main())

    def test_while_threads_keep_calling(self, router: Router, pool: ThreadPoolExecutor) -> None:
        for _ in range(5):
            client = Client(router.endpoint, timeout=LONG)

            def call(client: Client = client) -> int:
                for count in range(1000):
                    try:
                        client.submit("m", X)
                        client.predict("m", X, timeout=0.01)
                    except DeadlineExceededError:
                        continue
                    except UnavailableError as error:
                        if "closed" in error.message:
                            return count
                raise AssertionError("was never closed")

            calls = [pool.submit(call) for _ in range(4)]
            router.receive()
            router.receive()
            took = Watch()
            client.close()
            for each in calls:
                each.result(LONG)
            assert took() < SOON
            while not router.silent():
                router.receive()

    def test_nothing_stays_open(self, router: Router, run: Any) -> None:
        def descriptors() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        def use() -> None:
            with Client(router.endpoint, timeout=LONG) as client:
                future = client.submit("m", X)
                router.answer(router.receive())
                future.result(LONG)

        async def main() -> None:
            async with AsyncClient(router.endpoint, timeout=LONG) as client:
                call = asyncio.ensure_future(client.predict("m", X))
                router.answer(await in_thread(router.receive))
                await call

        use()
        run(main())
        before = descriptors()
        for _ in range(10):
            use()
            run(main())
        until = time.monotonic() + SOON  # ZeroMQ closes the server's ends in its own time
        while descriptors() > before + 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert descriptors() <= before + 3


# ---------------------------------------------------------------- interrupts


class TestInterrupts:
    def interrupt(self, router: Router, messages: int = 1) -> threading.Thread:
        """Ctrl-C as soon as the request has arrived."""

        def wait_and_kill() -> None:
            for _ in range(messages):
                router.receive()
            # It waits for the answer by now, or it is about to; both must work.
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=wait_and_kill)
        thread.start()
        return thread

    def answered(self, router: Router, client: Client) -> bool:
        future = client.submit("m", X)
        while (message := router.receive()).kind != Kind.REQUEST:
            pass
        router.answer(message)
        return future.result(LONG)["y"].tolist() == [[1, 1]]

    def test_a_lone_caller(self, router: Router) -> None:
        with Client(router.endpoint, timeout=LONG) as client:
            assert self.answered(router, client)
            thread = self.interrupt(router)
            took = Watch()
            with pytest.raises(KeyboardInterrupt):
                client.predict("m", X)
            assert took() < SOON
            thread.join(LONG)
            assert router.receive().kind == Kind.CANCEL
            assert not client._channel.pending.envelopes
            assert self.answered(router, client)

    def test_one_of_several(self, router: Router, pool: ThreadPoolExecutor) -> None:
        """Whoever reads for all is interrupted: the others get their answers nevertheless."""
        with Client(router.endpoint, timeout=LONG) as client:
            future = client.submit("m", X)
            first = router.receive()
            thread = self.interrupt(router)
            with pytest.raises(KeyboardInterrupt):
                client.predict("m", X)
            thread.join(LONG)
            assert router.receive().kind == Kind.CANCEL
            router.answer(first)
            assert future.result(LONG)
            other = pool.submit(client.predict, "m", X)
            router.answer(router.receive())
            assert other.result(LONG)


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_impossible_timeouts_are_refused(timeout: float, router: Router, run: Any) -> None:
    async def main() -> None:
        async with AsyncClient(router.endpoint) as client:
            with pytest.raises(InvalidArgumentError, match="timeout"):
                await client.predict("m", X, timeout=timeout)

    run(main())
    with Client(router.endpoint) as client:
        for call in (client.predict, client.submit):
            with pytest.raises(InvalidArgumentError, match="timeout"):
                call("m", X, timeout=timeout)
