"""Settings that change while a model serves: what follows at once, what is loaded again, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tensorwire.manager.config import (
    BatchingConfig,
    LimitsConfig,
    ModelConfig,
    VersionsConfig,
    WorkersConfig,
)
from tensorwire.manager.handle import ServableHandle
from tensorwire.manager.in_force import Setting, VersionSettings
from tensorwire.rpc.errors import InternalError, InvalidArgumentError, NotFoundError, UnavailableError
from world import World

ALL = ModelConfig(versions=VersionsConfig(policy="all"))
EVERYTHING = ("workers", "batching", "limits", "engine")


@pytest.fixture
def world() -> World:
    made = World()
    made.put("m", 1)
    return made


def handle(world: World, version: int | None = None) -> ServableHandle:
    return world.controller.snapshot.resolve("m", version, None, None, 0.0)


def tune(world: World, reset: tuple[str, ...] = (), **values: Any) -> None:
    """``workers_count=2`` is ``workers.count``."""
    world.controller.tune("m", {key.replace("_", ".", 1): value for key, value in values.items()}, reset)


def setting(world: World, key: str) -> Setting:
    return next(found for found in world.controller.settings("m").settings if found.key == key)


def version(world: World, number: int = 1) -> VersionSettings:
    return next(found for found in world.controller.settings("m").versions if found.version == number)


def test_numbers_are_in_force_when_the_command_returns(world: World) -> None:
    world.settle()
    before, serial = handle(world), world.controller.snapshot.serial
    tune(world, workers_count=3, limits_max_in_flight=5, batching_max_queue_delay=0.1)
    assert handle(world) is before
    config = before.config
    assert (config.workers.count, config.limits.max_in_flight) == (3, 5)
    assert config.batching.max_queue_delay == 0.1
    assert world.controller.snapshot.serial > serial
    assert world.status(1).workers == 3
    assert world.controller.ready
    world.settle()
    assert before.config is config
    assert world.engine.loads == [("m", 1)]


def test_where_a_value_comes_from(world: World) -> None:
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=2))
    world.settle()
    assert setting(world, "workers.count") == Setting(key="workers.count", value=2, origin="file", file=2)
    tune(world, workers_count=3)
    assert setting(world, "workers.count") == Setting(key="workers.count", value=3, origin="live", file=2)
    assert setting(world, "limits.max_in_flight").origin == "default"
    assert version(world).values["workers.count"] == 3
    tune(world, reset=("workers.count",))
    assert setting(world, "workers.count").origin == "file"
    assert handle(world).config.workers.count == 2


def test_what_needs_a_load_is_loaded_beside_what_serves(world: World) -> None:
    world.settle()
    before, seen = handle(world), len(world.snapshots)
    tune(world, engine_intra_op_threads=2, workers_count=2)
    assert handle(world) is before
    assert world.status(1).replacement == "LOADING"
    assert (version(world).pending, version(world).failed) == (True, False)
    assert version(world).values["engine.intra_op_threads"] == 1
    assert not world.controller.ready
    world.run()
    after = handle(world)
    assert (after.config.engine.intra_op_threads, after.config.workers.count) == (2, 2)
    assert all(snapshot.models["m"].versions for snapshot in world.snapshots[seen:])
    assert world.retired == [before]
    assert (version(world).pending, version(world).values["engine.intra_op_threads"]) == (False, 2)
    assert world.status(1).replacement == ""


def test_resource_unloads_first_as_for_a_changed_file(world: World) -> None:
    world.configs["m"] = ModelConfig(versions=VersionsConfig(transition="resource"))
    world.settle()
    tune(world, engine_intra_op_threads=2)
    assert world.states() == {1: "NEW"}
    assert version(world).pending
    with pytest.raises(UnavailableError):
        handle(world)
    world.settle()
    assert handle(world).config.engine.intra_op_threads == 2
    assert world.controller.settings("m").transition == "resource"


def test_a_load_that_fails_keeps_the_old_version_and_says_why(world: World) -> None:
    world.settle()
    before = handle(world)
    world.engine.failures["m", 1] = [InvalidArgumentError("too many threads")]
    tune(world, engine_intra_op_threads=512)
    world.run()
    assert handle(world) is before
    assert "its replacement is FAILED: INVALID_ARGUMENT: too many threads" in world.status(1).reason
    found = version(world)
    assert (found.failed, found.pending) == (True, False)
    assert found.values["engine.intra_op_threads"] == 1
    assert setting(world, "engine.intra_op_threads").value == 512
    tune(world, reset=EVERYTHING)
    assert world.status(1).reason == ""
    assert not version(world).failed
    world.settle()
    # It had what was asked for all the time.
    assert handle(world) is before
    assert len(world.engine.loads) == 2
    assert world.engine.alive() == [("m", 1)]


def test_a_load_that_finds_no_memory_can_be_called_off() -> None:
    world = World(ram_budget=150)
    world.put("m", 1)
    world.settle()
    before = handle(world)
    tune(world, engine_intra_op_threads=2)
    world.run()
    assert "its replacement is WAITING: waits for memory" in version(world).reason
    tune(world, reset=EVERYTHING)
    assert not version(world).pending
    world.settle()
    assert handle(world) is before
    assert world.controller.budget.used == 100


def test_a_load_under_way_can_be_called_off(world: World) -> None:
    world.settle()
    before = handle(world)
    tune(world, engine_intra_op_threads=2)
    tune(world, reset=("engine",), workers_count=3)
    assert not version(world).pending
    world.settle()
    assert handle(world) is before
    assert before.config.workers.count == 3
    assert world.engine.alive() == [("m", 1)]


# --- batch sizes -------------------------------------------------------------------------------------------


def test_batches_shrink_and_grow_again_without_a_load(world: World) -> None:
    world.settle()
    before = handle(world)
    for size in (8, 1, 256):
        tune(world, batching_max_batch_size=size)
        assert (before.config.batching.max_batch_size, before.metadata.max_batch_size) == (size, size)
    tune(world, batching_max_batch_size=64, batching_allowed_batch_sizes=[2, 64])
    assert before.config.batching.allowed_batch_sizes == (2, 64)
    assert handle(world) is before
    assert (version(world).warm_rows, version(world).warm_sizes) == (256, ())


def test_larger_batches_are_warmed_up_first(world: World) -> None:
    world.settle()
    before = handle(world)
    tune(world, batching_max_batch_size=300)
    assert handle(world) is before
    assert before.config.batching.max_batch_size == 256
    world.run()
    after = handle(world)
    assert after is not before
    assert 300 in after.costs
    assert after.metadata.max_batch_size == 300


@pytest.mark.parametrize(
    ("sizes", "largest", "loads"),
    [((4,), None, 1), ((1, 4, 8), 8, 1), ((1, 2), None, 2), ((1, 4, 16), None, 2), ((), 8, 2)],
)
def test_listed_sizes_are_the_only_warm_ones(
    world: World, sizes: tuple[int, ...], largest: int | None, loads: int
) -> None:
    world.configs["m"] = ModelConfig(batching=BatchingConfig(allowed_batch_sizes=(1, 4, 8)))
    world.settle()
    tune(world, batching_allowed_batch_sizes=sizes, batching_max_batch_size=largest)
    world.settle()
    assert handle(world).config.batching.allowed_batch_sizes == sizes
    assert len(world.engine.loads) == loads


def test_a_size_that_does_not_work_never_serves(world: World) -> None:
    def at_most_256(inputs: dict[str, Any]) -> list[Any]:
        if len(inputs["x"]) > 256:
            raise InternalError("out of memory")
        return [inputs["x"]]

    world.engine.options["m", 1] = {"compute": at_most_256}
    world.settle()
    tune(world, batching_max_batch_size=300)
    world.settle()
    assert handle(world).config.batching.max_batch_size == 256
    assert "works with 1 rows but not with 300" in version(world).reason


def test_more_worker_processes_need_more_memory() -> None:
    world = World(ram_budget=350)
    world.engine.options["m", 1] = {"worker_kind": "process"}
    world.put("m", 1)
    world.settle()
    assert world.controller.budget.used == 100
    tune(world, workers_count=3)
    world.settle()
    assert (handle(world).config.workers.count, world.controller.budget.used) == (3, 300)
    tune(world, workers_count=4)
    world.settle()
    assert (handle(world).config.workers.count, world.controller.budget.used) == (3, 300)
    assert "that needs 100 B more memory, and 50 B of 350 B are free" in world.status(1).reason
    tune(world, workers_count=1)
    world.settle()
    assert (handle(world).config.workers.count, world.controller.budget.used) == (1, 100)
    assert world.engine.loads == [("m", 1)]


# --- refused -----------------------------------------------------------------------------------------------


def unchanged(world: World, message: str, **values: Any) -> None:
    before = world.controller.settings("m")
    with pytest.raises(InvalidArgumentError, match=message):
        tune(world, **values)
    assert world.controller.settings("m") == before
    assert not world.work


def test_all_or_nothing(world: World) -> None:
    world.settle()
    unchanged(world, r"model 'm': limits\.max_in_flight: found 0", workers_count=2, limits_max_in_flight=0)
    unchanged(world, r"workers\.cuont: unknown key", workers_count=2, workers_cuont=3)


def test_what_the_model_cannot_take(world: World) -> None:
    world.engine.options["m", 1] = {"concurrent": False, "batched": False}
    world.settle()
    unchanged(world, r"workers\.count: found 3; expected 1, because .* one call", workers_count=3)
    unchanged(world, r"max_batch_size: found 4; expected none, because", batching_max_batch_size=4)
    unchanged(world, r"batching\.enabled: found True; expected false", batching_enabled=True)


def test_what_one_of_several_versions_cannot_take(world: World) -> None:
    world.configs["m"] = ALL
    world.put("m", 2)
    world.engine.options["m", 2] = {"concurrent": False}
    world.settle()
    unchanged(world, r"one call at a time.*\(version 2\)", workers_count=3)
    tune(world, limits_max_in_flight=3)
    assert [handle(world, number).config.limits.max_in_flight for number in (1, 2)] == [3, 3]
    assert version(world, 1).values["workers.count"] >= version(world, 2).values["workers.count"] == 1


def test_batching_that_was_found_not_to_work_cannot_be_asked_for(world: World) -> None:
    def only_one_row(inputs: dict[str, Any]) -> list[Any]:
        if len(inputs["x"]) > 1:
            raise InternalError("reshape")
        return [inputs["x"]]

    world.engine.options["m", 1] = {"compute": only_one_row}
    world.settle()
    unchanged(world, "because this model is not batched", batching_max_batch_size=4)
    # Told so, it tries: the load shows it.
    tune(world, batching_enabled=True)
    world.settle()
    assert "cannot be batched" in version(world).reason
    assert handle(world).config.batching.enabled is False


def test_batching_that_was_switched_off_can_be_switched_on(world: World) -> None:
    world.configs["m"] = ModelConfig(batching=BatchingConfig(enabled=False))
    world.settle()
    unchanged(world, "because this model is not batched", batching_max_batch_size=4)
    tune(world, batching_enabled=None, batching_max_batch_size=4)
    world.settle()
    assert handle(world).metadata.max_batch_size == 4


def test_what_the_file_asks_in_vain_does_not_hold_up_the_rest(world: World) -> None:
    world.engine.options["m", 1] = {"concurrent": False}
    world.settle()
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=3))
    world.settle()
    assert version(world).failed
    tune(world, limits_max_in_flight=9)
    tune(world, workers_count=1)
    assert handle(world).config.limits.max_in_flight == 9
    assert not version(world).failed
    assert version(world).reason == ""


def test_models_that_are_not_there(world: World) -> None:
    world.settle()
    for call in (lambda: world.controller.tune("x", {}, ()), lambda: world.controller.settings("x")):
        with pytest.raises(NotFoundError, match="no model 'x' in /models; models here: m"):
            call()


# --- as long as they hold ----------------------------------------------------------------------------------


def test_without_a_version_they_hold_from_the_next_load_on(world: World) -> None:
    world.settle()
    world.controller.unload("m", None)
    world.settle()
    tune(world, workers_count=2, engine_intra_op_threads=2)
    assert world.controller.settings("m").versions == ()
    world.controller.load("m", None, on_disk=True)
    world.settle()
    config = handle(world).config
    assert (config.workers.count, config.engine.intra_op_threads) == (2, 2)


def test_new_versions_have_them_too(world: World) -> None:
    world.settle()
    tune(world, workers_count=3)
    world.put("m", 2)
    world.settle()
    assert (world.resolve(), handle(world).config.workers.count) == (2, 3)


def test_set_during_a_load_they_are_followed_when_it_ends(world: World) -> None:
    world.look()
    (item,) = world.work
    world.work.clear()
    item[1]()
    tune(world, workers_count=3)
    world.advance()
    assert handle(world).config.workers.count == 3


def test_the_file_goes_before_when_it_changes_about_the_same_key(world: World) -> None:
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=2))
    world.settle()
    tune(world, workers_count=3, limits_max_in_flight=7)
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=2), limits=LimitsConfig(max_queued_rows=5))
    world.settle()
    assert handle(world).config.workers.count == 3
    assert handle(world).config.limits == LimitsConfig(max_queued_rows=5, max_in_flight=7)
    world.configs["m"] = ModelConfig(workers=WorkersConfig(count=4))
    world.settle()
    assert handle(world).config.workers.count == 4
    assert handle(world).config.limits == LimitsConfig(max_in_flight=7)
    assert setting(world, "workers.count").origin == "file"


def test_the_file_goes_before_what_contradicts_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.settle()
    tune(world, batching_allowed_batch_sizes=[1, 8], limits_max_in_flight=7)
    world.configs["m"] = ModelConfig(batching=BatchingConfig(max_batch_size=16))
    world.settle()
    assert handle(world).config.batching.max_batch_size == 16
    assert setting(world, "batching.allowed_batch_sizes").origin == "default"
    assert handle(world).config.limits.max_in_flight == 7
    assert "m: model.toml changed, and ends the live batching.allowed_batch_sizes" in caplog.text


def test_a_model_that_comes_back_keeps_them(world: World) -> None:
    world.settle()
    tune(world, workers_count=3)
    del world.found["m"]
    world.settle()
    world.put("m", 1)
    world.settle()
    assert handle(world).config.workers.count == 3


def test_nothing_is_loaded_any_more_when_the_manager_closes(world: World) -> None:
    world.settle()
    world.controller.begin_close()
    tune(world, engine_intra_op_threads=2)
    world.settle()
    assert world.controller.finished
    assert world.engine.loads == [("m", 1)]
