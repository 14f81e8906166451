"""Locust against servers of its own: ``make bench-locust``, or ``python -m tensorwire.bench.locust_run``.

Starts the tensorwire and the gRPC server, then Locust with ``bench/locustfile.py``; ends all of it on Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from .models import build_repository
from .processes import ChildError
from .servers import start_server

_LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_STEPS: Final = "8:5,32:5,64:5"
#: Kind of system -> its server and its class of users.
_KINDS: Final = {"tensorwire": "TensorwireUser", "grpc": "GrpcUser"}
#: Seconds in which Locust ends its users and writes its tables.
_STOP_SECONDS: Final = 15.0
_UI_SECONDS: Final = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run Locust; its exit status, which is 1 where a call failed."""
    options, further = _parser().parse_known_args(arguments)
    if find_spec("locust") is None:
        print("Locust is not installed: pip install 'tensorwire[locust]'", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _run(options, further)
    except ChildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; all processes were stopped", file=sys.stderr)
        return 130


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # SIGTERM unwinds as Ctrl-C does, so that the children are stopped. Ctrl-C comes here as well: a shell may
    # have this process ignore it, which Locust would inherit.
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tensorwire.bench.locust_run",
        description=__doc__,
        epilog="Everything else goes to Locust: --case, --user-rate, --call-timeout and its own options.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--web", action="store_true", help="the web UI, until Ctrl-C, instead of a run without it"
    )
    parser.add_argument("--port", type=int, default=8089, help="of the web UI (default %(default)s)")
    parser.add_argument("--only", choices=list(_KINDS), help="users of this system alone (default: of both)")
    parser.add_argument(
        "--steps", default=_STEPS, help="the ramp, as USERS:SECONDS,... (default %(default)s); empty: none"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/locust"),
        help="folder for tables and page (default %(default)s)",
    )
    return parser


def _run(options: argparse.Namespace, further: list[str]) -> int:
    kinds = [options.only] if options.only else list(_KINDS)
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tensorwire-locust-")))
        repository = build_repository(folder / "repository")
        addresses = {
            kind: stack.enter_context(start_server(kind, repository, folder)).address for kind in kinds
        }
        for kind, address in addresses.items():
            print(f"{kind} server: {address}", flush=True)
        command = _command(options, addresses)
        locust = stack.enter_context(_locust([*command, *further]))
        if options.web and _until_reachable(locust, options.port):
            print(f"web UI: http://127.0.0.1:{options.port} (Ctrl-C ends it)", flush=True)
        status = _wait(locust, options.web)
    if not options.web:
        print(f"written: {options.out}/locust_stats.csv and others, {options.out}/locust.html")
    return status


def _command(options: argparse.Namespace, addresses: dict[str, str]) -> list[str]:
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--steps", options.steps]
    for kind, address in addresses.items():
        command += [f"--{kind}-address", address]
    if options.web:
        command += ["--class-picker", "--web-host", "127.0.0.1", "--web-port", str(options.port)]
    else:
        command += ["--headless", "--only-summary"]
        command += ["--csv", str(options.out / "locust"), "--html", str(options.out / "locust.html")]
    return [*command, *(_KINDS[kind] for kind in addresses)]


@contextmanager
def _locust(command: list[str]) -> Generator[subprocess.Popen[bytes]]:
    """Locust in a session of its own: Ctrl-C reaches this process alone, which then stops Locust before the
    servers, so that no call fails for that."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield process
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], web: bool) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        if not web:
            raise
        # That is how one leaves the page.
        _stop(process)
        return process.returncode


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_reachable(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the web UI answers; False: Locust has ended, and has said why."""
    deadline = time.monotonic() + _UI_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/", timeout=5.0):
                return True
        except (URLError, OSError):  # not listening yet
            time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(main())
