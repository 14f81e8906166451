"""What a server answers is what ONNX Runtime computes here: every kind of tensor, by threads."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
from answers import (  # noqa: F401 - collected here
    Array,
    Local,
    TestRefusals,
    TestTensors,
    TestTogether,
    build,
    of,
    same,
)
from tensorwire.client import Client

NUMBERS = sorted(set(models.ONNX_TYPES) - {"string"})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    for dtype in NUMBERS:
        models.identity(root / f"rows_{dtype}" / "1", dtype)
        models.identity(root / f"scalar_{dtype}" / "1", dtype, ())
    build(root)
    return root


class TestDtypes:
    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_every_dtype(self, client: Client, local: Local, dtype: str) -> None:
        for shape in ((1, 4), (5, 4), (0, 4)):
            x = of(dtype, shape)
            found = client.predict(f"rows_{dtype}", {"x": x})
            if x.dtype.isbuiltin != 1:
                # ONNX Runtime's Python interface does not take these from NumPy; it is the identity.
                assert found["y"].dtype == x.dtype
                assert found["y"].tobytes() == x.tobytes()
            else:
                same(found, local(f"rows_{dtype}", {"x": x}))

    @pytest.mark.parametrize("dtype", NUMBERS)
    def test_scalars(self, client: Client, dtype: str) -> None:
        x = of(dtype, ())
        y = client.predict(f"scalar_{dtype}", {"x": x})["y"]
        assert (y.dtype, y.shape, y.tobytes()) == (x.dtype, (), x.tobytes())


def test_metadata_says_what_to_send(client: Client) -> None:
    metadata = client.metadata("several")
    assert [str(spec) for spec in metadata.inputs] == ["a: float32[?, 3]", "b: int64[?]"]
    assert [spec.name for spec in metadata.outputs] == ["sum", "product", "b_out"]
    assert metadata.batched
    assert client.metadata("split").max_batch_size == 4
    assert not client.metadata("unbatched").batched


def test_health_and_status(client: Client, repository: Path) -> None:
    health = client.health()
    assert health.ready
    assert not health.draining
    assert set(health.models) == {path.name for path in repository.iterdir()}
    assert {line.state for line in client.status()} == {"AVAILABLE"}
    (line,) = client.status("matmul")
    assert (line.model, line.version, line.default) == ("matmul", 1, True)
