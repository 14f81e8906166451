"""model.toml: defaults, strictness, and what resolve() fills in."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from tensorwire.manager.config import (
    BatchingConfig,
    ModelConfig,
    RouteConfig,
    WorkersConfig,
    derive_max_batch_size,
    load_model_config,
    parse_cpus,
    parse_devices,
    resolve,
)
from tensorwire.manager.engines import ENGINES
from tensorwire.rpc.errors import InvalidArgumentError
from tensorwire.rpc.types import ModelMetadata, TensorSpec

FULL = """
description = "a model"

[engine]
kind = "onnxruntime"
intra_op_threads = 2
inter_op_threads = 1
options = { memory_arena = true }

[batching]
enabled = true
max_batch_size = 32
max_queue_delay = 0.002
allowed_batch_sizes = [1, 8, 32]

[workers]
kind = "thread"
count = 2

[limits]
max_queued_rows = 100
max_in_flight = 200

[versions]
policy = "specific"
specific = [3, 7]
transition = "resource"

[labels]
stable = 3
canary = 7

[route]
targets = { stable = 0.9, "7" = 0.1 }
sticky = true
shadow = "next"
shadow_fraction = 0.5

[[inputs]]
name = "x"
dtype = "float32"
shape = [-1, 16]

[[outputs]]
name = "y"
dtype = "string"
shape = [-1]
optional = false
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "model.toml"
    path.write_text(text, encoding="utf-8")
    return path


def metadata(*inputs: TensorSpec, batched: bool = True) -> ModelMetadata:
    return ModelMetadata(name="m", version=1, platform="test", inputs=inputs, outputs=inputs, batched=batched)


def test_cores_are_read_from_numbers_and_ranges() -> None:
    assert parse_cpus("0-2, 5") == {0, 1, 2, 5}


def test_devices() -> None:
    assert parse_devices("1, 0") == ("1", "0")
    assert parse_devices("GPU-8932f937-d72c-4106-c12f") == ("GPU-8932f937-d72c-4106-c12f",)


def test_a_missing_or_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_model_config(tmp_path / "model.toml") == ModelConfig()
    assert load_model_config(write(tmp_path, "")) == ModelConfig()


