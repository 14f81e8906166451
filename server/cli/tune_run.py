"""One run of ``tensorwire tune``: connect, sweep, put back, tell."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import typer

from ...bench.environment import Environment
from ...bench.processes import ChildError
from ...bench.tune.choice import choose, lines, noise
from ...bench.tune.crew import Crew, sensible_processes
from ...bench.tune.durations import duration
from ...bench.tune.loader import Spec
from ...bench.tune.outcome import Outcome
from ...bench.tune.points import Space
from ...bench.tune.search import Search
from ...bench.tune.session import Plan, Session
from ...client import Client
from ...rpc.errors import RpcError
from ...rpc.types import ModelMetadata
from .common import FAILED, connected, fail, print_json
from .tune_files import Files
from .tune_machine import server_pid
from .tune_prepare import Request, Wanted, prepare_requests, prepare_space
from .tune_present import Present, command
from .tune_progress import Progress, print_outcome
from .tune_site import Interfered, LiveSite
from .tuning import ask

_COMMAND_TIMEOUT: Final = 10.0
_CALL_TIMEOUT: Final = 10.0
_INTERRUPTED: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Traffic of others, as a part of ours, and noise, from which there is a warning.
_OTHERS: Final = 0.01
_NOISE: Final = 0.15
#: Fewer calls than this in a measurement, and p99 is nearly the slowest of them.
_FEW: Final = 200


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP interrupt; but not where :attr:`held` says so. A context manager."""

    def __init__(self) -> None:
        self.held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self.held:
            # From here on until the settings are back, there is nothing left to interrupt.
            self.held = True
            raise KeyboardInterrupt


