"""The manager without threads: every event is one call, work runs when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from tensorwire.manager.config import (
    BatchingConfig,
    LimitsConfig,
    ModelConfig,
    RouteConfig,
    VersionsConfig,
    WorkersConfig,
)
from tensorwire.manager.settings import ManagerConfig
from tensorwire.rpc.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    RpcError,
    UnavailableError,
)
from world import ROOT, World


@pytest.fixture
def world() -> World:
    return World()


RESOURCE = ModelConfig(versions=VersionsConfig(transition="resource"))


def test_the_first_version(world: World) -> None:
    world.put("m", 1)
    world.look()
    assert world.states() == {1: "LOADING"}
    assert not world.controller.ready
    with pytest.raises(UnavailableError, match="1 is LOADING"):
        world.resolve()
    world.run()
    assert world.states() == {1: "AVAILABLE"}
    assert world.controller.ready
    assert world.resolve() == 1
    line = world.status(1)
    assert line.default
    assert line.ram_bytes == 100
    assert line.workers >= 1


def test_an_empty_repository_is_ready(world: World) -> None:
    world.look()
    assert world.controller.ready
    assert world.snapshots[-1].models == {}


def test_availability_loads_the_new_before_it_unloads_the_old(world: World) -> None:
    world.put("m", 1)
    world.settle()
    world.put("m", 2)
    world.look()
    assert world.states() == {1: "AVAILABLE", 2: "LOADING"}
    assert world.resolve() == 1
    world.run("load-m-2")
    assert world.resolve() == 2
    assert [h.version for h in world.retired] == [1]
    world.run()
    assert world.states() == {2: "AVAILABLE"}
    assert world.engine.alive() == [("m", 2)]


def test_resource_unloads_the_old_first(world: World) -> None:
    world.configs["m"] = RESOURCE
    world.put("m", 1)
    world.settle()
    world.put("m", 2)
    world.look()
    assert world.states() == {1: "UNLOADING", 2: "NEW"}
    with pytest.raises(UnavailableError):
        world.resolve()
    world.run("unload")
    assert world.states() == {2: "LOADING"}
    world.run()
    assert world.resolve() == 2


def test_unloading_waits_for_the_last_reference(world: World) -> None:
    world.put("m", 1)
    world.settle()
    handle = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    assert handle.acquire()
    world.put("m", 2)
    world.settle()
    assert world.states() == {1: "UNLOADING", 2: "AVAILABLE"}
    assert "waits for 1" in world.status(1).reason
    assert ("m", 1) in world.engine.alive()
    handle.release()
    world.advance()
    world.run()
    assert world.states() == {2: "AVAILABLE"}
    assert world.engine.alive() == [("m", 2)]


def test_a_failed_load_keeps_the_old_version(world: World) -> None:
    world.put("m", 1)
    world.settle()
    world.engine.failures["m", 2] = [InvalidArgumentError("not a model")]
    world.put("m", 2)
    world.settle()
    assert world.states() == {1: "AVAILABLE", 2: "FAILED"}
    assert "not a model" in world.status(2).reason
    assert world.controller.ready
    assert world.resolve() == 1
    with pytest.raises(NotFoundError, match="version 2 is FAILED: INVALID_ARGUMENT: not a model"):
        world.resolve(2)


def test_a_version_whose_workers_keep_dying_fails_and_the_others_go_on(world: World) -> None:
    world.put("m", 1)
    world.put("other", 1)
    world.settle()
    handle = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    assert handle.acquire()
    world.controller.fail(handle, "two workers died")
    world.advance()
    assert world.states() == {1: "BROKEN"}
    assert world.retired == [handle]
    assert world.work == []
    handle.release()
    world.advance()
    world.run()
    assert world.states() == {1: "FAILED"}
    assert world.status(1).reason == "two workers died"
    assert world.engine.alive() == [("other", 1)]
    assert world.controller.budget.used == 100
    assert world.controller.ready
    world.controller.load("m", None, on_disk=True)
    world.settle()
    assert world.states() == {1: "AVAILABLE"}


def test_a_version_that_left_meanwhile_cannot_be_given_up(world: World) -> None:
    world.put("m", 1)
    world.settle()
    handle = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    world.put("m", 2)
    world.settle()
    world.controller.fail(handle, "too late")
    world.settle()
    assert world.states() == {2: "AVAILABLE"}


def test_a_failed_version_starts_afresh_when_its_files_change(world: World) -> None:
    world.engine.failures["m", 1] = [InvalidArgumentError("half a model")]
    world.put("m", 1)
    world.settle()
    assert world.states() == {1: "FAILED"}
    assert world.engine.loads == [("m", 1)]
    world.put("m", 1, content="b")
    world.settle()
    assert world.states() == {1: "AVAILABLE"}


def test_a_failed_version_starts_afresh_when_its_configuration_changes(world: World) -> None:
    world.engine.options["m", 1] = {"concurrent": False}
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=2))
    world.put("m", 1)
    world.settle()
    assert "workers.count" in world.status(1).reason
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=1))
    world.settle()
    assert world.states() == {1: "AVAILABLE"}


def test_files_that_change_during_a_load_restart_it(world: World) -> None:
    world.put("m", 1)
    world.look()
    world.put("m", 1, content="b")
    world.look()
    world.run()
    assert world.states() == {1: "AVAILABLE"}
    assert world.engine.loads == [("m", 1)]


def test_files_of_a_serving_version_that_change_are_reported_and_loaded_on_request(world: World) -> None:
    world.put("m", 1)
    world.settle()
    world.put("m", 1, content="b")
    world.settle()
    assert world.engine.loads == [("m", 1)]
    assert "its files changed after it was loaded" in world.status(1).reason
    world.controller.load("m", 1, on_disk=True)
    world.look()
    assert world.resolve() == 1
    assert "its replacement is LOADING" in world.status(1).reason
    world.settle()
    assert world.engine.loads == [("m", 1)] * 2
    assert world.engine.alive() == [("m", 1)]
    assert world.status(1).reason == ""
    world.controller.load("m", 1, on_disk=True)
    world.settle()
    assert len(world.engine.loads) == 2


def test_a_failed_load_of_one_model_does_not_touch_another(world: World) -> None:
    world.engine.failures["bad", 1] = [UnavailableError("x")] * 9
    world.put("bad", 1)
    world.put("m", 1)
    world.settle()
    assert world.states("m") == {1: "AVAILABLE"}
    assert world.states("bad") == {1: "WAITING"}
    assert not world.controller.ready
    for _ in range(3):
        world.now += 60
        world.advance()
        world.run()
    assert world.states("bad") == {1: "FAILED"}
    assert world.controller.ready


def test_the_next_retry_sets_the_alarm(world: World) -> None:
    world.engine.failures["m", 1] = [UnavailableError("x")]
    world.put("m", 1)
    world.settle()
    assert world.controller.next_time() == 1.0
    world.now = 1.0
    world.advance()
    world.run()
    assert world.controller.next_time() is None
    assert world.resolve() == 1


def test_one_model_with_many_versions_leaves_threads_to_the_others() -> None:
    world = World(load_threads=2)
    world.configs["big"] = ModelConfig(versions=VersionsConfig(policy="all"))
    world.put("big", 1, 2, 3, 4)
    world.put("m", 1)
    world.look()
    assert sorted(name for name, _ in world.work) == ["tensorwire-load-big-4", "tensorwire-load-m-1"]


def test_a_version_removed_while_it_loads_never_serves(world: World) -> None:
    world.put("m", 1)
    world.look()
    del world.found["m"][1]
    world.look()
    assert world.states() == {1: "CANCELLING"}
    world.settle()
    assert world.states() == {}
    assert world.engine.alive() == []


def test_a_cancelled_load_that_succeeds_is_never_announced(world: World) -> None:
    world.put("m", 1)
    world.look()
    (_, work) = world.work.pop()
    work()
    del world.found["m"][1]
    world.controller.take_scan(world.controller.revision, world.scan())
    world.advance()
    world.run()
    assert world.retired == []
    assert world.engine.alive() == []


def test_a_model_that_is_gone_from_the_repository_goes(world: World) -> None:
    world.put("m", 1)
    world.settle()
    del world.found["m"]
    world.settle()
    with pytest.raises(NotFoundError, match="no model 'm'; models here: none"):
        world.resolve()
    assert world.engine.alive() == []


# --- labels and routes -------------------------------------------------------------------------------------


def test_a_label_keeps_its_version_and_moves_when_the_new_one_serves(world: World) -> None:
    world.configs["m"] = ModelConfig(labels={"stable": 1})
    world.put("m", 1)
    world.settle()
    world.put("m", 2)
    world.settle()
    assert world.states() == {1: "AVAILABLE", 2: "AVAILABLE"}
    assert world.resolve() == 2
    assert world.resolve(label="stable") == 1
    world.put("m", 3)
    world.configs["m"] = ModelConfig(labels={"stable": 3})
    world.look()
    assert world.resolve(label="stable") == 1
    world.settle()
    assert world.resolve(label="stable") == 3
    assert world.states() == {3: "AVAILABLE"}
    assert world.status(3).labels == ("stable",)


def test_a_label_may_be_declared_before_its_version_exists(world: World) -> None:
    world.put("m", 1)
    world.settle()
    world.controller.set_label("m", "canary", 2)
    world.settle()
    with pytest.raises(NotFoundError, match="label 'canary' points at version 2, which is not there"):
        world.resolve(label="canary")
    world.put("m", 2)
    world.look()
    with pytest.raises(UnavailableError, match="label 'canary' points at version 2, which is LOADING"):
        world.resolve(label="canary")
    world.settle()
    assert world.resolve(label="canary") == 2


def test_no_moment_without_a_label_when_it_moves_by_hand(world: World) -> None:
    world.configs["m"] = ModelConfig(
        labels={"stable": 1}, versions=VersionsConfig(policy="specific", specific=(2,))
    )
    world.put("m", 1, 2, 3)
    world.settle()
    seen = len(world.snapshots)
    world.controller.set_label("m", "stable", 3)
    world.settle()
    bound = [snapshot.models["m"].labels["stable"] for snapshot in world.snapshots[seen:]]
    assert bound == sorted(bound)
    assert set(bound) == {1, 3}
    assert world.states() == {2: "AVAILABLE", 3: "AVAILABLE"}


def test_labels_are_removed_and_come_back_with_the_file(world: World) -> None:
    world.configs["m"] = ModelConfig(labels={"stable": 1})
    world.put("m", 1)
    world.settle()
    world.controller.set_label("m", "stable", None)
    world.controller.set_label("m", "mine", 1)
    world.settle()
    assert world.status(1).labels == ("mine",)
    with pytest.raises(NotFoundError, match="no label 'stable' to remove"):
        world.controller.set_label("m", "stable", None)
    world.controller.set_label("m", "mine", None)
    world.put("m", 2)
    world.configs["m"] = ModelConfig(labels={"stable": 2})
    world.settle()
    assert world.resolve(label="stable") == 2
    assert world.states() == {2: "AVAILABLE"}


@pytest.mark.parametrize(("label", "version"), [("7", 1), ("", 1), ("a b", 1), ("ok", -1)])
def test_bad_labels(world: World, label: str, version: int) -> None:
    world.put("m", 1)
    world.settle()
    with pytest.raises(InvalidArgumentError):
        world.controller.set_label("m", label, version)


def test_the_label_default_pins_the_default(world: World) -> None:
    world.configs["m"] = ModelConfig(labels={"default": 1})
    world.put("m", 1, 2)
    world.settle()
    assert world.resolve() == 1
    assert world.status(1).default
    assert world.resolve(2) == 2


def test_a_route_from_the_file_and_by_hand(world: World) -> None:
    world.configs["m"] = ModelConfig(
        labels={"stable": 1, "canary": 2},
        route=RouteConfig(targets={"stable": 0.9, "canary": 0.1}, shadow="3", shadow_fraction=0.5),
    )
    world.put("m", 1, 2, 3, 4)
    world.settle()
    assert [world.resolve(draw=draw) for draw in (0.0, 0.89, 0.91)] == [1, 1, 2]
    serving = world.controller.snapshot.models["m"]
    assert serving.default is None
    assert serving.route is not None
    assert serving.route.shadow is serving.versions[3]
    assert serving.route.shadow_fraction == 0.5
    world.controller.set_route("m", RouteConfig(targets={"canary": 1.0}))
    world.settle()
    assert world.resolve(draw=0.0) == 2
    world.controller.set_route("m", None)
    world.settle()
    assert world.resolve() == 4
    world.configs["m"] = ModelConfig(labels={"stable": 1}, route=RouteConfig(targets={"stable": 1.0}))
    world.settle()
    assert world.resolve() == 1


def test_a_route_to_an_unknown_label_is_refused(world: World) -> None:
    world.put("m", 1)
    world.settle()
    with pytest.raises(InvalidArgumentError, match="label 'canary' is not declared; labels: none"):
        world.controller.set_route("m", RouteConfig(targets={"canary": 1.0}))


# --- memory ------------------------------------------------------------------------------------------------


def test_a_version_that_does_not_fit_waits_and_loads_when_there_is_room() -> None:
    world = World(ram_budget=150)
    world.put("m", 1)
    world.settle()
    world.put("n", 1)
    world.settle()
    assert world.states("n") == {1: "WAITING"}
    assert "needs 100 B, 50 B of 150 B are free" in world.status(1, "n").reason
    assert world.controller.ready
    world.controller.unload("m", None)
    world.settle()
    assert world.states("n") == {1: "AVAILABLE"}
    assert world.controller.budget.used == 100


def test_availability_does_not_take_the_old_version_to_make_room() -> None:
    world = World(ram_budget=150)
    world.put("m", 1)
    world.settle()
    world.put("m", 2)
    world.settle()
    assert world.states() == {1: "AVAILABLE", 2: "WAITING"}
    assert 'transition = "resource"' in world.status(2).reason
    world.controller.unload("m", 1)
    world.settle()
    assert world.states() == {2: "AVAILABLE"}


def test_resource_makes_room_first() -> None:
    world = World(ram_budget=150)
    world.configs["m"] = RESOURCE
    world.put("m", 1)
    world.settle()
    world.put("m", 2)
    world.settle()
    assert world.states() == {2: "AVAILABLE"}


def test_what_can_never_fit_is_refused_until_the_budget_grows() -> None:
    world = World(ram_budget=50)
    world.put("m", 1)
    world.settle()
    assert world.states() == {1: "FAILED"}
    assert "the budget is 50 B in all" in world.status(1).reason
    world.controller.reconfigure(ManagerConfig(repository=ROOT, ram_budget=200, load_retries=7))
    world.settle()
    assert world.states() == {1: "AVAILABLE"}


def test_a_larger_budget_lets_waiting_versions_load() -> None:
    world = World(ram_budget=150)
    world.put("m", 1)
    world.put("n", 1)
    world.settle()
    assert "WAITING" in (*world.states("m").values(), *world.states("n").values())
    world.controller.reconfigure(ManagerConfig(repository=ROOT))
    world.settle()
    assert (world.states("m"), world.states("n")) == ({1: "AVAILABLE"}, {1: "AVAILABLE"})


# --- operators ---------------------------------------------------------------------------------------------


def test_unload_and_load_of_a_model(world: World) -> None:
    world.put("m", 1)
    world.settle()
    world.controller.unload("m", None)
    world.settle()
    with pytest.raises(NotFoundError, match="1 is UNLOADED: unloaded by an operator"):
        world.resolve()
    world.controller.load("m", None, on_disk=True)
    world.settle()
    assert world.resolve() == 1


def test_unload_of_a_version_rolls_back_without_a_gap(world: World) -> None:
    world.put("m", 1, 2)
    world.settle()
    seen = len(world.snapshots)
    world.controller.unload("m", 2)
    world.settle()
    assert world.states() == {1: "AVAILABLE"}
    assert all(snapshot.models["m"].versions for snapshot in world.snapshots[seen:])
    world.controller.load("m", 2, on_disk=True)
    world.settle()
    assert world.states() == {2: "AVAILABLE"}


def test_unload_of_the_only_version(world: World) -> None:
    world.put("m", 1)
    world.settle()
    world.controller.unload("m", 1)
    world.settle()
    assert world.states() == {}


def test_unload_does_not_wait_for_a_replacement_that_failed(world: World) -> None:
    world.engine.failures["m", 1] = [InvalidArgumentError("broken")]
    world.put("m", 1, 2)
    world.settle()
    world.controller.unload("m", 2)
    world.settle()
    assert world.states() == {1: "FAILED"}


def test_load_of_a_version_that_the_policy_would_not(world: World) -> None:
    world.put("m", 1, 2)
    world.settle()
    with pytest.raises(NotFoundError, match="version 1 is UNLOADED: not chosen by the version policy"):
        world.resolve(1)
    world.controller.load("m", 1, on_disk=True)
    world.settle()
    assert world.states() == {1: "AVAILABLE", 2: "AVAILABLE"}
    world.controller.unload("m", 1)
    world.settle()
    assert world.states() == {2: "AVAILABLE"}


@pytest.mark.parametrize("version", [1, None])
def test_load_of_a_failed_version_tries_again(world: World, version: int | None) -> None:
    world.engine.failures["m", 1] = [InvalidArgumentError("broken")]
    world.put("m", 1)
    world.settle()
    world.controller.load("m", version, on_disk=True)
    assert not world.controller.ready
    world.settle()
    assert world.states() == {1: "AVAILABLE"}


def test_names_that_are_not_there(world: World) -> None:
    world.put("m", 1)
    world.settle()
    with pytest.raises(NotFoundError, match="no model 'x' in /models; models here: m"):
        world.controller.load("x", None, on_disk=False)
    with pytest.raises(NotFoundError, match="model 'm' has no version 5; versions in the repository: 1"):
        world.controller.unload("m", 5)
    calls: Iterable[Callable[[], None]] = (
        lambda: world.controller.set_label("x", "a", 1),
        lambda: world.controller.set_route("x", None),
    )
    for call in calls:
        with pytest.raises(RpcError):
            call()


def test_a_version_may_be_asked_for_before_it_was_seen(world: World) -> None:
    world.look()
    world.controller.load("m", 1, on_disk=True)
    world.put("m", 1, 2)
    world.settle()
    assert world.states() == {1: "AVAILABLE", 2: "AVAILABLE"}


# --- changes of model.toml ---------------------------------------------------------------------------------


def test_settings_that_need_no_load_are_followed_at_once(world: World) -> None:
    world.put("m", 1)
    world.settle()
    handle = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    serial = world.controller.snapshot.serial
    world.configs["m"] = ModelConfig(limits=LimitsConfig(max_in_flight=5), workers=WorkersConfig(count=3))
    world.settle()
    assert world.engine.loads == [("m", 1)]
    assert handle.config.limits.max_in_flight == 5
    assert world.status(1).workers == 3
    assert world.controller.snapshot.serial > serial


def test_settings_that_do_not_suit_a_serving_model_are_reported(world: World) -> None:
    world.engine.options["m", 1] = {"concurrent": False}
    world.put("m", 1)
    world.settle()
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=3))
    world.settle()
    assert "workers.count" in world.status(1).reason
    assert world.status(1).state == "AVAILABLE"
    world.put("n", 1)
    world.settle()
    assert "workers.count" in world.status(1).reason
    world.configs["m"] = ModelConfig()
    world.settle()
    assert world.status(1).reason == ""


def test_settings_that_need_a_load_replace_the_version_by_itself(world: World) -> None:
    world.put("m", 1)
    world.settle()
    seen = len(world.snapshots)
    before = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    world.configs["m"] = ModelConfig(batching=BatchingConfig(max_batch_size=512))
    world.settle()
    after = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    assert after is not before
    assert after.config.batching.max_batch_size == 512
    assert all(snapshot.models["m"].versions for snapshot in world.snapshots[seen:])
    assert world.retired == [before]
    assert world.engine.alive() == [("m", 1)]


def test_batch_sizes_that_the_warm_up_has_covered_are_followed_at_once(world: World) -> None:
    world.put("m", 1)
    world.settle()
    handle = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    for batching in (BatchingConfig(max_batch_size=4), BatchingConfig(allowed_batch_sizes=(1, 256))):
        world.configs["m"] = ModelConfig(batching=batching)
        world.settle()
        limit = batching.max_batch_size or 256
        assert (handle.config.batching.max_batch_size, handle.metadata.max_batch_size) == (limit, limit)
    assert world.engine.loads == [("m", 1)]


def test_settings_that_change_during_a_load_are_followed_when_it_ends(world: World) -> None:
    world.put("m", 1)
    world.look()
    (item,) = world.work
    world.work.clear()
    item[1]()
    world.configs["m"] = ModelConfig(limits=LimitsConfig(max_in_flight=5))
    world.settle()
    handle = world.controller.snapshot.resolve("m", 1, None, None, 0.0)
    assert handle.config.limits.max_in_flight == 5


# --- status, readiness, close ------------------------------------------------------------------------------


def test_versions_that_are_not_complete_are_shown(world: World) -> None:
    world.put("m", 1, 2)
    world.held["m"] = {2: "files are still changing"}
    world.settling = True
    world.settle()
    assert world.states() == {1: "AVAILABLE", 2: "WAITING"}
    assert world.status(2).reason == "files are still changing"
    assert world.controller.ready
    with pytest.raises(UnavailableError, match="version 2 is WAITING: files are still changing"):
        world.resolve(2)


def test_not_ready_while_the_first_version_settles(world: World) -> None:
    world.put("m", 1)
    world.held["m"] = {1: "files are still changing"}
    world.settling = True
    world.settle()
    assert not world.controller.ready


def test_problems_of_a_model_are_shown(world: World) -> None:
    world.found["m"] = {}
    world.problems["m"] = "model.toml: bad"
    world.settle()
    (line,) = world.controller.statuses
    assert (line.version, line.state, line.reason) == (-1, "FAILED", "model.toml: bad")
    world.put("m", 1)
    world.settle()
    assert world.status(1).reason == "model.toml: bad"


def test_an_old_look_does_not_make_ready(world: World) -> None:
    world.look()
    assert world.controller.ready
    revision, scan = world.controller.revision, world.scan()
    world.controller.look_again()
    world.controller.take_scan(revision, scan)
    world.advance()
    assert not world.controller.ready
    world.look()
    assert world.controller.ready


def test_nothing_is_published_without_a_change(world: World) -> None:
    world.put("m", 1)
    world.settle()
    count = len(world.snapshots)
    world.settle()
    assert len(world.snapshots) == count
    serials = [snapshot.serial for snapshot in world.snapshots]
    assert serials == sorted(set(serials))


def test_closing_unloads_everything(world: World) -> None:
    world.put("m", 1)
    world.put("n", 1)
    world.settle()
    world.put("n", 2)
    world.look()
    world.controller.begin_close()
    world.advance()
    assert not world.controller.finished
    assert world.controller.leftovers() == ["m:1", "n:1", "n:2"]
    world.look()
    world.run()
    assert world.controller.finished
    assert world.engine.alive() == []
    assert not world.controller.ready


def test_the_repository_cannot_change(world: World) -> None:
    config = msgspec.structs.replace(world.controller.config, repository=Path("/other"))
    with pytest.raises(FailedPreconditionError, match="restart"):
        world.controller.reconfigure(config)