def test_every_key_is_read(tmp_path: Path) -> None:
    config = load_model_config(write(tmp_path, FULL))
    assert config.description == "a model"
    assert (config.engine.kind, config.engine.options) == ("onnxruntime", {"memory_arena": True})
    assert config.batching == BatchingConfig(
        enabled=True, max_batch_size=32, max_queue_delay=0.002, allowed_batch_sizes=(1, 8, 32)
    )
    assert config.workers.count == 2
    assert (config.limits.max_queued_rows, config.limits.max_in_flight) == (100, 200)
    assert (config.versions.policy, config.versions.specific) == ("specific", (3, 7))
    assert config.labels == {"stable": 3, "canary": 7}
    assert config.route == RouteConfig(
        targets={"stable": 0.9, "7": 0.1}, sticky=True, shadow="next", shadow_fraction=0.5
    )
    assert config.inputs == (TensorSpec("x", "float32", (None, 16)),)
    assert config.outputs == (TensorSpec("y", "string", (None,)),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = [", "not valid TOML"),
        (
            "[batchin]",
            "batchin: unknown key (did you mean 'batching'?); known keys are batching, description",
        ),
        (
            "[batching]\nmax_batch_sise = 3",
            "batching.max_batch_sise: unknown key (did you mean 'max_batch_size'?)",
        ),
        ("[batching]\nmax_batch_size = 0", "batching.max_batch_size: found 0; expected an integer >= 1"),
        ('[batching]\nmax_batch_size = "8"', "batching.max_batch_size: found '8'; expected an integer >= 1"),
        ("[batching]\nmax_batch_size = 8.5", "batching.max_batch_size: found 8.5; expected an integer >= 1"),
        ("[batching]\nenabled = 1", "batching.enabled: found 1; expected true or false"),
        (
            "[batching]\nmax_queue_delay = -1",
            "batching.max_queue_delay: found -1; expected a number >= 0 and <= 10",
        ),
        (
            "[batching]\nmax_queue_delay = 500",
            "batching.max_queue_delay: found 500; expected a number >= 0 and <=",
        ),
        ("[batching]\nmax_queue_delay = nan", "batching.max_queue_delay: found nan; expected a number"),
        (
            "[batching]\nallowed_batch_sizes = [4, 2]",
            "batching.allowed_batch_sizes: found [4, 2]; expected ascend",
        ),
        ("[batching]\nallowed_batch_sizes = [4, 4]", "expected ascending sizes, each once"),
        (
            "[batching]\nallowed_batch_sizes = [1, -2]",
            "batching.allowed_batch_sizes[1]: found -2; expected an int",
        ),
        (
            "[batching]\nmax_batch_size=8\nallowed_batch_sizes=[1, 4]",
            "found [1, 4]; expected max_batch_size = 8 as",
        ),
        ("[batching]\nenabled=false\nallowed_batch_sizes=[1, 4]", "expected none, because enabled = false"),
        ("batching = 3", "batching: found 3; expected a table with the keys enabled, max_batch_size"),
        ('[engine]\nkind = "tf"', "engine.kind: found 'tf'; expected one of 'onnxruntime', 'python'"),
        ("[engine]\nintra_op_threads = 0", "engine.intra_op_threads: found 0; expected an integer >= 1"),
        ('[workers]\ncpus = "3-1"', "workers.cpus: found '3-1'; expected core numbers and ranges"),
        ('[workers]\ndevice = "0,0"', "workers.device: found '0,0'; expected GPUs by number or identifier"),
        ('[workers]\ndevice = "cuda:0"', "workers.device: found 'cuda:0'; expected GPUs by number"),
        ('[workers]\ncpus = "first"', "workers.cpus: found 'first'; expected core numbers and ranges"),
        ("[workers]\nhang_timeout = -1", "workers.hang_timeout"),
        ('[workers]\nkind = "fiber"', "workers.kind: found 'fiber'; expected one of 'process', 'thread'"),
        ("[labels]\nstable = -1", "labels: found {'stable': -1}; expected a table"),
        ("[labels]\n3 = 1", "labels.3: found '3'; expected a label"),
        ('[labels]\n"a b" = 1', "labels.a b: found 'a b'; expected a label"),
        ("[route]\nsticky = true", "route: missing required field `targets`"),
        ("[route]\ntargets = {}", "route.targets: found {}; expected at least one label or version"),
        ("[route]\ntargets = { a = 0 }", "route.targets.a: found 0.0; expected a weight > 0"),
        ("[route]\ntargets = { a = inf }", "route.targets.a: found inf; expected a weight > 0"),
        ('[route]\ntargets = { a = "x" }', "route.targets: found {'a': 'x'}; expected a table"),
        (
            '[route]\ntargets = { a = 1 }\nshadow = "a"',
            "route.shadow: found 'a'; expected a label or version that",
        ),
        (
            "[route]\ntargets = { a = 1 }\nshadow_fraction = 0",
            "route.shadow_fraction: found 0.0; expected a number",
        ),
        (
            '[versions]\npolicy = "specific"',
            "versions.specific: found []; expected version numbers, each once",
        ),
        ("[versions]\nspecific = [1]", "versions.specific: found [1]; expected none with policy = 'latest'"),
        (
            '[versions]\npolicy = "all"\ncount = 2',
            "versions.count: found 2; expected no count with policy = 'all'",
        ),
        ('[versions]\npolicy = "newest"', "expected one of 'all', 'latest', 'specific'"),
        (
            '[[inputs]]\nname="x"\ndtype="float31"\nshape=[]',
            "inputs[0].dtype: found 'float31'; expected one of 'bf",
        ),
        (
            '[[inputs]]\nname="x"\ndtype="bool"\nshape=[-2]',
            "inputs[0].shape[0]: found -2; expected an integer >= -1",
        ),
        (
            '[[inputs]]\nname="x"\ndtype="bool"\nshap=[1]',
            "inputs[0].shap: unknown key (did you mean 'shape'?)",
        ),
        ('[[inputs]]\nname="x"\ndtype="bool"', "inputs[0]: missing required field `shape`"),
        (
            '[[outputs]]\nname="x"\ndtype="bool"\nshape=[]\n' * 2,
            "outputs.name: found ['x', 'x']; expected each name",
        ),
    ],
)
def test_a_bad_value_names_file_key_found_and_allowed(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidArgumentError) as caught:
        load_model_config(path)
    message = caught.value.message
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    assert expected in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.toml").mkdir()
    with pytest.raises(InvalidArgumentError, match=r"model\.toml: cannot be read: Is a directory"):
        load_model_config(tmp_path / "model.toml")
    (tmp_path / "latin.toml").write_bytes(b'description = "\xe9"')
    with pytest.raises(InvalidArgumentError, match=r"latin\.toml: not UTF-8 text"):
        load_model_config(tmp_path / "latin.toml")


