from __future__ import annotations

import sys
from pathlib import Path

import file_type
import numpy as np
import pytest
from predictors import Predict

samples = pytest.importorskip("samples", reason="the samples need Pillow: pip install pillow")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("label", ["json", "markdown", "png", "python", "zip"])
def test_samples(label: str, predict: Predict):
    (found,) = file_type.classify_bytes([samples.sample_contents()[label]], predict)
    assert found.label == label
    assert found.confidence > 0.9


def test_real_files_in_one_request(predict: Predict):
    expected = {Path(sys.executable): "elf", ROOT / "rpc/types.py": "python", ROOT / "pyproject.toml": "toml"}
    requests = []

    def counting(model, inputs):
        requests.append((model, inputs["bytes"].shape))
        return predict(model, inputs)

    found = file_type.classify_files(list(expected), counting)
    assert [kind.label for kind in found] == list(expected.values())
    assert requests == [("file_type", (3, 2048))]


def test_rows_of_a_batch_do_not_influence_each_other(predict: Predict):
    contents = list(samples.sample_contents().values())
    together = file_type.classify_bytes(contents, predict)
    alone = [file_type.classify_bytes([content], predict)[0] for content in contents]
    assert [kind.label for kind in together] == [kind.label for kind in alone]
    assert [kind.confidence for kind in together] == pytest.approx(
        [kind.confidence for kind in alone], abs=1e-4
    )


@pytest.mark.parametrize(
    ("content", "label"), [(b"", "empty"), (b"hi", "txt"), (b"\xff\xfe\x00", "unknown"), (b" " * 50, "txt")]
)
def test_contents_too_short_for_the_model_are_answered_without_it(
    repository: Path, content: bytes, label: str
):
    def never(model, inputs):
        raise AssertionError("no request expected")

    assert [kind.label for kind in file_type.classify_bytes([content], never)] == [label]


def test_random_bytes_are_unknown(predict: Predict):
    content = np.random.default_rng(0).bytes(5000)
    assert file_type.classify_bytes([content], predict)[0].label == "unknown"


def test_features_trim_and_pad():
    row = file_type.features(b"  ab", b"yz \n")
    assert row.dtype == np.int32
    assert row[:3].tolist() == [97, 98, 256]
    assert row[-3:].tolist() == [256, 121, 122]
    assert row.shape == (2048,)


def test_features_are_the_same_from_a_file_as_from_bytes(tmp_path: Path):
    content = np.random.default_rng(1).bytes(9000)
    (tmp_path / "file").write_bytes(content)
    assert file_type._ends(tmp_path / "file") == (content[:4096], content[-4096:])


def test_command_line(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = samples.write_samples(tmp_path)[0]
    assert file_type.main([str(path), "--local", str(repository)]) == 0
    assert f"{path}: JSON document (json, 9" in capsys.readouterr().out
