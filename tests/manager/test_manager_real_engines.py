"""The manager with the engines that users have."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from tensorwire.manager import Manager, ManagerConfig
from tensorwire.rpc.errors import NotFoundError
from tensorwire.rpc.types import VersionStatus

pytest.importorskip("onnxruntime")

PYTHON_MODEL = """
import numpy as np

class Model:
    inputs = [("x", "float32", (None, 2))]
    outputs = [("y", "float32", (None, 2))]
    batched = True

    def load(self, directory, config):
        {load}

    def predict(self, x):
        return {{"y": {result}}}
"""


def python_model(directory: Path, *, load: str = "pass", result: str = "x + 1") -> None:
    directory.mkdir(parents=True)
    (directory / "model.py").write_text(PYTHON_MODEL.format(load=load, result=result))


def status(manager: Manager, model: str) -> VersionStatus:
    (line,) = manager.status(model)
    return line


def test_a_repository_of_every_kind(tmp_path: Path) -> None:
    models.matmul(tmp_path / "matmul" / "1")
    models.failing(tmp_path / "gather" / "1")
    models.several(tmp_path / "several" / "1")
    models.unbatched(tmp_path / "unbatched" / "1")
    models.identity(tmp_path / "text" / "1", "string", ("n",))
    python_model(tmp_path / "python" / "1")
    python_model(tmp_path / "mean" / "1", result="x - x.mean(axis=0) + 1")
    python_model(tmp_path / "broken" / "1", load="raise ValueError('no weights')")
    (tmp_path / "empty" / "1").mkdir(parents=True)
    (tmp_path / "empty" / "1" / "notes.txt").write_text("nothing here")
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"not a model")
    config = ManagerConfig(repository=tmp_path, settle_time=0.0, load_retries=1, retry_backoff=0.01)
    with Manager(config) as manager:
        assert manager.wait_ready(60)
        serving = {line.model for line in manager.status() if line.state == "AVAILABLE"}
        assert serving == {"matmul", "gather", "several", "unbatched", "text", "python", "mean"}
        assert "no weights" in status(manager, "broken").reason
        assert "no model.py" in status(manager, "empty").reason
        assert status(manager, "bad").state == "FAILED"
        with pytest.raises(NotFoundError, match="bad"):
            manager.snapshot.resolve("bad", None, None, None, 0.0)

        handle = manager.snapshot.resolve("matmul", None, None, None, 0.0)
        assert handle.metadata.batched
        assert sorted(handle.costs) == [1, 256]
        assert all(seconds > 0 for seconds in handle.costs.values())
        assert not manager.snapshot.resolve("unbatched").metadata.batched
        assert not manager.snapshot.resolve("mean").metadata.batched
        assert manager.snapshot.resolve("gather").metadata.batched

        python = manager.snapshot.resolve("python")
        assert python.acquire()
        (y,) = python.servable.run({"x": np.zeros((3, 2), np.float32)}, ["y"])
        assert y.tolist() == [[1.0, 1.0]] * 3
        assert python.config.workers.count == 1
        python.release()
        # What the import of model.py wrote beside it is no new version of it.
        manager.rescan()
        assert manager.wait_ready(60)
        assert status(manager, "python").reason == ""
    assert manager.memory()[0] == 0
