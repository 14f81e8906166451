"""Controller: what the manager does after each event. One thread calls it; it starts none itself.

Threads are the manager's business: work for a load or unload thread goes out through ``spawn``, and what
they bring back comes in through ``post``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec

from ..rpc.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from ..rpc.types import VersionStatus
from .budget import MemoryBudget
from .config import ModelConfig, RouteConfig, check_label
from .fleet import Fleet
from .handle import ServableHandle
from .harness import LoaderHarness, Outcome, RetryConfig
from .in_force import ModelSettings, model_settings
from .intent import NO_INTENT, Intent, declared_labels, is_version, not_overridden, with_settings
from .loader import EngineFinder, find_engine
from .memory import return_memory
from .publish import build_snapshot, build_status
from .settings import ManagerConfig
from .snapshot import Snapshot
from .source import ModelScan, Scan
from .states import State
from .tuning import Values, changed, flat, lay_over

_log = logging.getLogger("tensorwire.manager")

Job = Callable[[], None]

#: States in which references run out and the memory is then given back.
_DRAINED = (State.UNLOADING, State.BROKEN)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the controller needs from whoever runs it.

    Attributes:
        clock: monotonic seconds.
        spawn: runs work on another thread, given the thread's name.
        post: runs a job on the control thread, soon; callable from any thread.
        poll_soon: has the source look at the repository again, with the newest intents.
        published: a new snapshot is in force.
        retired: a version that served is in no snapshot any more and takes no new references.
    """

    clock: Callable[[], float]
    spawn: Callable[[str, Job], None]
    post: Callable[[Job], None]
    poll_soon: Job
    published: Callable[[Snapshot], None]
    retired: Callable[[ServableHandle], None]


