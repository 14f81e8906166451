"""Build a model repository from pretrained models that ship inside PyPI packages.

    python examples/build_repository.py OUT_DIR [--model NAME ...] [--version N]

Nothing is downloaded: the weights are copied out of packages that are installed already. The result is
``OUT_DIR/<model>/<version>/model.onnx`` with a ``model.toml`` beside the versions, which is what
``tensorwire serve OUT_DIR`` reads. Running it again changes nothing that is there already, and a server may
watch OUT_DIR meanwhile: everything is written under a hidden name first and then renamed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packages import MissingPackageError, package_file

CONFIGS = Path(__file__).with_name("model_configs")
#: Copies or converts the packaged file (first path) into the repository (second path).
Install = Callable[[Path, Path], None]


def _copy(source: Path, target: Path) -> None:
    # A copy and not a hard link: reinstalling the package must not change a version that is being served.
    shutil.copyfile(source, target)


@dataclass(frozen=True)
class Recipe:
    """Where the weights of one model are; its ``model.toml`` is ``model_configs/<model>.toml``."""

    package: str
    #: Version number -> file inside the package.
    versions: dict[int, str]
    install: Install = _copy


def put_streams_first(source: Path, target: Path) -> None:
    """Silero's streaming model with the stream as the first axis of everything.

    The original keeps its recurrent state as ``[2, batch, 128]`` and takes the sample rate as a scalar, so a
    server cannot concatenate the requests of several streams. Two transpositions and a constant make it
    ``input [batch, 576], state_in [batch, 2, 128] -> output [batch, 1], state_out [batch, 2, 128]``.
    """
    try:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ModuleNotFoundError as error:
        raise MissingPackageError("package onnx is not installed; run: pip install 'onnx>=1.17'") from error
    model = onnx.load(source)
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name: value for value in graph.output}
    if "sr" in inputs:
        graph.input.remove(inputs["sr"])
        graph.initializer.append(numpy_helper.from_array(np.array(16_000, np.int64), "sr"))
    state_shape = ["batch", 2, 128]
    inputs["input"].type.tensor_type.shape.dim[1].dim_value = 576
    graph.input.remove(inputs["state"])
    graph.input.append(helper.make_tensor_value_info("state_in", TensorProto.FLOAT, state_shape))
    graph.output.remove(outputs["stateN"])
    graph.output.append(helper.make_tensor_value_info("state_out", TensorProto.FLOAT, state_shape))
    graph.node.insert(0, helper.make_node("Transpose", ["state_in"], ["state"], perm=[1, 0, 2]))
    graph.node.append(helper.make_node("Transpose", ["stateN"], ["state_out"], perm=[1, 0, 2]))
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))


RECIPES = {
    "file_type": Recipe("magika", {1: "magika/models/*/model.onnx"}),
    "text_detect": Recipe("rapidocr-onnxruntime", {1: "rapidocr_onnxruntime/models/*_det_infer.onnx"}),
    "text_direction": Recipe("rapidocr-onnxruntime", {1: "rapidocr_onnxruntime/models/*_cls_infer.onnx"}),
    "text_recognize": Recipe("rapidocr-onnxruntime", {1: "rapidocr_onnxruntime/models/*_rec_infer.onnx"}),
    "speech": Recipe(
        "silero-vad",
        {1: "silero_vad/data/silero_vad_16k_op15.onnx", 2: "silero_vad/data/silero_vad_half.onnx"},
        install=put_streams_first,
    ),
    "speech_blocks": Recipe("silero-vad", {1: "silero_vad/data/silero_vad_16k_sequence.onnx"}),
}


def publish(repository: Path, name: str, version: int = 1) -> Path:
    """Put one version of one model into the repository; one that is there already is left alone.

    Only version 1 is published by default. ``speech`` has a version 2 (half precision, same inputs and
    outputs), so a new version can be rolled out, or given a share of the traffic, on a live server.

    Returns:
        The version's directory.

    Raises:
        MissingPackageError: the package that carries the weights is not installed.
    """
    recipe = RECIPES[name]
    directory = repository / name / str(version)
    if directory.is_dir():
        return directory
    source = package_file(recipe.package, recipe.versions[version])
    directory.parent.mkdir(parents=True, exist_ok=True)
    _publish_config(CONFIGS / f"{name}.toml", directory.parent / "model.toml")
    with tempfile.TemporaryDirectory(prefix=".new-", dir=directory.parent) as hidden:
        staged = Path(hidden, str(version))
        staged.mkdir()
        recipe.install(source, staged / "model.onnx")
        _rename_unless_there(staged, directory)
    return directory


def _rename_unless_there(staged: Path, directory: Path) -> None:
    try:
        staged.rename(directory)
    except OSError:
        if not directory.is_dir():  # otherwise another process has just published the same version
            raise


def _publish_config(source: Path, target: Path) -> None:
    """Write ``model.toml`` before the first version; one that is there may have been edited and stays."""
    if not target.exists():
        staged = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(source, staged)
        staged.rename(target)


def build(repository: Path, names: Iterable[str] = tuple(RECIPES), version: int = 1) -> list[Path]:
    """Publish one version of each of the named models (all by default); returns their directories."""
    return [publish(repository, name, version) for name in names]


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if all went well."""
    parser = argparse.ArgumentParser(description="Build a model repository from installed PyPI packages.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--model", action="append", choices=RECIPES, help="only this one; may be repeated")
    parser.add_argument("--version", type=int, default=1, help="speech has versions 1 and 2 (default: 1)")
    options = parser.parse_args(arguments)
    names = options.model or tuple(RECIPES)
    without = [name for name in names if options.version not in RECIPES[name].versions]
    if without:
        parser.error(f"no version {options.version} of {', '.join(without)}")
    try:
        for directory in build(options.out_dir, names, options.version):
            size = sum(file.stat().st_size for file in directory.iterdir())
            print(f"{directory}  {size / 1e6:.1f} MB")
    except MissingPackageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
