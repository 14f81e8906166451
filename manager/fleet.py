"""Fleet: the harnesses of all models, and how they follow what the source aspires to.

No threads and no I/O: the manager calls it from its control thread and carries out what it says.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping

import msgspec

from ..rpc.errors import InvalidArgumentError, RpcError
from .budget import MemoryBudget
from .config import ModelConfig
from .harness import LoaderHarness, RetryConfig
from .intent import NO_INTENT, Intent
from .loader import EngineFinder, Loader, find_engine, needs_reload, refusal
from .policy import ActionKind, VersionView, policy_for
from .source import Candidate, ModelScan
from .states import LEAVING, PENDING, State

_log = logging.getLogger("tensorwire.manager")


class Member(msgspec.Struct, eq=False):
    """One harness with what it was made from."""

    harness: LoaderHarness
    candidate: Candidate
    config: ModelConfig
    reloads: int
    aspired: bool = True
    #: About its files. Told apart from the engine's own reason, which survives it.
    note: str = ""
    #: Why it goes on with other settings than it should.
    refused: str = ""


class ModelGroup(msgspec.Struct, eq=False):
    """One model: the newest scan of it and its members, oldest first."""

    scan: ModelScan
    members: list[Member] = []
    #: label -> the version that it pointed at last.
    bound: dict[str, int] = {}

    def current(self, version: int) -> Member | None:
        """The newest aspired member of a version."""
        for member in reversed(self.members):
            if member.harness.version == version and member.aspired:
                return member
        return None


class Fleet:
    """All members of all models."""

    def __init__(
        self,
        *,
        budget: MemoryBudget,
        retry: RetryConfig,
        clock: Callable[[], float],
        finder: EngineFinder = find_engine,
    ) -> None:
        self.groups: dict[str, ModelGroup] = {}
        self.retry = retry
        self._budget = budget
        self._clock = clock
        self._finder = finder
        self._keys = itertools.count(1)
        self._turns = itertools.count(1)

    def harnesses(self) -> Iterator[LoaderHarness]:
        """Every harness, whatever its state."""
        for group in self.groups.values():
            for member in group.members:
                yield member.harness

    def find(self, key: int) -> LoaderHarness | None:
        """The harness with this key."""
        return next((harness for harness in self.harnesses() if harness.key == key), None)

    def follow(self, scans: Mapping[str, ModelScan], intents: Mapping[str, Intent]) -> None:
        """Take in a complete look at the repository."""
        for name, scan in scans.items():
            group = self.groups.get(name)
            if group is None:
                self.groups[name] = group = ModelGroup(scan)
            group.scan = scan
            self._follow_model(group, intents.get(name, NO_INTENT))
        for name, group in self.groups.items():
            if name not in scans:
                group.scan = ModelScan(name, group.scan.config)
                self._follow_model(group, NO_INTENT)

    def _follow_model(self, group: ModelGroup, intent: Intent) -> None:
        aspired = group.scan.aspired
        for member in group.members:
            if member.harness.version not in aspired:
                member.aspired = False
        for version, candidate in aspired.items():
            current = group.current(version)
            reloads = intent.reloads.get(version, 0)
            if current is None or self._replaced(current, candidate, group.scan.config, reloads):
                if current is not None:
                    current.aspired = False
                current = self._taken_back(group, candidate, reloads)
            if current is None:
                group.members.append(self._member(group, candidate, reloads))
            else:
                self._update(current, candidate, group.scan.config)

    def _taken_back(self, group: ModelGroup, candidate: Candidate, reloads: int) -> Member | None:
        """What serves still, because its replacement did not come, and is as it should be after all.

        A load would take time, and memory that may not be there, to come to the same.
        """
        for member in group.members:
            serves = member.harness.version == candidate.version and member.harness.state is State.AVAILABLE
            if serves and not self._replaced(member, candidate, group.scan.config, reloads):
                member.aspired = True
                return member
        return None

    def _replaced(self, member: Member, candidate: Candidate, config: ModelConfig, reloads: int) -> bool:
        """Whether the version needs a new harness for the new files, configuration or wish."""
        if member.reloads != reloads or member.candidate.path != candidate.path:
            return True
        failed = member.harness.state is State.FAILED
        handle = member.harness.handle
        if needs_reload(member.config, config, handle) or (failed and member.config != config):
            return True
        serving = member.harness.state is State.AVAILABLE
        return member.candidate.content != candidate.content and not serving

    def _update(self, member: Member, candidate: Candidate, config: ModelConfig) -> None:
        """Changes that a version can follow without a load."""
        changed = member.candidate.content != candidate.content
        member.note = "its files changed after it was loaded; publish a new version, or load it again by hand"
        if not changed:
            member.note = ""
        if member.config == config:
            return
        member.config = config
        handle = member.harness.handle
        if handle is None:
            # A load under way or waiting begins with the values of its start; they follow below.
            member.harness.loader.config = config
            return
        self._go_on_with(member, config)

    def _go_on_with(self, member: Member, config: ModelConfig) -> None:
        harness = member.harness
        if harness.handle is None or harness.state is not State.AVAILABLE:
            return
        try:
            member.refused = ""
            if harness.go_on_with(config):
                _log.info("%s:%d: goes on with changed settings", harness.model, harness.version)
        except RpcError as error:
            member.refused = f"its settings changed, but {error.message}"
            _log.warning("%s:%d: %s", harness.model, harness.version, member.refused)

    def _member(self, group: ModelGroup, candidate: Candidate, reloads: int) -> Member:
        config = group.scan.config
        loader = Loader(group.scan.name, candidate.version, candidate.path, config, finder=self._finder)
        harness = LoaderHarness(
            next(self._keys), loader, budget=self._budget, retry=self.retry, clock=self._clock
        )
        return Member(harness, candidate, config, reloads)

    def check(self, model: str, config: ModelConfig) -> None:
        """See that every version of a model that serves can take these settings.

        Raises:
            InvalidArgumentError: one cannot. (What it could not take before is not held against these.)
        """
        for member in self.groups[model].members:
            handle = member.harness.handle
            if handle is None or member.harness.state is not State.AVAILABLE:
                continue
            reason = refusal(handle, member.config, config)
            if reason and reason != refusal(handle, member.config, member.config):
                raise InvalidArgumentError(f"{reason} (version {handle.version})")

    def served(self, harness: LoaderHarness) -> None:
        """A version became AVAILABLE: give it the settings that changed while it loaded."""
        for member in self.groups[harness.model].members:
            if member.harness is harness:
                self._go_on_with(member, member.config)

    def apply_policies(self, intents: Mapping[str, Intent]) -> None:
        """Ask every model's policy until it has nothing more to do at present."""
        for name, group in self.groups.items():
            intent = intents.get(name, NO_INTENT)
            policy = policy_for(group.scan.config.versions.transition)
            by_key = {member.harness.key: member.harness for member in group.members}
            while True:
                views = [_view(member, intent) for member in group.members]
                action = policy.next_action(views)
                if action is None:
                    break
                if action.kind is ActionKind.LOAD:
                    by_key[action.key].approve(next(self._turns))
                else:
                    by_key[action.key].retire()

    def sweep(self) -> None:
        """Forget what is unloaded; forget models of which nothing is left."""
        for name, group in list(self.groups.items()):
            group.members = [m for m in group.members if m.harness.state is not State.UNLOADED]
            scan = group.scan
            if not (group.members or scan.found or scan.held or scan.problem):
                del self.groups[name]

    def replace_refused(self) -> None:
        """The budget changed: versions that could never fit get another try."""
        for group in self.groups.values():
            for index, member in enumerate(group.members):
                if member.aspired and member.harness.refused_for_size:
                    member.harness.retire()
                    group.members[index] = self._member(group, member.candidate, member.reloads)

    def next_to_start(self, slots: int) -> LoaderHarness | None:
        """The version that gets the next load thread.

        Models that load least come first, so that one with many versions does not keep the others waiting.
        """
        now = self._clock()
        running: dict[str, int] = {}
        waiting: list[LoaderHarness] = []
        for harness in self.harnesses():
            if harness.busy:
                running[harness.model] = running.get(harness.model, 0) + 1
            elif harness.startable(now):
                waiting.append(harness)
        if sum(running.values()) >= slots:
            return None
        return min(waiting, key=lambda item: (running.get(item.model, 0), item.turn), default=None)

    def next_time(self) -> float | None:
        """Clock time of the next retry, or ``None``."""
        times = [h.not_before for h in self.harnesses() if h.state is State.WAITING and not h.starved]
        return min(times, default=None)

    def settled(self) -> bool:
        """Whether nothing is on its way: what is aspired serves, failed, or waits for others' memory."""
        for group in self.groups.values():
            scan = group.scan
            if scan.settling and not scan.aspired:
                return False
            for member in group.members:
                harness = member.harness
                if member.aspired and harness.state in PENDING and not harness.starved:
                    return False
        leaving = any(harness.state in LEAVING for harness in self.harnesses())
        starved = any(harness.starved for harness in self.harnesses())
        return not (leaving and starved)


def _view(member: Member, intent: Intent) -> VersionView:
    harness = member.harness
    return VersionView(
        key=harness.key,
        version=harness.version,
        state=harness.state,
        aspired=member.aspired,
        forced=harness.version in intent.unloaded,
        starved=harness.starved,
    )