def test_values_made_in_code_are_checked_against_each_other_too() -> None:
    with pytest.raises(InvalidArgumentError, match=r"route\.targets\.a: found -1"):
        RouteConfig(targets={"a": -1})


def test_errors_survive_pickling(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        load_model_config(write(tmp_path, "x = 1"))
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message


def test_the_kinds_that_the_file_allows_are_the_engines_that_exist(tmp_path: Path) -> None:
    for kind in ENGINES:
        assert load_model_config(write(tmp_path, f'[engine]\nkind = "{kind}"')).engine.kind == kind


def test_resolve_leaves_nothing_open() -> None:
    row = TensorSpec("x", "float32", (None, 16))
    config = resolve(ModelConfig(), metadata(row), concurrent=True)
    assert (config.batching.enabled, config.batching.max_batch_size) == (True, 256)
    assert config.workers.count is not None
    assert 1 <= config.workers.count <= 4
    assert (config.engine.intra_op_threads, config.engine.inter_op_threads) == (1, 1)


def test_a_model_that_takes_one_call_at_a_time_gets_one_worker() -> None:
    row = TensorSpec("x", "float32", (None, 16))
    assert resolve(ModelConfig(), metadata(row), concurrent=False).workers.count == 1
    two = ModelConfig(workers=WorkersConfig(count=2))
    assert resolve(two, metadata(row), concurrent=True).workers.count == 2
    with pytest.raises(InvalidArgumentError, match=r"workers\.count: found 2; expected 1, because"):
        resolve(two, metadata(row), concurrent=False)


def test_max_batch_size_comes_from_the_allowed_sizes() -> None:
    config = ModelConfig(batching=BatchingConfig(allowed_batch_sizes=(2, 12)))
    row = TensorSpec("x", "float32", (None, 16))
    assert resolve(config, metadata(row), concurrent=True).batching.max_batch_size == 12


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        (TensorSpec("x", "float32", (None, 16)), 256),
        (TensorSpec("x", "float32", (None, 3, 224, 224)), 1),
        (TensorSpec("x", "float32", (None, 32, 32, 3)), 64),
        (TensorSpec("x", "uint8", (None, 1 << 25)), 1),
        (TensorSpec("x", "string", (None,)), 256),
        (TensorSpec("x", "int64", (None, None)), 256),
    ],
)
def test_the_derived_batch_size_bounds_the_bytes_of_a_batch(spec: TensorSpec, rows: int) -> None:
    assert derive_max_batch_size((spec,)) == rows


def test_batches_that_the_model_cannot_do_are_refused() -> None:
    fixed = metadata(TensorSpec("x", "float32", (2, 3)), batched=False)
    assert resolve(ModelConfig(), fixed, concurrent=True).batching == BatchingConfig(
        enabled=False, max_batch_size=1
    )
    for batching in (
        BatchingConfig(enabled=True),
        BatchingConfig(max_batch_size=8),
        BatchingConfig(allowed_batch_sizes=(1, 2)),
    ):
        with pytest.raises(InvalidArgumentError, match="model 'm': batching"):
            resolve(ModelConfig(batching=batching), fixed, concurrent=True)
