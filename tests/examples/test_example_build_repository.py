from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import build_repository
import packages
import pytest
from tensorwire.manager.config import load_model_config
from tensorwire.manager.engines.onnx import OnnxRuntimeEngine

onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime")


def files_of(repository: Path) -> dict[str, float]:
    return {str(path.relative_to(repository)): os.stat(path).st_mtime_ns for path in repository.rglob("*")}


def test_layout_is_what_the_server_reads(repository: Path):
    expected = {name: {"1", "model.toml"} for name in build_repository.RECIPES}
    assert {path.name: {entry.name for entry in path.iterdir()} for path in repository.iterdir()} == expected
    for name in build_repository.RECIPES:
        assert [entry.name for entry in (repository / name / "1").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("name", build_repository.RECIPES)
def test_model_toml_is_valid_and_described(repository: Path, name: str):
    assert load_model_config(repository / name / "model.toml").description


@pytest.mark.parametrize("name", build_repository.RECIPES)
def test_batching_is_on_where_the_first_axis_is_the_request(repository: Path, name: str):
    directory = repository / name
    config = load_model_config(directory / "model.toml")
    path = directory / "1" / "model.onnx"
    servable = OnnxRuntimeEngine().load(path, config, name=name, version=1)
    assert servable.metadata.batched == (name != "speech_blocks")
    servable.close()


def test_building_again_changes_nothing(repository: Path):
    before = files_of(repository)
    build_repository.build(repository)
    assert files_of(repository) == before


def test_an_edited_configuration_stays(tmp_path: Path, repository: Path):
    (tmp_path / "file_type").mkdir()
    (tmp_path / "file_type" / "model.toml").write_text('description = "mine"\n')
    build_repository.publish(tmp_path, "file_type")
    assert (tmp_path / "file_type" / "model.toml").read_text() == 'description = "mine"\n'


def test_second_version_takes_the_same_tensors(tmp_path: Path, repository: Path):
    signatures = []
    for version in (1, 2):
        path = build_repository.publish(tmp_path, "speech", version) / "model.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        signatures.append([(tensor.name, tensor.type, tensor.shape) for tensor in tensors])
    assert signatures[0] == signatures[1]
    assert {path.name for path in (tmp_path / "speech").iterdir()} == {"1", "2", "model.toml"}


def test_command_line(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert build_repository.main([str(tmp_path), "--model", "speech", "--version", "2"]) == 0
    assert f"{tmp_path}/speech/2  1.3 MB" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        build_repository.main([str(tmp_path), "--version", "2"])
    assert "no version 2 of file_type" in capsys.readouterr().err


def test_a_failed_conversion_leaves_no_version_behind(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(source: Path, target: Path) -> None:
        target.write_bytes(b"half a model")
        raise OSError("disk full")

    recipe = build_repository.Recipe("magika", {1: "magika/models/*/model.onnx"}, fail)
    monkeypatch.setitem(build_repository.RECIPES, "file_type", recipe)
    with pytest.raises(OSError, match="disk full"):
        build_repository.publish(tmp_path, "file_type")
    assert [path.name for path in (tmp_path / "file_type").iterdir()] == ["model.toml"]


def test_missing_package_is_named_with_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def none_installed(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "files", none_installed)
    assert build_repository.main([str(tmp_path), "--model", "speech"]) == 1
    error = capsys.readouterr().err
    assert "silero-vad is not installed" in error
    assert "pip install --no-deps" in error
    assert list(tmp_path.iterdir()) == []


def test_package_without_the_file_is_named_with_its_version(repository: Path):
    with pytest.raises(packages.MissingPackageError, match=r"magika \d+\.\d+.* has no file magika/nothing"):
        packages.package_file("magika", "magika/nothing")
