from __future__ import annotations

import random
from collections import Counter

import pytest
from fake_engine import FakeServable
from tensorwire.manager.config import ModelConfig
from tensorwire.manager.handle import ServableHandle
from tensorwire.manager.snapshot import Absent, Route, ServingModel, Snapshot, Target, stable_fraction
from tensorwire.manager.states import State
from tensorwire.rpc.errors import InvalidArgumentError, NotFoundError, UnavailableError


def handle(version: int) -> ServableHandle:
    return ServableHandle("m", version, FakeServable("m", version), ModelConfig())


V1, V2, V3 = handle(1), handle(2), handle(3)
BOTH = {1: V1, 2: V2}


def snapshot(model: ServingModel) -> Snapshot:
    return Snapshot(1, {"m": model})


def test_version_label_and_default() -> None:
    now = snapshot(ServingModel("m", BOTH, labels={"stable": 1}, default=2))
    assert now.resolve("m", 1, None, None, 0.0) is V1
    assert now.resolve("m", None, "stable", None, 0.0) is V1
    assert now.resolve("m", None, None, None, 0.0) is V2


def test_both_version_and_label_is_a_mistake() -> None:
    now = snapshot(ServingModel("m", BOTH, labels={"stable": 1}, default=2))
    with pytest.raises(InvalidArgumentError, match="version 1 and label 'stable'"):
        now.resolve("m", 1, "stable", None, 0.0)


def test_unknown_names_say_what_is_known() -> None:
    now = snapshot(ServingModel("m", BOTH, labels={"stable": 1}, default=2))
    with pytest.raises(NotFoundError, match="no model 'x'; models here: m"):
        now.resolve("x", None, None, None, 0.0)
    with pytest.raises(NotFoundError, match="version 9 is not there; available versions: 1, 2"):
        now.resolve("m", 9, None, None, 0.0)
    with pytest.raises(NotFoundError, match="no label 'canary'; labels: stable"):
        now.resolve("m", None, "canary", None, 0.0)


def test_long_listings_are_cut() -> None:
    now = Snapshot(1, {f"m{n:02}": ServingModel(f"m{n:02}", {}) for n in range(20)})
    with pytest.raises(NotFoundError, match="m07 and 12 more"):
        now.resolve("x", None, None, None, 0.0)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (State.NEW, UnavailableError),
        (State.WAITING, UnavailableError),
        (State.LOADING, UnavailableError),
        (State.WARMING, UnavailableError),
        (State.UNLOADING, UnavailableError),
        (State.CANCELLING, UnavailableError),
        (State.FAILED, NotFoundError),
        (State.UNLOADED, NotFoundError),
    ],
)
def test_known_versions_that_do_not_serve_say_why(state: State, error: type[Exception]) -> None:
    model = ServingModel(
        "m", {1: V1}, declared={"canary": 2}, default=1, absent={2: Absent(state, "because of this")}
    )
    with pytest.raises(error, match=f"version 2 is {state.value}: because of this; available versions: 1"):
        snapshot(model).resolve("m", 2, None, None, 0.0)
    with pytest.raises(error, match=f"label 'canary' points at version 2, which is {state.value}"):
        snapshot(model).resolve("m", None, "canary", None, 0.0)


def test_a_model_without_a_serving_version() -> None:
    loading = ServingModel("m", {}, absent={2: Absent(State.LOADING, "")})
    with pytest.raises(UnavailableError, match="no version serves; versions: 2 is LOADING"):
        snapshot(loading).resolve("m", None, None, None, 0.0)
    failed = ServingModel("m", {}, absent={2: Absent(State.FAILED, "bad file")})
    with pytest.raises(NotFoundError, match="2 is FAILED: bad file"):
        snapshot(failed).resolve("m", None, None, None, 0.0)


def test_a_pinned_default_that_does_not_serve_is_named() -> None:
    model = ServingModel("m", {1: V1}, declared={"default": 2}, absent={2: Absent(State.LOADING, "")})
    with pytest.raises(UnavailableError, match="label 'default' points at version 2"):
        snapshot(model).resolve("m", None, None, None, 0.0)


def test_a_route_splits_by_weight() -> None:
    route = Route([Target("stable", 3, V1), Target("canary", 1, V2)])
    now = snapshot(ServingModel("m", BOTH, route=route))
    assert now.resolve("m", None, None, None, 0.0) is V1
    assert now.resolve("m", None, None, None, 0.7499) is V1
    assert now.resolve("m", None, None, None, 0.75) is V2
    assert now.resolve("m", None, None, None, 0.9999999) is V2
    assert now.resolve("m", 1, None, None, 0.99) is V1


def test_draws_at_the_upper_end_stay_inside() -> None:
    route = Route([Target(str(n), 0.1, V1) for n in range(7)])
    assert route.pick(None, 1.0 - 2**-53) is V1
    assert route.pick(None, 1.0) is V1


def test_a_sticky_route_goes_by_the_key_alone() -> None:
    route = Route([Target("a", 1, V1), Target("b", 1, V2)], sticky=True, salt="m")
    for number in range(200):
        key = f"user{number}".encode()
        assert len({route.pick(key, draw) for draw in (0.0, 0.3, 0.6, 0.99)}) == 1
    assert route.pick(None, 0.0) is V1
    assert route.pick(None, 0.9) is V2


def test_sticky_keys_split_by_weight_and_differ_between_models() -> None:
    targets = [Target("a", 9, V1), Target("b", 1, V2)]
    picks = {
        salt: [Route(targets, sticky=True, salt=salt).pick(f"user{n}".encode(), 0.0) for n in range(10_000)]
        for salt in ("m", "other")
    }
    for salt in picks:
        assert 850 < Counter(picks[salt])[V2] < 1150
    both = sum(a is b is V2 for a, b in zip(picks["m"], picks["other"], strict=True))
    assert 50 < both < 160  # independent: about 1 % of 10 000


def test_the_hash_is_the_same_everywhere() -> None:
    assert stable_fraction(b"user1") == pytest.approx(0.27631162549369037)
    assert 0.0 <= stable_fraction(b"") < 1.0


def test_a_missing_target_gives_its_share_away_and_moves_nobody_else() -> None:
    full = Route([Target("a", 1, V1), Target("b", 1, V2), Target("c", 2, V3)], sticky=True)
    short = Route([Target("a", 1, V1), Target("b", 1, None), Target("c", 2, V3)], sticky=True)
    instead: Counter[object] = Counter()
    for number in range(3000):
        key = f"user{number}".encode()
        before, after = full.pick(key, 0.0), short.pick(key, 0.0)
        if before is V2:
            instead[after] += 1
        else:
            assert after is before
    assert instead[V1] / instead[V3] == pytest.approx(0.5, rel=0.3)


def test_a_route_without_a_serving_target() -> None:
    route = Route([Target("canary", 1, None)])
    with pytest.raises(NotFoundError, match="no target of its route serves \\(targets: canary\\)"):
        snapshot(ServingModel("m", {1: V1}, route=route)).resolve("m", None, None, None, 0.5)


def test_an_empty_snapshot() -> None:
    with pytest.raises(NotFoundError, match="models here: none"):
        Snapshot().resolve("m", None, None, None, random.random())