class Run:
    """See :func:`.tune.tune` for the arguments."""

    def __init__(
        self,
        address: str,
        request: Request,
        plan: Plan,
        wanted: Wanted,
        *,
        processes: int | None,
        timeout: float,
        out: Path | None,
        apply: bool,
        write: Path | None,
        json: bool,
    ) -> None:
        self._address = address
        self._request = request
        self._plan = plan
        self._wanted = wanted
        self._processes = processes
        self._timeout = timeout
        self._out = out
        self._apply = apply
        self._write = write
        self._json = json
        self._present: Present
        self._notes: list[str] = []
        self._ended = ""
        self._interrupted = False
        self._in_force = ""

    def run(self) -> None:
        """Do it all; ends the command with its exit status."""
        with connected(self._address, _COMMAND_TIMEOUT) as client, Signals() as signals:
            try:
                outcome = self._sweep(client, signals)
            except KeyboardInterrupt:
                fail("interrupted before anything was changed", _INTERRUPTED)
            except ChildError as error:
                fail(str(error))
        self._tell(outcome)
        if self._interrupted:
            raise typer.Exit(_INTERRUPTED)
        if self._ended or outcome.choice is None or not outcome.choice.meets:
            raise typer.Exit(FAILED)

    # ---------------------------------------------------------------- the sweep

    def _sweep(self, client: Client, signals: Signals) -> Outcome:
        request = self._request
        metadata = client.metadata(request.model, version=request.version, label=request.label)
        present = self._present = Present.of(ask(client, request.model), metadata.version)
        inputs, sample = prepare_requests(client, metadata, request, self._notes)
        pid = server_pid(self._address)
        space = prepare_space(present, self._wanted, self._plan, pid, self._notes)
        environment = Environment.read()
        processes = self._processes or sensible_processes(environment.cores)
        spec = Spec(
            address=self._address,
            model=request.model,
            requests="",
            version=request.version,
            label=request.label,
            timeout=_CALL_TIMEOUT,
            server_pid=pid,
        )
        search = Search(space, present.point, full_grid=self._plan.full_grid)
        with Crew(spec, inputs, processes) as crew, Progress(self._plan) as progress:
            site = LiveSite(client, self._connect, present, crew, self._timeout)
            session = Session(site, search, present.point, self._plan, progress, time.monotonic)
            progress.best = lambda: session.best

            def outcome() -> Outcome:
                return self._outcome(session, site, metadata, space, environment, sample, processes, pid)

            with self._restored(site, signals, outcome):
                session.run()
        if session.cut:
            left = len(space) - search.told if self._plan.full_grid else None
            told = f"{left} points were left out" if left else "the search had not come to its end"
            self._notes.append(f"the budget of {duration(self._plan.budget)} is used up; {told}")
        return outcome()

    @contextmanager
    def _restored(self, site: LiveSite, signals: Signals, outcome: Callable[[], Outcome]) -> Generator[None]:
        """However the block ends, what was in force before is again; or, with --apply, the recommendation."""
        try:
            yield
        except KeyboardInterrupt:
            self._interrupted, self._ended = True, "interrupted"
        except (RpcError, ChildError, Interfered, OSError) as error:
            self._ended = str(error)
        except BaseException as error:
            self._ended = repr(error)
            raise
        finally:
            signals.held = True
            self._put_back(site, signals, outcome)

    def _put_back(self, site: LiveSite, signals: Signals, outcome: Callable[[], Outcome]) -> None:
        wanted, what = site.present.live, "the settings before"
        if self._apply and not self._ended:
            found = outcome()
            if found.choice is not None and found.choice.meets:
                wanted, what = (
                    site.present.live_at(found.choice.point),
                    f"{found.choice.point}, until the server stops",
                )
            else:
                what += " (--apply: nothing meets the objective)"
        try:
            wait = site.finish(wanted)
        except RpcError as error:
            self._in_force = (
                f"not known ({error.message}); if the server has stopped, live settings are gone, "
                f"else put them back with `{command(self._request.model, site.present.live)}`"
            )
            self._ended = self._ended or error.message
            return
        # They are set; waiting may be left with Ctrl-C.
        signals.held = False
        try:
            problem = wait(self._timeout)
        except (KeyboardInterrupt, RpcError) as error:
            problem = str(error) or "not waited for"
        signals.held = True
        self._in_force = f"{what} ({problem})" if problem else what

    def _connect(self) -> Client:
        return Client(self._address, timeout=_COMMAND_TIMEOUT)

    # ---------------------------------------------------------------- after it

    def _outcome(
        self,
        session: Session,
        site: LiveSite,
        metadata: ModelMetadata,
        space: Space,
        environment: Environment,
        sample: str,
        processes: int,
        pid: int | None,
    ) -> Outcome:
        present = site.present
        found = lines(session.measured, session.baselines, present.point, self._plan.objective)
        spread = noise(session.baselines)
        return Outcome(
            server=self._address,
            model=metadata.name,
            version=metadata.version,
            platform=metadata.platform,
            environment=environment,
            same_machine=pid is not None,
            load_processes=processes,
            sample=sample,
            plan=self._plan,
            space=space,
            present=present.point,
            before={
                setting.key: present.version.values.get(setting.key) for setting in present.found.settings
            },
            lines=found,
            baselines=session.baselines,
            noise=spread,
            choice=choose(found, spread),
            others=site.others,
            seconds=session.elapsed,
            ended=self._ended,
            notes=[*self._notes, *_warnings(session, site, spread, self._plan)],
            in_force=self._in_force,
        )

    def _tell(self, outcome: Outcome) -> None:
        if self._json:
            print_json(outcome)
        else:
            print_outcome(outcome)
        files = Files(outcome, self._present.found, quiet=self._json)
        if self._out is not None and outcome.lines:
            files.save(self._out)
        if self._write is not None and not self._ended:
            files.merge_into(self._write)


def _warnings(session: Session, site: LiveSite, spread: float, plan: Plan) -> list[str]:
    """What makes the figures worth less."""
    told: list[str] = []
    ours = sum(rung.measured.requests for one in session.measured for rung in one.rungs)
    for count, where in zip(site.others, ("this model", "other models of the server"), strict=True):
        if count > _OTHERS * ours:
            rate = count / site.others_seconds
            told.append(
                f"WARNING: others sent {count} requests ({rate:,.0f}/s) to {where} while this measured"
            )
    if spread > _NOISE:
        told.append(
            f"WARNING: the repeated baseline varied by +-{spread:.0%}: repeat it on a quieter machine"
        )
    best = session.best.best(plan.objective) if session.best else None
    if best is not None and best.measured.requests < _FEW:
        told.append(
            f"WARNING: {best.measured.requests} requests in a measurement are few for a p99: more --seconds"
        )
    return told
