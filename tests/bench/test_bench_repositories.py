"""Model repositories as other servers and other workers want them, and why Triton may not be there."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from tensorwire.bench.models import build_repository
from tensorwire.bench.peers.repositories import copy_with_processes
from tensorwire.bench.peers.triton.server import convert, missing
from tensorwire.bench.suite.models import set_workers
from tensorwire.manager.config import load_model_config


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return build_repository(tmp_path / "models")


def test_a_copy_says_processes_and_keeps_the_rest(repository: Path, tmp_path: Path) -> None:
    config = repository / "head" / "model.toml"
    config.write_text('labels.stable = 1\n[workers]\nkind = "thread"\ncount = 2\n')
    copy = copy_with_processes(repository, tmp_path / "copy")
    found = tomllib.loads((copy / "head" / "model.toml").read_text())
    assert found == {"labels": {"stable": 1}, "workers": {"kind": "process", "count": 2}}
    assert tomllib.loads((copy / "image" / "model.toml").read_text()) == {"workers": {"kind": "process"}}
    assert 'kind = "thread"' in config.read_text()
    assert (copy / "head" / "1" / "model.onnx").exists()


def test_models_say_how_many_workers_they_have_unless_they_do(repository: Path) -> None:
    config = repository / "head" / "model.toml"
    config.write_text("[workers]\ncount = 2\n")
    (repository / "image" / "model.toml").write_text("[batching]\nmax_batch_size = 4\n")
    set_workers(repository, 3)
    assert tomllib.loads(config.read_text()) == {"workers": {"count": 2}}
    found = tomllib.loads((repository / "image" / "model.toml").read_text())
    assert found == {"batching": {"max_batch_size": 4}, "workers": {"count": 3}}
    assert load_model_config(repository / "matmul16" / "model.toml").workers.count == 3


def test_triton_gets_the_newest_version_of_what_takes_batches(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "matmul16" / "1", repository / "matmul16" / "12")
    (repository / "python" / "1").mkdir(parents=True)
    (repository / "python" / "1" / "model.py").write_text("class Model: ...")
    target = tmp_path / "triton"
    target.mkdir()
    (repository / "head" / "model.toml").write_text("[batching]\nmax_batch_size = 5\n")
    assert convert(repository, target, tmp_path, instances=3) == ["python"]
    models = {path.name for path in (target / "models").iterdir()}
    assert models == {"matmul16", "vector1024", "image", "head"}
    config = (target / "models" / "head" / "config.pbtxt").read_text()
    assert "max_batch_size: 5\n" in config
    assert "count: 3 }" in config
    # As tensorwire: an image does not wait for others.
    assert "max_batch_size: 1\n" in (target / "models" / "image" / "config.pbtxt").read_text()
    assert 'input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]' in config
    assert 'output [{ name: "y" data_type: TYPE_FP32 dims: [4] }]' in config
    assert {path.name for path in (target / "models" / "matmul16" / "1").iterdir()} == {
        "model.onnx",
        "model.py",
    }


def test_triton_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    assert missing(tmp_path) == "tritonserver is not installed: run make bench-triton"


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
def test_triton_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    from tensorwire.bench.peers.triton import server

    for path in (server._program(tmp_path), server._stub(tmp_path)):
        path.parent.mkdir(parents=True)
        path.write_text("no program")
    assert missing(tmp_path).startswith("tritonserver: ")
