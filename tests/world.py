"""The manager without threads: a controller for tests that call every event, and run its work, themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_engine import FakeEngine
from tensorwire.manager.config import ModelConfig, RouteConfig
from tensorwire.manager.controller import Controller, Surroundings
from tensorwire.manager.handle import ServableHandle
from tensorwire.manager.intent import NO_INTENT, select_versions
from tensorwire.manager.settings import ManagerConfig
from tensorwire.manager.snapshot import Snapshot
from tensorwire.manager.source import Candidate, ModelScan, Scan
from tensorwire.manager.tuning import flat
from tensorwire.rpc.types import VersionStatus

ROOT = Path("/models")
DEFAULTS = flat(ModelConfig())


class World:
    """A controller, a repository that exists in name only, and the work that waits for a thread."""

    def __init__(self, **settings: Any) -> None:
        self.engine = FakeEngine()
        self.now = 0.0
        self.jobs: list[Callable[[], None]] = []
        self.work: list[tuple[str, Callable[[], None]]] = []
        self.snapshots: list[Snapshot] = []
        self.retired: list[ServableHandle] = []
        self.found: dict[str, dict[int, str]] = {}
        self.configs: dict[str, ModelConfig] = {}
        self.held: dict[str, dict[int, str]] = {}
        self.settling = False
        self.problems: dict[str, str] = {}
        self.controller = Controller(
            ManagerConfig(repository=ROOT, **settings),
            Surroundings(
                clock=lambda: self.now,
                spawn=lambda name, work: self.work.append((name, work)),
                post=self.jobs.append,
                poll_soon=lambda: None,
                published=self.snapshots.append,
                retired=self._retire,
            ),
            finder=self.engine.finder,
        )

    def _retire(self, handle: ServableHandle) -> None:
        assert handle.closing
        assert all(
            handle not in serving.versions.values() for serving in self.controller.snapshot.models.values()
        )
        self.retired.append(handle)

    def put(self, model: str, *versions: int, content: str = "a") -> None:
        self.found.setdefault(model, {}).update(dict.fromkeys(versions, content))

    def scan(self) -> Scan:
        models: dict[str, ModelScan] = {}
        for name, contents in self.found.items():
            config = self.configs.get(name, ModelConfig())
            held = self.held.get(name, {})
            intent = self.controller.intents.get(name, NO_INTENT)
            chosen = select_versions(contents, config, intent, lambda version, held=held: version not in held)
            aspired = {n: Candidate(n, ROOT / name / str(n), contents[n]) for n in sorted(chosen)}
            models[name] = ModelScan(
                name=name,
                config=config,
                aspired=aspired,
                held=held,
                settling=self.settling,
                found=tuple(sorted(contents)),
                problem=self.problems.get(name, ""),
                written={key: value for key, value in flat(config).items() if value != DEFAULTS[key]},
            )
        return Scan(models)

    def look(self) -> None:
        self.controller.take_scan(self.controller.revision, self.scan())
        self.advance()

    def advance(self) -> None:
        self.controller.advance()
        while self.jobs:
            self.jobs.pop(0)()
            self.controller.advance()

    def run(self, only: str = "") -> None:
        """Let threads finish, and what follows from that; ``only`` those with this in their name."""
        while chosen := [item for item in self.work if only in item[0]]:
            for item in chosen:
                self.work.remove(item)
                item[1]()
                self.advance()

    def settle(self) -> None:
        """Look and work until nothing changes any more."""
        for _ in range(5):
            self.look()
            self.run()

    def resolve(self, version: int | None = None, label: str | None = None, draw: float = 0.0) -> int:
        return self.controller.snapshot.resolve("m", version, label, None, draw).version

    def status(self, version: int, model: str = "m") -> VersionStatus:
        (line,) = [s for s in self.controller.statuses if (s.model, s.version) == (model, version)]
        return line

    def states(self, model: str = "m") -> dict[int, str]:
        return {s.version: s.state for s in self.controller.statuses if s.model == model}

    def route(self, **targets: float) -> RouteConfig:
        return RouteConfig(targets=targets)