class Controller:
    """The manager without its threads.

    Attributes:
        snapshot: what serves; replaced as a whole.
        statuses: the status table that belongs to it.
        intents: run-time wishes; replaced as a whole, so that other threads may read it.
        revision: grows whenever a new look at the repository is called for.
        ready: every wanted version serves or has failed for good.
    """

    def __init__(
        self, config: ManagerConfig, surroundings: Surroundings, *, finder: EngineFinder = find_engine
    ) -> None:
        self.config = config
        self.budget = MemoryBudget(config.ram_budget)
        self.snapshot = Snapshot()
        self.statuses: tuple[VersionStatus, ...] = ()
        self.intents: Mapping[str, Intent] = {}
        self.revision = 0
        self.ready = False
        self.closing = False
        self._around = surroundings
        self._fleet = Fleet(
            budget=self.budget, retry=_retry_config(config), clock=surroundings.clock, finder=finder
        )
        self._scan = Scan()
        self._seen_revision = -1
        self._changed = False
        self._published: set[int] = set()

    @property
    def finished(self) -> bool:
        """Closing, and nothing is left in memory."""
        return self.closing and not any(True for _ in self._fleet.harnesses())

    def leftovers(self) -> list[str]:
        """Versions that are still in memory, for the log."""
        return [f"{harness.model}:{harness.version}" for harness in self._fleet.harnesses()]

    def settings(self, model: str) -> ModelSettings:
        """See :meth:`Manager.settings`; any thread may ask."""
        file, serving = self._scan.models.get(model), self.snapshot.models.get(model)
        if file is None:
            raise self._unknown(model, self._scan.models)
        versions = dict[int, ServableHandle]() if serving is None else serving.versions
        status = [line for line in self.statuses if line.model == model]
        return model_settings(file, self.intents.get(model, NO_INTENT), versions, status)

    def next_time(self) -> float | None:
        """Clock time at which :meth:`advance` has something to do without an event."""
        return self._fleet.next_time()

    # --- events -------------------------------------------------------------------------------------------

    def take_scan(self, revision: int, scan: Scan) -> None:
        """A look at the repository is done; ``revision`` is the one it was begun with."""
        if self.closing:
            return
        first = self._seen_revision < 0
        self._seen_revision = revision
        if scan == self._scan and not first and not self._changed:
            self._follow()
            return
        self._drop_overridden(scan)
        self._scan = scan
        self._follow()
        self._changed = True

    def advance(self) -> None:
        """Carry out what has become possible: policies, publication, unloads, loads."""
        before = self._states()
        self._fleet.apply_policies(self.intents)
        self._fleet.sweep()
        self._start_loads()
        if self._changed or before != self._states():
            self._publish()
            self._drain_retired()
        up_to_date = self._seen_revision == self.revision
        self.ready = up_to_date and not self.closing and not self._changed and self._fleet.settled()

    def begin_close(self) -> None:
        """Want nothing any more."""
        self.closing = True
        self._fleet.follow({}, {})
        self._changed = True

    def fail(self, handle: ServableHandle, reason: str) -> None:
        """What serves has turned out not to be able to; nothing, if it has left meanwhile."""
        for harness in self._fleet.harnesses():
            if harness.handle is handle and harness.state in (State.AVAILABLE, *_DRAINED):
                harness.broken(reason)
                self._changed = True

    # --- commands -----------------------------------------------------------------------------------------

    def load(self, model: str, version: int | None, *, on_disk: bool) -> None:
        """Want a version (or, with ``None``, what model.toml says), whatever was unloaded before.

        Raises:
            NotFoundError: no such model or version.
        """
        found = self._known(model, version, on_disk=on_disk)
        intent = self.intents.get(model, NO_INTENT)
        again = {version} if version is not None else found
        reloads = dict(intent.reloads)
        for number in again & self._worth_a_reload(model):
            reloads[number] = reloads.get(number, 0) + 1
        loaded, unloaded = intent.loaded, frozenset[int]()
        if version is not None:
            loaded, unloaded = loaded | {version}, intent.unloaded - {version}
        self._intend(
            model,
            msgspec.structs.replace(
                intent, disabled=False, loaded=loaded, unloaded=unloaded, reloads=reloads
            ),
        )

    def unload(self, model: str, version: int | None) -> None:
        """Do not want a version (``None``: the whole model) until it is loaded by hand.

        Raises:
            NotFoundError: no such model or version.
        """
        self._known(model, version)
        intent = self.intents.get(model, NO_INTENT)
        if version is None:
            changed = msgspec.structs.replace(intent, disabled=True, loaded=frozenset())
        else:
            changed = msgspec.structs.replace(
                intent, loaded=intent.loaded - {version}, unloaded=intent.unloaded | {version}
            )
        self._intend(model, changed)

    def set_label(self, model: str, label: str, version: int | None) -> None:
        """Point a label at a version; it moves when that version serves. ``None`` removes the label.

        Raises:
            NotFoundError: no such model, or no such label to remove.
            InvalidArgumentError: not a label, or not a version number.
        """
        self._known(model, None)
        intent, config = self.intents.get(model, NO_INTENT), self._config(model)
        if version is None:
            if label not in declared_labels(config, intent):
                raise NotFoundError(f"model {model!r} has no label {label!r} to remove")
        else:
            check_label("label", label)
            if version < 0:
                raise InvalidArgumentError(f"label {label!r}: found version {version}; expected 0 or more")
        labels = {**intent.labels, label: version}
        if version is None and label not in config.labels:
            del labels[label]
        self._intend(model, msgspec.structs.replace(intent, labels=labels))

    def set_route(self, model: str, route: RouteConfig | None) -> None:
        """Split the default traffic; ``None`` ends the split.

        Raises:
            NotFoundError: no such model.
            InvalidArgumentError: the route names a label that is not declared.
        """
        self._known(model, None)
        intent = self.intents.get(model, NO_INTENT)
        if route is not None:
            labels = declared_labels(self._config(model), intent)
            names = [*route.targets, *([route.shadow] if route.shadow else [])]
            unknown = [name for name in names if not is_version(name) and name not in labels]
            if unknown:
                raise InvalidArgumentError(
                    f"route of model {model!r}: label {unknown[0]!r} is not declared; "
                    f"labels: {', '.join(sorted(labels)) or 'none'}"
                )
        self._intend(model, msgspec.structs.replace(intent, route=route, route_set=True))

    def tune(self, model: str, values: Values, reset: Iterable[str]) -> None:
        """Lay values over model.toml and take others (keys or sections) away: all of it, or nothing.

        Raises:
            NotFoundError: no such model.
            InvalidArgumentError: a key or value is not allowed, or a version that serves cannot take it.
        """
        self._known(model, None)
        intent, file = self.intents.get(model, NO_INTENT), self._scan.models.get(model, ModelScan(model))
        live = changed(intent.settings, values, reset)
        config = lay_over(file.config, live, source=f"model {model!r}")
        self._fleet.check(model, config)
        live = {key: value for key, value in flat(config).items() if key in live}
        self.intents = {**self.intents, model: msgspec.structs.replace(intent, settings=live)}
        self._changed = True
        self._follow()
        # Whoever looks when this has returned sees what has become of it.
        self.advance()

    def reconfigure(self, config: ManagerConfig) -> None:
        """Go on with other settings.

        Raises:
            FailedPreconditionError: the repository differs; that needs a restart.
        """
        if config.repository != self.config.repository:
            raise FailedPreconditionError(
                f"repository: found {config.repository}; expected {self.config.repository}, "
                "which cannot change on a live server: restart it"
            )
        self.config = config
        self._fleet.retry = _retry_config(config)
        if config.ram_budget != self.budget.total:
            self.budget.resize(config.ram_budget)
            self._fleet.replace_refused()
        self._changed = True
        self.look_again()

    def look_again(self) -> None:
        """Call for a new look at the repository."""
        self.revision += 1
        self.ready = False
        self._around.poll_soon()

    # --- inside -------------------------------------------------------------------------------------------

    def _known(self, model: str, version: int | None, *, on_disk: bool = False) -> set[int]:
        group = self._fleet.groups.get(model)
        if group is None and not on_disk:
            raise self._unknown(model, self._fleet.groups)
        found = set[int]()
        if group is not None:
            found = {*group.scan.found, *(member.harness.version for member in group.members)}
        if version is not None and version not in found and not on_disk:
            listed = ", ".join(str(number) for number in sorted(found)) or "none"
            raise NotFoundError(
                f"model {model!r} has no version {version}; versions in the repository: {listed}"
            )
        return found

    def _unknown(self, model: str, known: Iterable[str]) -> NotFoundError:
        names = ", ".join(sorted(known)) or "none"
        return NotFoundError(f"no model {model!r} in {self.config.repository}; models here: {names}")

    def _config(self, model: str) -> ModelConfig:
        group = self._fleet.groups.get(model)
        return ModelConfig() if group is None else group.scan.config

    def _worth_a_reload(self, model: str) -> set[int]:
        """Versions that failed, wait for their next attempt, or whose files differ from what serves."""
        group = self._fleet.groups.get(model)
        if group is None:
            return set()
        idle = (State.FAILED, State.WAITING)
        return {m.harness.version for m in group.members if m.harness.state in idle or m.note}

    def _intend(self, model: str, intent: Intent) -> None:
        self.intents = {**self.intents, model: intent}
        self._changed = True
        self.look_again()

    def _follow(self) -> None:
        """Have the fleet follow the newest look, with the live settings laid over it."""
        if not self.closing:
            self._fleet.follow(with_settings(self._scan.models, self.intents), self.intents)

    def _drop_overridden(self, scan: Scan) -> None:
        """End the run-time wishes that model.toml goes against since it changed."""
        intents = dict(self.intents)
        for name in scan.models.keys() & intents.keys():
            model = scan.models[name]
            intents[name] = left = not_overridden(intents[name], self._scan.models.get(name, model), model)
            gone = self.intents[name].settings.keys() - left.settings.keys()
            if gone:
                _log.warning("%s: model.toml changed, and ends the live %s", name, ", ".join(sorted(gone)))
        self.intents = intents

    def _states(self) -> list[tuple[int, State, str]]:
        return [(harness.key, harness.state, harness.reason) for harness in self._fleet.harnesses()]

    def _publish(self) -> None:
        self._changed = False
        snapshot = build_snapshot(self._fleet, self.intents, self.snapshot.serial + 1)
        self.snapshot = snapshot
        self.statuses = tuple(build_status(self._fleet, snapshot))
        self._published |= {h.key for h in self._fleet.harnesses() if h.state is State.AVAILABLE}
        self._around.published(snapshot)
        self._remember_bound()

    def _remember_bound(self) -> None:
        """Keep the versions that labels point at; the source is told when that changes."""
        if self.closing:
            return
        for name, group in self._fleet.groups.items():
            intent, bound = self.intents.get(name, NO_INTENT), frozenset(group.bound.values())
            if intent.bound != bound:
                self.intents = {**self.intents, name: msgspec.structs.replace(intent, bound=bound)}
                self.look_again()

    def _drain_retired(self) -> None:
        """After the publication that left them out: let the references of retired versions run out."""
        for harness in list(self._fleet.harnesses()):
            handle = harness.handle
            if harness.state not in _DRAINED or handle is None or handle.closing:
                continue
            handle.begin_close(partial(self._around.post, partial(self._drained, harness)))
            if harness.key in self._published:
                self._published.discard(harness.key)
                self._around.retired(handle)

    def _drained(self, harness: LoaderHarness) -> None:
        self._around.spawn(
            f"tensorwire-unload-{harness.model}-{harness.version}", partial(self._unload, harness)
        )

    def _unload(self, harness: LoaderHarness) -> None:
        """On an unload thread."""
        harness.unload()
        return_memory()
        self._around.post(partial(self._released, harness))

    def _released(self, harness: LoaderHarness) -> None:
        harness.released()
        self._changed = True

    def _start_loads(self) -> None:
        while (harness := self._fleet.next_to_start(self.config.load_threads)) is not None:
            harness.start()
            name = f"tensorwire-load-{harness.model}-{harness.version}"
            self._around.spawn(name, partial(self._load, harness))

    def _load(self, harness: LoaderHarness) -> None:
        """On a load thread."""
        outcome = harness.work(lambda: self._around.post(partial(self._warming, harness)))
        if outcome.error is not None:
            return_memory()
        self._around.post(partial(self._finished, harness, outcome))

    def _warming(self, harness: LoaderHarness) -> None:
        harness.loaded()
        self._changed = True

    def _finished(self, harness: LoaderHarness, outcome: Outcome) -> None:
        harness.finish(outcome)
        if harness.state is State.AVAILABLE:
            self._fleet.served(harness)
        self._changed = True


def _retry_config(config: ManagerConfig) -> RetryConfig:
    return RetryConfig(config.load_retries, config.retry_backoff, config.retry_backoff_max)
