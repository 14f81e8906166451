"""What the users of Locust can be told, on its command line and on its page, and how their number grows.

Importing this patches the process.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any, ClassVar, cast

from locust import LoadTestShape, events

from .models import case_of
from .ramp import steps_of, users_at
from .systems import CALL_TIMEOUT

_events = cast(Any, events)


@_events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    group = parser.add_argument_group(
        "tensorwire", "What the users call, how often, and how their number grows."
    )
    group.add_argument(
        "--tensorwire-address",
        default="tcp://127.0.0.1:8700",
        env_var="LOCUST_TENSORWIRE_ADDRESS",
        help="of the tensorwire server (default %(default)s)",
    )
    group.add_argument(
        "--grpc-address",
        default="127.0.0.1:8710",
        env_var="LOCUST_GRPC_ADDRESS",
        help="of the KServe v2 gRPC server (default %(default)s)",
    )
    group.add_argument(
        "--case",
        default="64 B",
        type=_case,
        env_var="LOCUST_CASE",
        help="request, and with it the model: '64 B', '4 KiB', '602,112 B', or sized:N for N bytes "
        "(default %(default)s)",
    )
    group.add_argument(
        "--user-rate",
        default=0.0,
        type=_rate,
        env_var="LOCUST_USER_RATE",
        help="calls a second of each user; 0: the next one follows the answer (default %(default)s)",
    )
    group.add_argument(
        "--call-timeout",
        default=CALL_TIMEOUT,
        type=float,
        env_var="LOCUST_CALL_TIMEOUT",
        help="seconds that a call may take (default %(default)s)",
    )
    group.add_argument(
        "--steps",
        default="",
        type=_steps,
        env_var="LOCUST_STEPS",
        help="the ramp, as USERS:SECONDS,...; empty: --users, --spawn-rate and --run-time count "
        "(default empty)",
    )


def _case(text: str) -> str:
    try:
        case_of(text)
    except (KeyError, ValueError) as error:
        raise ArgumentTypeError(f"no case is called {text!r}") from error
    return text


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < float("inf"):
        raise ArgumentTypeError(f"{text} is not a rate; expected 0 or calls a second")
    return rate


def _steps(text: str) -> str:
    try:
        steps_of(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error
    return text


class Ramp(LoadTestShape):
    """The users of ``--steps``; without steps those of Locust's own options. Locust asks once a second."""

    use_common_options: ClassVar[bool] = True

    def tick(self) -> tuple[int, float] | None:
        """How many users there shall be now, and how many may start a second; None: it is over."""
        assert self.runner is not None
        options = cast(Namespace, self.runner.environment.parsed_options)
        steps, elapsed = steps_of(options.steps), self.get_run_time()
        if not steps:
            users = options.num_users or 1
            return (
                None if options.run_time and elapsed >= options.run_time else (users, options.spawn_rate or 1)
            )
        users = users_at(steps, elapsed)
        # A step is there at once: how users come is not part of what it measures.
        return None if users is None else (users, users)
