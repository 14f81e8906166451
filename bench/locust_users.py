"""What Locust's users do: the same call over tensorwire and over gRPC. Importing this patches the process."""

from __future__ import annotations

import signal
import time
from argparse import Namespace
from itertools import count
from typing import Any, ClassVar, Final, cast

import gevent

# Before all others of ours, because it patches the standard library, which they use.
from locust import User, constant, constant_throughput, events, task
from locust.env import Environment
from locust.runners import MasterRunner

from .locust_clients import CONNECT, Connection
from .models import OUTPUT, case_of
from .systems import Answer

#: Different inputs; users share them.
_INPUTS: Final = 16
_events = cast(Any, events)


class CallFailed(Exception):
    """A failed call as Locust's table of failures shows it: code and message, equal for equal failures."""


class InferenceUser(User):
    """Calls one model over and over, at the rate that was asked for.

    Attributes:
        kind: key of :data:`.locust_clients.CONNECT`, and what Locust's tables call it.
        connection: shared by all users of the class in this process; there while a test runs.
    """

    abstract = True
    kind: ClassVar[str] = ""
    connection: ClassVar[Connection | None] = None
    _numbers: ClassVar[count[int]] = count()

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = cast(Namespace, environment.parsed_options)
        self._fire = cast(Any, environment).events.request.fire
        self._pace = constant_throughput(options.user_rate) if options.user_rate else constant(0)
        self._case = case_of(options.case)
        self._inputs = self._case.inputs(_INPUTS)[next(self._numbers) % _INPUTS]
        self._verified = False

    def on_start(self) -> None:
        """Prepare the call."""
        assert self.connection is not None, "users run while a test does"
        self._reason_of = self.connection.reason_of
        self._call = self.connection.caller(self._case, self._inputs)

    def wait_time(self) -> float:
        """Seconds until the next call."""
        return self._pace(self)

    @task
    def infer(self) -> None:
        """One call; reported to Locust whatever comes of it. A user's first answer is compared with NumPy."""
        answer: Answer = {}
        failure = None
        started, begin = time.time(), time.perf_counter()
        try:
            answer = self._call()
        except Exception as error:  # noqa: BLE001 - Locust counts every failure
            failure = CallFailed(self._reason_of(error))
        milliseconds = (time.perf_counter() - begin) * 1e3
        if failure is None and not self._verified:
            failure = self._wrong(answer)
            self._verified = failure is None
        self._fire(
            request_type=self.kind,
            name=self._case.name,
            response_time=milliseconds,
            response_length=sum(int(array.nbytes) for array in answer.values()),
            exception=failure,
            context={},
            start_time=started,
        )

    def _wrong(self, answer: Answer) -> CallFailed | None:
        try:
            self._case.verify(self._inputs, answer[OUTPUT])
        except (KeyError, ValueError) as error:
            return CallFailed(f"wrong answer: {error}")
        return None


class TensorwireUser(InferenceUser):
    """Over tensorwire."""

    kind = "tensorwire"


class GrpcUser(InferenceUser):
    """Over gRPC."""

    kind = "gRPC"


@_events.init.add_listener
def _addresses(environment: Environment, **_: Any) -> None:
    options = cast(Namespace, environment.parsed_options)
    TensorwireUser.host, GrpcUser.host = options.tensorwire_address, options.grpc_address


@_events.init.add_listener
def _interruptible(**_: Any) -> None:
    # Ctrl-C is for Locust's main greenlet, not for the user that happens to run when it comes.
    gevent.signal_handler(signal.SIGINT, gevent.getcurrent().throw, KeyboardInterrupt)


@_events.test_start.add_listener
def _connect(environment: Environment, **_: Any) -> None:
    # The master of several processes has no users.
    if not isinstance(environment.runner, MasterRunner):
        timeout: float = cast(Namespace, environment.parsed_options).call_timeout
        for user in _classes(environment):
            user.connection = CONNECT[user.kind](str(environment.host or user.host), timeout)


@_events.test_stop.add_listener
def _disconnect(environment: Environment, **_: Any) -> None:
    for user in _classes(environment):
        connection, user.connection = user.connection, None
        if connection is not None:
            connection.close()


def _classes(environment: Environment) -> list[type[InferenceUser]]:
    return [user for user in environment.user_classes if issubclass(user, InferenceUser)]
