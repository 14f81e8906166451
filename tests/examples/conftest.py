from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The examples are scripts: they import each other by name, as Python does for ``python examples/x.py``.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with every model of the examples; skips where a package with weights is missing."""
    from build_repository import build
    from packages import MissingPackageError

    pytest.importorskip("onnxruntime", reason="the examples run on ONNX Runtime: pip install onnxruntime")
    path = tmp_path_factory.mktemp("repository")
    try:
        build(path)
    except MissingPackageError as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="session")
def predict(repository: Path):
    from predictors import local_predict

    return local_predict(repository)
